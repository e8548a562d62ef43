"""Labels that are taken for each other, out of fold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.report.boundary import Boundary
from shared.core.types import Ints

MOST_CONFUSIONS = 15
LEAST_ROWS = 2  # once is no pattern


@dataclass(frozen=True)
class Confused:
    """Labels a and b; int64 rows of the boundary where the teacher says a and the surrogate b, and
    the other way round, the surest mistake first."""

    a: int
    b: int
    a_as_b: Ints
    b_as_a: Ints

    @property
    def rows(self) -> Ints:
        return np.concatenate([self.a_as_b, self.b_as_a])


def confusions(boundary: Boundary) -> list[Confused]:
    """The most frequent pairs; a is the label that is mistaken more often."""
    wrong = np.flatnonzero(~boundary.agrees)
    wrong = wrong[np.argsort(-boundary.accept[wrong], kind="stable")]
    by_pair: dict[tuple[int, int], list[int]] = {}
    for row in wrong.tolist():
        by_pair.setdefault((int(boundary.y[row]), int(boundary.said[row])), []).append(row)
    found = []
    for a, b in {(min(pair), max(pair)) for pair in by_pair}:
        forth = np.asarray(by_pair.get((a, b), []), dtype=np.int64)
        back = np.asarray(by_pair.get((b, a), []), dtype=np.int64)
        if len(forth) + len(back) >= LEAST_ROWS:
            more = len(forth) >= len(back)
            found.append(Confused(a, b, forth, back) if more else Confused(b, a, back, forth))
    found.sort(key=lambda one: (-len(one.rows), one.a, one.b))
    return found[:MOST_CONFUSIONS]
