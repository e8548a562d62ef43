"""A task's horizon from the stored windows, a part at a time: a reservoir of it where it is long.

Two passes over the files: one over the narrow columns counts the strata, one takes the rows that
are kept. Neither holds more than a part, a few numbers a row and what is kept.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa

from shared.contracts.tasks import Task
from shared.core.reservoir import draws, keep_probabilities
from shared.fitting.horizon import Horizon
from shared.fitting.stored import COLUMNS, horizon_of
from shared.store.parquet import SCHEMA

# What a stratum is made of, and what its rows stand for.
_NARROW = ("teacher", "source", "observation_probability")
_PROBABILITY = "observation_probability"
_OUTSIDE = ""  # no label is empty

_Stratum = tuple[date, str, str]


class Windows(Protocol):
    """The stored windows, read side."""

    def days(self, task: str) -> list[date]: ...

    def scan(self, task: str, day: date, columns: Sequence[str]) -> Iterator[pa.Table]: ...


@dataclass
class _Size:
    count: int = 0
    mass: float = 0.0


def read_horizon(windows: Windows, task: Task, day: date) -> Horizon:
    """The last `horizon_days` up to `day`, at most about `max_rows` traces of them. Raises OSError.

    Which ones depends on the traces alone.
    """
    days = horizon_days(windows, task, day)
    known = set(task.labels)
    sizes = _sizes(windows, task.name, days, known)
    stored = sum(size.count for size in sizes.values())
    kept = _probabilities(sizes, day, task)
    parts = [
        _thinned(part, d, kept, known) if kept else part
        for d in days
        for part in windows.scan(task.name, d, COLUMNS)
    ]
    horizon = horizon_of(_joined(parts), zone=ZoneInfo(task.timezone), taxonomy=task.labels)
    return replace(horizon, stored=stored) if kept else horizon


def horizon_days(windows: Windows, task: Task, day: date) -> list[date]:
    """The stored days that a fit after `day` is made of. Raises OSError."""
    return [d for d in windows.days(task.name) if 0 <= (day - d).days < task.horizon_days]


def read_day(windows: Windows, task: Task, day: date) -> Horizon:
    """One day's traces, at most about `max_rows` of them. Raises OSError."""
    return read_horizon(windows, msgspec.structs.replace(task, horizon_days=1), day)


def _sizes(
    windows: Windows, task: str, days: Iterable[date], known: set[str]
) -> dict[_Stratum, _Size]:
    """The strata's sizes."""
    sizes: defaultdict[_Stratum, _Size] = defaultdict(_Size)
    for day in days:
        for part in windows.scan(task, day, _NARROW):
            teacher, source, probability = (part[name].to_pylist() for name in _NARROW)
            for label, how, p in zip(teacher, source, probability, strict=True):
                size = sizes[day, _label(label, known), how]
                size.count += 1
                size.mass += 1.0 / p
    return sizes


def _label(label: str, known: set[str]) -> str:
    """Answers outside of the taxonomy are one stratum: each can be a label of its own, and rare
    labels are kept nearly whole."""
    return label if not known or label in known else _OUTSIDE


def _probabilities(sizes: dict[_Stratum, _Size], day: date, task: Task) -> dict[_Stratum, float]:
    """Of every stratum; nothing where all is kept."""
    if sum(size.count for size in sizes.values()) <= task.max_rows:
        return {}
    strata = sorted(sizes)
    found = keep_probabilities(
        np.asarray([sizes[s].count for s in strata], dtype=np.float64),
        np.asarray([sizes[s].mass for s in strata]),
        np.asarray([(day - d).days for d, _, _ in strata], dtype=np.float64),
        most=task.max_rows,
        half_life=task.half_life_days,
    )
    return dict(zip(strata, found.tolist(), strict=True))


def _thinned(part: pa.Table, day: date, kept: dict[_Stratum, float], known: set[str]) -> pa.Table:
    """The rows that are kept, observed with a probability that much smaller."""
    labels = [_label(label, known) for label in part["teacher"].to_pylist()]
    strata = zip(labels, part["source"].to_pylist(), strict=True)
    probability = np.asarray([kept.get((day, *stratum), 0.0) for stratum in strata])
    chosen = np.flatnonzero(draws(part["id"].to_pylist()) < probability)
    part = part.take(pa.array(chosen))
    observed = part[_PROBABILITY].to_numpy() * probability[chosen]
    place = part.column_names.index(_PROBABILITY)
    return part.set_column(place, _PROBABILITY, pa.array(observed, pa.float64()))


def _joined(parts: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(parts) if parts else SCHEMA.empty_table().select(COLUMNS)
