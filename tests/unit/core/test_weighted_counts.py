from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import gamma

from shared.core.gate import p_values
from shared.core.grouping import copies
from shared.core.weighted_counts import Sums


def sums(weights: np.ndarray, wrong: np.ndarray, groups: np.ndarray | None = None) -> Sums:
    """Of one policy that handles all rows."""
    groups = np.arange(len(weights)) if groups is None else groups
    return Sums(
        *(
            np.atleast_1d(np.asarray(value, dtype=float))
            for value in (
                weights.sum(),
                (weights**2).sum(),
                weights[wrong].sum(),
                (weights[wrong] ** 2).sum(),
                weights.max(),
                copies(groups, weights)[-1],
            )
        )
    )


@pytest.mark.parametrize("weight", [1.0, 20.0, 0.03])
@pytest.mark.parametrize("errors", [0, 1, 17, 200])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.9, 0.99])
def test_rows_of_equal_weight_are_rows(weight: float, errors: int, alpha: float) -> None:
    counts = sums(np.full(200, weight), np.arange(200) < errors).counts(alpha)
    assert counts.size == pytest.approx(200)
    assert counts.errors == pytest.approx(errors, abs=1e-9)


def mixed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.choice([1.0, 5.0, 20.0], size=300), rng.uniform(size=300) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_the_unit_of_weights_does_not_matter(seed: int) -> None:
    weights, wrong = mixed(seed)
    one, other = (sums(weights * unit, wrong).counts(0.9) for unit in (1.0, 7.3))
    assert one.size == pytest.approx(other.size)
    assert one.errors == pytest.approx(other.errors)


@pytest.mark.parametrize("times", [2, 5])
@pytest.mark.parametrize("weigh", [np.ones_like, lambda w: w], ids=["equal", "weighted"])
def test_copies_count_once(times: int, weigh: Callable[[np.ndarray], np.ndarray]) -> None:
    weights, wrong = mixed(0)
    weights = weigh(weights)
    once = sums(weights, wrong).counts(0.9)
    groups = np.repeat(np.arange(300), times)
    copied = sums(np.repeat(weights, times), np.repeat(wrong, times), groups).counts(0.9)
    assert copied.size == pytest.approx(once.size)
    assert copied.errors == pytest.approx(once.errors)


def test_heavy_errors_are_counted_as_fay_and_feuer_do() -> None:
    """Their upper limit of the mean of the weighted sum is that of the counts, scaled back."""
    weights = np.repeat([1.0, 10.0], [400, 60])
    wrong = np.zeros(460, bool)
    wrong[:5], wrong[400:410] = True, True
    y, v, heaviest = 5 + 100, 5 + 1_000, 10
    shape, scale = (y + heaviest) ** 2 / (v + heaviest**2), (v + heaviest**2) / (y + heaviest)
    theirs = gamma.ppf(0.9, shape, scale=scale)
    counts = sums(weights, wrong).counts(0.9)
    ours = gamma.ppf(0.9, counts.errors + 1.0) * 1_000 / counts.size
    assert ours == pytest.approx(theirs)


def test_one_error_more_is_weaker_evidence_the_heavier_it_is() -> None:
    weights = np.repeat([1.0, 4.0, 20.0], [200, 100, 20])
    p = [
        p_values(sums(weights, np.arange(320) == row).counts(0.9), 0.9)[0] for row in (0, 250, 319)
    ]
    assert p[0] < p[1] < p[2]


def test_light_errors_do_not_hide_how_uncertain_the_weight_is() -> None:
    """Only light rows err. The variance of a weighted sum of errors knows nothing of the heavy
    ones; that of the rate does."""
    weights = np.repeat([1.0, 20.0], [20_000, 1_000])
    counts = sums(weights, np.arange(21_000) < 4_000).counts(0.9)
    agreed = np.arange(21_000) >= 4_000
    variance = (weights**2 * np.where(agreed, 0.1, 0.9) ** 2).sum()
    scale = weights.sum() / counts.size[0]
    assert scale**2 * counts.size[0] * 0.1 * 0.9 == pytest.approx(variance, rel=0.05)


def test_hypothetical_errors_are_rows_of_average_weight() -> None:
    equal = sums(np.ones(100), np.zeros(100, bool)).with_errors(2).counts(0.9)
    assert (equal.errors[0], equal.size[0]) == (pytest.approx(2), pytest.approx(100))
    twice = sums(np.ones(100), np.zeros(100, bool), np.arange(100) // 2).with_errors(2).counts(0.9)
    assert (twice.errors[0], twice.size[0]) == (pytest.approx(2), pytest.approx(50))
