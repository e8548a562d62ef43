"""What if: a candidate fitted on the days before a past day, and that day replayed against it.

Nothing is published. The candidate is fitted as the trainer would have fitted it on the evening
before, so the day is traffic it has not seen.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec
import numpy as np

from services.ctl.judged_day import (
    JudgedDay,
    Replayed,
    judged_day,
    nothing_handled,
    replay_day,
    summary_of,
)
from services.ctl.past_day import UNDATED, Past
from services.ctl.version_comparison import compare
from shared.contracts.manifest import Stage, Teacher
from shared.contracts.tasks import Task
from shared.core.gate import Certified, Refused
from shared.core.shares import share_of
from shared.core.slices import slices_of, worse_than_average
from shared.encoder.base import Encoder
from shared.fitting.challenger import Challenger, Tried, fit_challenger
from shared.fitting.graphs import export_cascade, unpublished
from shared.fitting.horizon import Horizon, feature_kind, of_one_kind
from shared.fitting.report.build import wrong_at_most
from shared.registry.base import Artifact
from shared.rounding import down, up

SLICE_RISK = 0.05  # the share of the slices listed that may be expected not to differ


def what_if(
    past: Past,
    task: Task,
    encoder: Encoder,
    *,
    per_call: float | None = None,
    against: Artifact | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Everything `tracerctl whatif` says, at the task's α. per_call: US dollars, None for what the
    traces or the task say. against: a version whose answers to compare."""
    started = time.perf_counter()
    horizon, strays = of_one_kind(past.before)
    candidate = fit_challenger(task, past.day or UNDATED.date(), horizon, encoder, jobs=jobs)
    fit_seconds = time.perf_counter() - started
    n_texts = len(horizon.inputs[0]) if len(horizon) else 1
    day = judged_day(past.replayed, task, encoder, n_texts=n_texts, per_call=per_call)
    artifact = candidate.artifact
    if artifact is None:
        replayed = nothing_handled(day)
    else:
        replayed = replay_day(day, artifact.manifest, artifact.blobs, task.labels)
    figures = figures_of(day, replayed, task)
    result: dict[str, Any] = {
        "task": task.name,
        "alpha": task.alpha,
        "delta": task.delta,
        "day": past.name,
        "days_before": past.days_before,
        "n_traces": len(horizon),
        "n_evidence": int(horizon.evidence.sum()),
        "refused": artifact is None,
        "reason": candidate.reason if artifact is None else None,
        "certificate": None if artifact is None else summary_of(artifact.manifest),
        "replay": _totals(day) | figures | {"deferred": _deferred(day, replayed)},
        "slices": _slices(day, replayed, task),
        "frontier": _frontier(day, candidate.tried, task) if _usable(candidate) else [],
        "against": None,
        "notes": _notes(past, day, horizon, strays),
        "fit_seconds": round(fit_seconds, 2),
    }
    if against is not None:
        before = replay_day(day, against.manifest, against.blobs, task.labels)
        result["against"] = {"version": against.version} | compare(day, before, replayed)
        result["against"]["before"] = figures_of(day, before, task)
        if past.day is not None and against.manifest.window >= past.day.isoformat():
            result["notes"].append(
                f"{against.version} was fitted on this day too: its agreement there is flattered"
            )
    return result


def figures_of(day: JudgedDay, replayed: Replayed, task: Task) -> dict[str, Any]:
    """Coverage, agreement, wrong answers and money on the day; bounds hold with probability
    1 - δ each. Agreement is None where nothing was handled."""
    weights, handled = day.weights, replayed.handled
    wrong = handled & (replayed.label != day.teacher)
    errors = share_of(wrong, weights, day.groups, task.delta)
    of_handled = share_of(wrong[handled], weights[handled], day.groups[handled], task.delta)
    return {
        "coverage": _rounded(weights @ handled / weights.sum()) if len(day) else None,
        "n_handled": int(handled.sum()),
        "n_wrong": int(wrong.sum()),
        "agreement": None if of_handled is None else _rounded(1.0 - of_handled.share),
        "agreement_lower": None if of_handled is None else down(1.0 - of_handled.upper, 4),
        "agreement_upper": None if of_handled is None else up(1.0 - of_handled.lower, 4),
        "wrong_per_1000": None if errors is None else round(1000 * errors.share, 1),
        # Where nothing is handled nothing can be wrong, however few requests were seen.
        "wrong_per_1000_at_most": (
            None if errors is None else up(1000 * errors.upper, 1) if handled.any() else 0.0
        ),
        **day.calls.saved(handled, task.audit_share),
    }


def _totals(day: JudgedDay) -> dict[str, Any]:
    return {
        "n_traces": day.n_traces,
        "n_judged": len(day),
        "requests": round(float(day.weights.sum()), 1),
        "spent_per_day": day.calls.spent(),
        "price_from": day.calls.source,
    }


def _deferred(day: JudgedDay, replayed: Replayed) -> list[dict[str, Any]]:
    """The reasons of what is not handled, most frequent first, as shares of all requests."""
    mass: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for reason, weight, handled in zip(
        replayed.reason, day.weights.tolist(), replayed.handled.tolist(), strict=True
    ):
        if not handled:
            mass[reason.value] += weight
            rows[reason.value] += 1
    total = float(day.weights.sum())
    return [
        {"reason": reason, "n": rows[reason], "share": _rounded(weight / total)}
        for reason, weight in mass.most_common()
    ]


def _slices(day: JudgedDay, replayed: Replayed, task: Task) -> dict[str, Any]:
    """Where, of what is handled, agreement is credibly below the average."""
    rows = np.flatnonzero(replayed.handled)
    tried = slices_of(day.teacher[rows].tolist(), [day.texts[i] for i in rows.tolist()])
    if not task.previews:  # names of the others are words of texts
        tried = [one for one in tried if one.kind in ("label", "length")]
    agrees = np.asarray(replayed.label[rows] == day.teacher[rows], dtype=np.bool_)
    worst = worse_than_average(tried, agrees, day.weights[rows], day.groups[rows], risk=SLICE_RISK)
    return {
        "risk": SLICE_RISK,
        "n_tested": len(tried),
        "worst": [
            {k: _rounded(v) if isinstance(v, float) else v for k, v in asdict(one).items()}
            for one in worst
        ],
    }


def _frontier(day: JudgedDay, tried: Tried | None, task: Task) -> list[dict[str, Any]]:
    """What the same fit would do at other α, ascending; empty where there is no fit."""
    if tried is None or tried.fitted.cascade is None:
        return []
    fitted, training = tried.fitted, tried.training
    kind = feature_kind(tried.horizon.inputs)
    none_yet = [0.0] * len(tried.fitted.cascade.stages)
    stages, blobs = export_cascade(tried.fitted.cascade, training, kind, none_yet)
    dropped = [training.labels[i] for i in fitted.dropped]
    points = {point.alpha: point for point in (*fitted.frontier, fitted.verdict)}
    rows = []
    for alpha in sorted(points):
        point = points[alpha]
        replayed = nothing_handled(day)
        if isinstance(point, Certified):
            manifest = unpublished(_at(stages, point, tried), training.labels, dropped)
            replayed = replay_day(day, manifest, blobs, task.labels)
        rows.append(
            {"alpha": alpha} | _certified(point) | {"replay": figures_of(day, replayed, task)}
        )
    return rows


def _usable(candidate: Challenger) -> bool:
    """Not where the gate certified what then could not be exported."""
    tried = candidate.tried
    return candidate.artifact is not None or (
        tried is not None and isinstance(tried.fitted.verdict, Refused)
    )


def _at(stages: Sequence[Stage], point: Certified, tried: Tried) -> tuple[Stage, ...]:
    """The stages with the thresholds of a point of the frontier."""
    floors = tried.fitted.family.floors if tried.fitted.family else ()
    return tuple(
        msgspec.structs.replace(stage, threshold=max(point.threshold, floor))
        for stage, floor in zip(stages, floors, strict=True)
    )


def _certified(point: Certified | Refused) -> dict[str, Any]:
    if isinstance(point, Refused):
        return {"coverage": 0.0, "agreement_lower": None, "wrong_per_1000_at_most": 0.0}
    return {
        "coverage": _rounded(point.coverage),
        "agreement_lower": down(point.agreement_lower, 4),
        "wrong_per_1000_at_most": wrong_at_most(point.coverage, point.agreement_lower),
    }


def _notes(past: Past, day: JudgedDay, horizon: Horizon, strays: int) -> list[str]:
    """What a reader should know of the rows that were left out."""
    notes = [
        f"{n} rows of `split: {split}` were left out" for split, n in sorted(past.left_out.items())
    ]
    if horizon.stored is not None:
        notes.append(
            f"{len(horizon):,} of {horizon.stored:,} traces were fitted on, as by the trainer "
            "(`max_rows`)"
        )
    if strays:
        notes.append(f"{strays} traces of another number of texts were left out of the fit")
    if day.n_removed:
        notes.append(
            f"{day.n_removed} traces of the day have labels that are not given, and are no evidence"
        )
    if day.n_traces > len(day):
        notes.append(
            f"{day.n_traces - len(day)} of the day's {day.n_traces} traces do not count: they were "
            "observed because of their text without audits beside them, or are of another teacher "
            "or from before a trip (docs/flywheel.md)"
        )
    if _another(horizon.answered_by, day.answered_by):
        notes.append("on the day another teacher (model or prompt) answered than before")
    return notes


def _another(before: Teacher, now: Teacher) -> bool:
    """Whether another teacher answers, as far as is known."""
    return any(
        was is not None and now_is is not None and was != now_is
        for was, now_is in ((before.model, now.model), (before.prompt, now.prompt))
    )


def _rounded(value: float) -> float:
    return round(float(value), 4)
