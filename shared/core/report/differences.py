"""Slices on which coverage or agreement credibly differs from the average, up or down.

All slices and both measures are one family of tests: of the differences found at most a share
`risk` is expected to be none, and where nothing differs nothing is found with probability
1 - `risk` (Benjamini and Hochberg 1995; `shared.core.slices` says more of it). Each test is two
exact one-sided ones, its p-value twice the smaller. The average has the slice in it, which makes
the test strict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.core.report.boundary import Boundary
from shared.core.shares import Share, p_value_above, share_of
from shared.core.slices import MINIMUM_ROWS, Slice, benjamini_hochberg
from shared.core.types import Floats, Ints, Mask

Measure = Literal["coverage", "agreement"]
# Of slices that are nearly the same rows only the surest is shown.
SAME_ROWS = 0.7


@dataclass(frozen=True)
class Difference:
    """share: in the slice, with an exact interval at level 1 - risk of its own; average: over all
    rows. p_value: corrected for all looked at."""

    slice: Slice
    measure: Measure
    share: Share
    average: float
    p_value: float


@dataclass(frozen=True)
class Differences:
    """found: surest first. n_tested: slices times measures."""

    n_tested: int
    found: list[Difference]


@dataclass(frozen=True)
class _Test:
    slice: Slice
    measure: Measure
    rows: Mask
    hits: Mask
    average: float


def differences(boundary: Boundary, slices: Sequence[Slice], *, risk: float) -> Differences:
    """slices: over the boundary's rows, made without a look at what was handled or agreed."""
    tests = [*_tests(boundary, slices, "coverage"), *_tests(boundary, slices, "agreement")]
    if not tests:
        return Differences(0, [])
    weights, groups = boundary.weights, boundary.groups
    p_values = np.asarray([_p_value(test, weights, groups) for test in tests])
    corrected = benjamini_hochberg(p_values)
    found: list[Difference] = []
    for i in np.argsort(p_values, kind="stable").tolist():
        test = tests[i]
        if corrected[i] > risk or any(_same(test, shown) for shown in found):
            continue
        rows = test.rows
        share = share_of(test.hits[rows], weights[rows], groups[rows], risk / 2)
        assert share is not None  # a slice has rows
        found.append(Difference(test.slice, test.measure, share, test.average, float(corrected[i])))
    return Differences(len(tests), found)


def _tests(boundary: Boundary, slices: Sequence[Slice], measure: Measure) -> list[_Test]:
    everything = np.ones(len(boundary), dtype=np.bool_)
    of = everything if measure == "coverage" else boundary.handled
    hits = boundary.handled if measure == "coverage" else boundary.agrees
    if not of.any():
        return []
    average = float(boundary.weights[of] @ hits[of] / boundary.weights[of].sum())
    return [
        _Test(one, measure, one.rows & of, hits, average)
        for one in slices
        if (one.rows & of).sum() >= MINIMUM_ROWS
    ]


def _p_value(test: _Test, weights: Floats, groups: Ints) -> float:
    rows = test.rows
    hits, w, g = test.hits[rows], weights[rows], groups[rows]
    above = p_value_above(hits, w, g, test.average)
    below = p_value_above(~hits, w, g, 1.0 - test.average)
    return min(1.0, 2.0 * min(above, below))


def _same(test: _Test, shown: Difference) -> bool:
    if test.measure != shown.measure:
        return False
    both = (test.slice.rows & shown.slice.rows).sum()
    return bool(both > SAME_ROWS * (test.slice.rows | shown.slice.rows).sum())
