from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from shared.core.shares import p_value_above, share_of


def rows(n: int, hits: int) -> np.ndarray:
    return np.arange(n) < hits


@pytest.mark.parametrize(("n", "hits"), [(20, 0), (20, 3), (500, 17), (20, 20), (1, 1)])
def test_with_equal_rows_the_bounds_are_clopper_and_pearsons(n: int, hits: int) -> None:
    found = share_of(rows(n, hits), np.full(n, 3.0), np.arange(n), 0.05)
    exact = binomtest(hits, n).proportion_ci(0.9, method="exact")
    assert found is not None
    assert (found.n, found.share) == (n, hits / n)
    assert found.lower == pytest.approx(exact.low)
    assert found.upper == pytest.approx(exact.high)


def test_with_equal_rows_the_p_value_is_the_binomial_one() -> None:
    found = p_value_above(rows(40, 6), np.ones(40), np.arange(40), 0.05)
    assert found == pytest.approx(binomtest(6, 40, 0.05, alternative="greater").pvalue)


def test_copies_of_one_text_are_one_observation() -> None:
    once = share_of(rows(50, 5), np.ones(50), np.arange(50), 0.1)
    thrice = share_of(np.tile(rows(50, 5), 3), np.ones(150), np.tile(np.arange(50), 3), 0.1)
    assert once is not None
    assert thrice is not None
    assert (thrice.lower, thrice.upper) == pytest.approx((once.lower, once.upper))


def test_nothing_is_said_of_nothing() -> None:
    assert share_of(np.empty(0, bool), np.empty(0), np.empty(0, int), 0.1) is None
    assert p_value_above(rows(9, 0), np.ones(9), np.arange(9), 0.1) == 1.0


def test_the_bounds_hold_where_the_heavy_rows_are_those_that_hit() -> None:
    """Audited rows stand for twenty requests each and are wrong four times as often."""
    rng = np.random.default_rng(0)
    heavy = np.arange(600) < 150
    weights = np.where(heavy, 20.0, 1.0)
    truth = float(weights @ np.where(heavy, 0.08, 0.02) / weights.sum())
    low = high = 0
    repeats = 400
    for _ in range(repeats):
        hits = rng.uniform(size=600) < np.where(heavy, 0.08, 0.02)
        found = share_of(hits, weights, np.arange(600), 0.1)
        assert found is not None
        low += found.lower > truth
        high += found.upper < truth
    assert low <= 0.13 * repeats  # 0.1 and two standard errors
    assert high <= 0.13 * repeats


@pytest.mark.parametrize(
    ("of_heavy", "of_light"), [(0.5, 1.0), (0.8, 1.0), (1.0, 0.5), (0.95, 0.95)]
)
def test_so_they_do_for_the_share_of_the_rows_that_do_not_err(
    of_heavy: float, of_light: float
) -> None:
    """A fifth of the traffic is seen at a tenth, so that its weight is random too: whichever rows
    err, the bounds of the agreement are those of the errors."""
    rng = np.random.default_rng(1)
    truth = 0.2 * of_heavy + 0.8 * of_light
    low = high = 0
    repeats = 400
    for _ in range(repeats):
        heavy = rng.uniform(size=2_000) < 0.02 / 0.82
        agrees = rng.uniform(size=2_000) < np.where(heavy, of_heavy, of_light)
        weights = np.where(heavy, 10.0, 1.0)
        found = share_of(agrees, weights, np.arange(2_000), 0.1)
        wrong = share_of(~agrees, weights, np.arange(2_000), 0.1)
        assert found is not None
        assert wrong is not None
        assert (found.lower, found.upper) == pytest.approx((1 - wrong.upper, 1 - wrong.lower))
        low += found.lower > truth
        high += found.upper < truth
    assert low <= 0.15 * repeats  # 0.1 and three standard errors
    assert high <= 0.15 * repeats


@pytest.mark.parametrize("often", [0.1, 0.8])
def test_a_share_is_credibly_above_where_its_lower_bound_is(often: float) -> None:
    rng = np.random.default_rng(2)
    hits, weights = rng.uniform(size=300) < often, rng.choice([1.0, 4.0], size=300)
    found = share_of(hits, weights, np.arange(300) // 2, 0.1)
    assert found is not None
    assert p_value_above(hits, weights, np.arange(300) // 2, found.lower) == pytest.approx(0.1)
