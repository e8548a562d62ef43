"""`make bench-drift`: Banking77 as a stream that changes in the middle of the fourth day.

The teacher changes its mind on some intents, or intents arrive that nobody has seen. Reported:
the largest share of wrong answers given to users over any 2,000 requests, how soon the version went
on probation and was tripped, and the coverage of each day.

Writes benchmarks/results/drift.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np

from benchmarks.loop import Decided, Loop, RememberingEncoder
from benchmarks.tables import replace_section
from services.ctl.files import Row, read_rows
from services.ctl.paths import cache_folder
from shared.contracts.events import AnnouncementKind, Outcome
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent
FIRST = date(2026, 1, 1)
PER_DAY = 2_000
DAYS = 6
SHIFT = 7_000  # requests before the change: the middle of day four
WINDOW = 2_000
LAG = 100  # requests that pass before an answer of the teacher has reached the trainer


@dataclass(frozen=True)
class World:
    """Requests in order, and what the teacher says of each when it is asked."""

    name: str
    requests: list[Row]
    truth: list[str]


@dataclass(frozen=True)
class Drift:
    seed: int
    world: str
    audit_share: float
    wrong_before: float
    worst_window: float
    to_probation: int | None
    to_trip: int | None
    false_probations: int
    false_trips: int
    coverage: list[float]
    agreement: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--audits", type=float, nargs="+", default=[0.1, 0.05, 0.2])
    arguments = parser.parse_args()
    rows = list(read_rows(arguments.data_dir / "banking77.jsonl"))
    encoder = RememberingEncoder(
        OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=None)
    )
    found: list[Drift] = []
    for audit_share in arguments.audits:
        for seed in range(arguments.seeds):
            for make in WORLDS if audit_share == arguments.audits[0] else WORLDS[1:3]:
                found.append(run(make(rows, seed), encoder, arguments.alpha, audit_share, seed))
                print(found[-1], flush=True)
                _store(found, arguments.alpha)
    replace_section(Path("docs/benchmarks.md"), "drift", table(found, arguments.alpha))


def _changed_mind(n_intents: int) -> Callable[[Sequence[Row], int], World]:
    """After the shift the teacher gives the next intent's label to n of the 77."""

    def make(rows: Sequence[Row], seed: int) -> World:
        rng = np.random.default_rng(seed)
        stream = [rows[i] for i in rng.permutation(len(rows))[: PER_DAY * DAYS]]
        labels = sorted({row.teacher for row in rows})
        moved = rng.permutation(len(labels))[:n_intents]
        becomes = {labels[i]: labels[(i + 1) % len(labels)] for i in moved}
        truth = [
            becomes.get(row.teacher, row.teacher) if i >= SHIFT else row.teacher
            for i, row in enumerate(stream)
        ]
        return World(f"teacher changes its mind on {n_intents} of 77 intents", stream, truth)

    return make


def _new_intents(n_intents: int) -> Callable[[Sequence[Row], int], World]:
    """n of the 77 intents arrive only after the shift, in their usual share of the traffic."""

    def make(rows: Sequence[Row], seed: int) -> World:
        rng = np.random.default_rng(seed)
        labels = sorted({row.teacher for row in rows})
        new = {labels[i] for i in rng.permutation(len(labels))[:n_intents]}
        order = [rows[i] for i in rng.permutation(len(rows))]
        before = [row for row in order if row.teacher not in new][:SHIFT]
        used = {row.id for row in before}
        after = [row for row in order if row.id not in used]
        share = n_intents / len(labels)
        novel = [row for row in after if row.teacher in new]
        known = [row for row in after if row.teacher not in new]
        n = min(PER_DAY * DAYS - SHIFT, int(len(novel) / share), int(len(known) / (1 - share)))
        mixed = novel[: round(n * share)] + known[: n - round(n * share)]
        stream = before + [mixed[i] for i in rng.permutation(len(mixed))]
        return World(f"{n_intents} of 77 intents are new", stream, [row.teacher for row in stream])

    return make


WORLDS = (
    _changed_mind(0),
    _changed_mind(6),
    _changed_mind(12),
    _changed_mind(30),
    _new_intents(15),
)


def run(
    world: World, encoder: RememberingEncoder, alpha: float, audit_share: float, seed: int
) -> Drift:
    task = Task(name="banking77", alpha=alpha, audit_share=audit_share)
    truth = {f"r{i}": label for i, label in enumerate(world.truth)}
    decided: list[Decided] = []
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(task, encoder, Path(folder), lambda i, _: truth[i], lag=LAG)
        for number in range(DAYS):
            some = range(number * PER_DAY, min((number + 1) * PER_DAY, len(truth)))
            requests = {f"r{i}": world.requests[i].texts[0] for i in some}
            decided += loop.run_day(FIRST + timedelta(days=number), requests)
    handled = np.asarray([d.outcome is not Outcome.DEFERRED for d in decided])
    wrong = handled & np.asarray([d.label != truth[f"r{i}"] for i, d in enumerate(decided)])
    in_window = np.convolve(wrong, np.ones(WINDOW), "valid") / WINDOW
    reasons = np.asarray([d.reason for d in decided])
    # Before the shift nothing was wrong with any version.
    shift = datetime.combine(FIRST, time(), UTC) + timedelta(days=SHIFT / PER_DAY)
    kinds = [a.kind for a in loop.announced if a.announced_at < shift]
    return Drift(
        seed=seed,
        world=world.name,
        audit_share=audit_share,
        wrong_before=round(float(in_window[: SHIFT - WINDOW + 1].max()), 4),
        worst_window=round(float(in_window.max()), 4),
        to_probation=_after(reasons, "probation"),
        to_trip=_after(reasons, "tripped"),
        false_probations=kinds.count(AnnouncementKind.PROBATION),
        false_trips=kinds.count(AnnouncementKind.TRIPPED),
        coverage=_by_day(handled, handled),
        agreement=_by_day(~wrong, handled, among=True),
    )


def _after(reasons: np.ndarray, reason: str) -> int | None:
    """Requests from the shift to the first decision for this reason."""
    found = np.flatnonzero(reasons[SHIFT:] == reason)
    return int(found[0]) if len(found) else None


def _by_day(values: np.ndarray, handled: np.ndarray, *, among: bool = False) -> list[float]:
    days = []
    for start in range(0, len(values), PER_DAY):
        chosen = handled[start : start + PER_DAY]
        some = values[start : start + PER_DAY]
        some = some[chosen] if among else some
        days.append(round(float(some.mean()), 4) if len(some) else 1.0)
    return days


def _store(found: Sequence[Drift], alpha: float) -> None:
    result = {"alpha": alpha, "runs": [vars(one) for one in found]}
    (HERE / "results" / "drift.json").write_text(json.dumps(result, indent=1) + "\n")


def table(found: Sequence[Drift], alpha: float) -> str:
    lines = [
        f"| the change (α = {alpha}) | audits | worst share wrong of any 2,000, before | after | "
        "requests to probation | to the trip | false probations, trips | coverage by day |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys((one.world, one.audit_share) for one in found)
    lines += [_row([o for o in found if (o.world, o.audit_share) == kind]) for kind in kinds]
    return "\n".join(lines)


def _row(runs: Sequence[Drift]) -> str:
    coverage = np.mean([one.coverage for one in runs], axis=0)
    return (
        f"| {runs[0].world} | {runs[0].audit_share:.0%} | "
        f"{max(one.wrong_before for one in runs):.3f} | "
        f"{max(one.worst_window for one in runs):.3f} | {_some([one.to_probation for one in runs])}"
        f" | {_some([one.to_trip for one in runs])} | "
        f"{sum(one.false_probations for one in runs)}, {sum(one.false_trips for one in runs)} | "
        f"{' '.join(f'{day:.2f}' for day in coverage)} |"
    )


def _some(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    text = f"{min(known)}–{max(known)}" if known else "never"
    return text if len(known) in (0, len(values)) else f"{text} ({len(known)} of {len(values)})"


if __name__ == "__main__":
    main()
