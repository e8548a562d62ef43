"""What is compared is measured in rounds, each thing once in each.

A shared machine has fast and slow phases, up to twice apart and minutes long. Measured one after
the other, two things that are equally fast may differ by as much; within a round they meet the same
phase. A ratio is that of a round, and what is told is the median of the rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """`call` handles so many `rows`."""

    call: Callable[[], object]
    rows: int


@dataclass(frozen=True)
class Pass:
    """One run: rows a second, and CPU seconds of this process per 1,000 rows."""

    per_s: float
    cpu_s_per_1000: float


def timed(run: Run) -> Pass:
    cpu, begun = time.process_time(), time.perf_counter()
    run.call()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return Pass(run.rows / seconds, 1000 * cpu / run.rows)


def in_rounds(runs: Mapping[str, Run], rounds: int) -> dict[str, list[Pass]]:
    """The passes of each run, one a round; one round before them does not count."""
    passes = [{name: timed(run) for name, run in runs.items()} for _ in range(rounds + 1)][1:]
    return {name: [one[name] for one in passes] for name in runs}


def medians(found: Sequence[Mapping[Any, Any]]) -> dict[str, Any]:
    """Of each figure over all of `found`, which have the same names; what is no number or a truth
    value is the first one's."""
    return {name: _median([one[name] for one in found]) for name in found[0]}


def _median(values: Sequence[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return medians(values)
    if isinstance(values[0], bool) or not isinstance(values[0], int | float):
        return values[0]
    return statistics.median(values)
