"""Labels whose coverage or agreement credibly changed from one version to the next.

Fisher's exact test of two shares, of as many rows of weight 1 as their intervals are worth: where
what is handled is seen once in fifty times and what is deferred always, counts of rows would show
a change wherever audits begin. Windows overlap, so most traces are in both: their shares vary
together, and the test is on the strict side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import fisher_exact

from shared.core.slices import MINIMUM_ROWS, benjamini_hochberg


@dataclass(frozen=True)
class Shares:
    """hits of n, before and now, in rows of weight 1."""

    hits_before: int
    n_before: int
    hits_now: int
    n_now: int


def credible_changes(
    shares: Sequence[Shares], *, risk: float
) -> tuple[int, list[tuple[int, float]]]:
    """How many were compared; which of them changed, and the corrected p-value, surest first. Of
    those told at most a share `risk` is expected to be none."""
    tested = [i for i, s in enumerate(shares) if min(s.n_before, s.n_now) >= MINIMUM_ROWS]
    if not tested:
        return 0, []
    p_values = np.asarray([_p_value(shares[i]) for i in tested])
    corrected = benjamini_hochberg(p_values)
    order = np.argsort(p_values, kind="stable").tolist()
    return len(tested), [(tested[i], float(corrected[i])) for i in order if corrected[i] <= risk]


def _p_value(s: Shares) -> float:
    rest_before, rest_now = s.n_before - s.hits_before, s.n_now - s.hits_now
    table = np.asarray([[s.hits_before, rest_before], [s.hits_now, rest_now]])
    return float(fisher_exact(table).pvalue)
