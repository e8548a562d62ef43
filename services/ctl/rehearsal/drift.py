"""A file's rows as a stream that changes after three and a half days, as its users see it.

The teacher changes its mind on some labels, or labels arrive that nobody has seen. Found: the
largest share of wrong answers given to users over any 2,000 requests, how soon the version went on
probation and was tripped, and the coverage of each day.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import numpy as np

from services.ctl.files import Row
from services.ctl.rehearsal.loop import Decided, Loop
from services.ctl.rehearsal.traffic import FIRST, input_of
from shared.contracts.events import AnnouncementKind, Outcome
from shared.contracts.tasks import Task
from shared.core.types import Floats, Mask
from shared.encoder.base import Encoder

DAYS = 6
SHIFT_DAYS = 3.5
WINDOW = 2_000
LAG = 20  # requests before an answer of the teacher has reached the trainer: minutes at this rate
BATCH = 20
MOST_PER_DAY = 2_000
LEAST_PER_DAY = WINDOW // 3  # a whole window lies before the change


@dataclass(frozen=True)
class World:
    """Requests in order, what the teacher says of each when asked, and how many come a day."""

    name: str
    requests: list[Row]
    truth: list[str]
    per_day: int

    @property
    def shift(self) -> int:
        """Requests before the change."""
        return int(SHIFT_DAYS * self.per_day)


@dataclass(frozen=True)
class Drift:
    """What users saw. wrong_before, worst_window: the largest share of wrong answers over any
    WINDOW requests before the change and at all. to_probation, to_trip: requests from the change
    to the first decision for that reason. coverage, agreement: by day."""

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


Make = Callable[[Sequence[Row], int], World]


def per_day(rows: Sequence[Row]) -> int:
    """As many requests a day as the rows allow. Raises ValueError where they are too few."""
    most = min(MOST_PER_DAY, len(rows) // DAYS)
    if most < LEAST_PER_DAY:
        raise ValueError(f"{len(rows)} rows are too few: needs {LEAST_PER_DAY * DAYS} or more")
    return most


def changed_mind(n_labels: int) -> Make:
    """After the change the teacher gives the next label instead to n of them."""

    def make(rows: Sequence[Row], seed: int) -> World:
        rng = np.random.default_rng(seed)
        daily = per_day(rows)
        stream = [rows[i] for i in rng.permutation(len(rows))[: daily * DAYS]]
        labels = sorted({row.teacher for row in rows})
        moved = rng.permutation(len(labels))[:n_labels]
        becomes = {labels[i]: labels[(i + 1) % len(labels)] for i in moved}
        shift = int(SHIFT_DAYS * daily)
        truth = [
            becomes.get(row.teacher, row.teacher) if i >= shift else row.teacher
            for i, row in enumerate(stream)
        ]
        name = f"teacher changes its mind on {n_labels} of {len(labels)} labels"
        return World(name, stream, truth, daily)

    return make


def new_labels(n_labels: int) -> Make:
    """n of the labels arrive only after the change, in their usual share of the traffic."""

    def make(rows: Sequence[Row], seed: int) -> World:
        rng = np.random.default_rng(seed)
        daily = per_day(rows)
        labels = sorted({row.teacher for row in rows})
        new = {labels[i] for i in rng.permutation(len(labels))[:n_labels]}
        order = [rows[i] for i in rng.permutation(len(rows))]
        shift = int(SHIFT_DAYS * daily)
        before = [row for row in order if row.teacher not in new][:shift]
        used = {row.id for row in before}
        after = [row for row in order if row.id not in used]
        share = n_labels / len(labels)
        novel = [row for row in after if row.teacher in new]
        known = [row for row in after if row.teacher not in new]
        n = min(daily * DAYS - shift, int(len(novel) / share), int(len(known) / (1 - share)))
        mixed = novel[: round(n * share)] + known[: n - round(n * share)]
        stream = before + [mixed[i] for i in rng.permutation(len(mixed))]
        name = f"{n_labels} of {len(labels)} labels are new"
        return World(name, stream, [row.teacher for row in stream], daily)

    return make


def worlds(n_labels: int) -> tuple[Make, ...]:
    """No change, a change of 8%, 16% and 40% of the labels, and 20% that are new."""

    def some(share: float) -> int:
        return max(1, round(share * n_labels))

    minds = tuple(changed_mind(n) for n in (0, some(0.08), some(0.16), some(0.39)))
    return (*minds, new_labels(some(0.195)))


def run_world(
    world: World,
    encoder: Encoder,
    task: Task,
    seed: int,
    done: Callable[[], None] = lambda: None,
) -> Drift:
    """Live through it; `done` is told of each day."""
    truth = {f"r{i}": label for i, label in enumerate(world.truth)}
    decided: list[Decided] = []
    daily = world.per_day
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(
            task, encoder, Path(folder), lambda request_id: truth[request_id], lag=LAG, batch=BATCH
        )
        for number in range(DAYS):
            some = range(number * daily, min((number + 1) * daily, len(truth)))
            day = FIRST + timedelta(days=number)
            decided += loop.run_day(day, {f"r{i}": input_of(world.requests[i]) for i in some})
            loop.close(day)
            done()
    handled = np.asarray([d.outcome is not Outcome.DEFERRED for d in decided])
    wrong = handled & np.asarray([d.label != truth[f"r{i}"] for i, d in enumerate(decided)])
    in_window = np.convolve(wrong, np.ones(WINDOW), "valid") / WINDOW
    reasons = np.asarray([d.reason for d in decided])
    # Before the change nothing was wrong with any version.
    change = datetime.combine(FIRST, time(), UTC) + timedelta(days=SHIFT_DAYS)
    kinds = [a.kind for a in loop.announced if a.announced_at < change]
    return Drift(
        seed=seed,
        world=world.name,
        audit_share=task.audit_share,
        wrong_before=round(float(in_window[: world.shift - WINDOW + 1].max()), 4),
        worst_window=round(float(in_window.max()), 4),
        to_probation=_after(reasons, "probation", world.shift),
        to_trip=_after(reasons, "tripped", world.shift),
        false_probations=kinds.count(AnnouncementKind.PROBATION),
        false_trips=kinds.count(AnnouncementKind.TRIPPED),
        coverage=_by_day(handled, handled, daily),
        agreement=_by_day(~wrong, handled, daily, among=True),
    )


def _after(reasons: np.ndarray, reason: str, shift: int) -> int | None:
    found = np.flatnonzero(reasons[shift:] == reason)
    return int(found[0]) if len(found) else None


def _by_day(
    values: Mask | Floats, handled: Mask, daily: int, *, among: bool = False
) -> list[float]:
    """Means by day; `among`: of the handled requests only, 1 where there were none."""
    days = []
    for start in range(0, len(values), daily):
        chosen = handled[start : start + daily]
        some = values[start : start + daily]
        some = some[chosen] if among else some
        days.append(round(float(some.mean()), 4) if len(some) else 1.0)
    return days
