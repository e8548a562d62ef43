"""Stored traces as a horizon: which of them may certify, and how much traffic each stands for.

All traces of the task's labels train. A trace certifies if it was observed with a known
probability, whatever a surrogate thought of it, from the teacher that answers now, and since that
teacher was last found to have changed. `docs/flywheel.md` gives the reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, tzinfo
from math import ceil
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.contracts.audits import UNSELECTIVE
from shared.contracts.events import Reason, Source
from shared.contracts.manifest import Teacher
from shared.core.evidence_weights import scale_by_period
from shared.core.types import Floats, Mask
from shared.fitting.horizon import Horizon

# All that a horizon is made of; the other columns of a store are for people and replays.
COLUMNS = (
    "id",
    "input",
    "teacher",
    "occurred_at",
    "source",
    "deferral_reason",
    "observation_probability",
    "audit_share",
    "version",
    "teacher_model",
    "prompt",
)

# Of the requests deferred for a trip, so many may be dated before it.
EARLY_DATES = 0.1


def horizon_of(table: pa.Table, *, zone: tzinfo = UTC, taxonomy: Sequence[str] = ()) -> Horizon:
    """COLUMNS as in `shared.store.parquet.SCHEMA`. zone: of the task's days. Where there is a
    `taxonomy`, traces of another label are there only if they certify: nobody may answer with it,
    but somebody asked."""
    columns = _oldest_first(table)
    traces = _Columns.of(columns, zone)
    teacher = traces.current_teacher()
    recent = traces.since_last_trip()
    evidence = traces.observed() & traces.answered_by(teacher)
    if recent is not None:
        evidence &= recent
    weights, heaviest = traces.weights(evidence)
    horizon = Horizon(
        inputs=[tuple(texts) for texts in columns["input"]],
        teacher=columns["teacher"],
        evidence=evidence,
        weights=weights,
        heaviest=heaviest,
        recent=recent,
        tripped=frozenset() if recent is None else traces.tripped(recent),
        answered_by=teacher,
        ids=columns["id"],
        taxonomy=frozenset(taxonomy),
    )
    return horizon.take(np.flatnonzero(may_count(horizon.teacher, evidence, taxonomy)).tolist())


def may_count(teacher: Sequence[str], evidence: Mask, taxonomy: Collection[str]) -> Mask:
    """bool[n]: traces to learn from, or evidence. A request that the teacher answered outside of
    the taxonomy is both live and unanswerable: a certificate without it would promise too much.
    What was asked with another prompt, which had the label, is no evidence in the first place."""
    if not taxonomy:
        return np.ones(len(teacher), dtype=np.bool_)
    known = set(taxonomy)
    return evidence | np.asarray([label in known for label in teacher], dtype=np.bool_)


def _oldest_first(table: pa.Table) -> dict[str, list[Any]]:
    """COLUMNS in the order of time and id. Arrow would join all texts to order them, and fail where
    they are more than 2 GiB."""
    by_time = [("occurred_at", "ascending"), ("id", "ascending")]
    order = pc.sort_indices(table.select([name for name, _ in by_time]), by_time).to_pylist()
    values = table.select(COLUMNS).to_pydict()
    return {name: [values[name][i] for i in order] for name in COLUMNS}


@dataclass(frozen=True)
class _Columns:
    """What says how a trace came to be observed, oldest trace first."""

    at: list[datetime]
    day: list[date]
    source: list[str]
    reason: list[str | None]
    probability: list[float]
    audit_share: list[float]
    version: list[str | None]
    model: list[str | None]
    prompt: list[str | None]

    @classmethod
    def of(cls, columns: Mapping[str, list[Any]], zone: tzinfo) -> _Columns:
        return cls(
            at=columns["occurred_at"],
            day=[at.astimezone(zone).date() for at in columns["occurred_at"]],
            source=columns["source"],
            reason=columns["deferral_reason"],
            probability=columns["observation_probability"],
            audit_share=[share or 0.0 for share in columns["audit_share"]],
            version=columns["version"],
            model=columns["teacher_model"],
            prompt=columns["prompt"],
        )

    def observed(self) -> Mask:
        """bool[n]: observed with a known probability, given the text."""
        return np.asarray(
            [
                is_evidence(Source(source), Reason(reason) if reason else None, share)
                for source, reason, share in zip(
                    self.source, self.reason, self.audit_share, strict=True
                )
            ],
            dtype=np.bool_,
        )

    def current_teacher(self) -> Teacher:
        """The model and the prompt that most traces of the newest day name."""
        newest = [i for i, day in enumerate(self.day) if day == self.day[-1]]
        return Teacher(
            model=_most_common([self.model[i] for i in newest]),
            prompt=_most_common([self.prompt[i] for i in newest]),
        )

    def answered_by(self, teacher: Teacher) -> Mask:
        """bool[n]: by this teacher, as far as the trace says."""
        return _said(self.model, teacher.model) & _said(self.prompt, teacher.prompt)

    def since_last_trip(self) -> Mask | None:
        """bool[n]: from after the last trip; None without one.

        Dates are the clients', and some are days late: the first one among the requests deferred
        for a trip would bring back what failed before it. So a tenth of them may be dated too early
        (what came then is lost as evidence, which is the safe side), and what the router knew goes
        before any date: a tripped version never answers again, so whatever else it did was before.
        """
        dates: dict[str, list[datetime]] = {}
        tripped = [reason == Reason.TRIPPED.value for reason in self.reason]
        for at, trip, version in zip(self.at, tripped, self.version, strict=True):
            if trip and version is not None:
                dates.setdefault(version, []).append(at)
        if not dates:
            return None
        begins = {
            version: found[min(ceil(EARLY_DATES * len(found)), len(found) - 1)]
            for version, found in dates.items()
        }
        last = max(begins, key=lambda version: (begins[version], version))
        return np.asarray(
            [
                version == last if trip and version in begins
                else at >= begins[last] and version not in begins
                for at, trip, version in zip(self.at, tripped, self.version, strict=True)
            ],
            dtype=np.bool_,
        )  # fmt: skip

    def tripped(self, recent: Mask) -> frozenset[str]:
        """The versions that these traces were deferred for, being tripped."""
        return frozenset(
            version
            for version, reason, is_recent in zip(self.version, self.reason, recent, strict=True)
            if is_recent and version is not None and reason == Reason.TRIPPED.value
        )

    def weights(self, evidence: Mask) -> tuple[Floats, float]:
        """float64[n]: one over the observation probability, days under selection scaled so that
        few heavy audits do not outweigh what is known better. And the heaviest an audit could have
        been, as a day may have none."""
        weights = 1.0 / np.asarray(self.probability, dtype=np.float64)
        share = np.asarray(self.audit_share)
        days: dict[date, int] = {}
        period = np.asarray(
            [
                days.setdefault(day, 1 + len(days)) if s and r not in UNSELECTIVE else 0
                for day, s, r in zip(self.day, self.audit_share, self.reason, strict=True)
            ],
            dtype=np.int64,
        )
        scaled = weights.copy()
        scaled[evidence] = scale_by_period(weights[evidence], period[evidence])
        audited = evidence & (period > 0)
        heaviest = scaled[audited] / (weights[audited] * share[audited])
        return scaled, float(heaviest.max(initial=0.0))


def is_evidence(source: Source, reason: Reason | None, audit_share: float) -> bool:
    """Whether a trace represents traffic, with the weight of its observation probability.

    What was deferred for its text does so only beside audits of what was handled; so does what
    was deferred on probation or for a raised alpha, which are the requests that the version was
    sure of.
    """
    if source is Source.DEFERRED:
        return reason in UNSELECTIVE or audit_share > 0
    return True


def since_trip(horizon: Horizon) -> Horizon | None:
    """The traces since the last trip alone, None without a trip: what was learned before it may
    be what failed."""
    if horizon.recent is None:
        return None
    return replace(horizon.take(np.flatnonzero(horizon.recent).tolist()), recent=None)


def _most_common(values: Sequence[str | None]) -> str | None:
    counts = Counter(value for value in values if value is not None)
    return max(counts, key=lambda value: (counts[value], value)) if counts else None


def _said(values: Sequence[str | None], current: str | None) -> Mask:
    """bool[n]: the same value; an unknown one counts, unless another is known and the current
    one had not been seen yet."""
    if current is None or set(values) <= {current, None}:
        return np.ones(len(values), dtype=np.bool_)
    first = values.index(current)
    return np.asarray(
        [v == current or (v is None and i >= first) for i, v in enumerate(values)], dtype=np.bool_
    )
