from __future__ import annotations

import numpy as np
import pytest

from shared.core.evidence_weights import scale_by_period


def kish(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / (weights**2).sum())


def test_rows_that_stand_for_themselves_are_left_alone() -> None:
    assert (scale_by_period(np.ones(50), np.arange(50) // 7) == 1.0).all()


def test_a_period_has_the_mass_of_its_effective_size() -> None:
    rng = np.random.default_rng(0)
    weights, period = rng.choice([1.0, 20.0], size=500), rng.integers(-3, 4, 500)
    scaled = scale_by_period(weights, period)
    for each in np.unique(period):
        rows = period == each
        assert scaled[rows].sum() == pytest.approx(kish(weights[rows]))
        assert np.allclose(scaled[rows] / weights[rows], (scaled[rows] / weights[rows])[0])


def test_no_other_masses_of_the_periods_give_a_larger_effective_size() -> None:
    """It is the sum of the periods' sizes, and more than that of any."""
    rng = np.random.default_rng(1)
    weights = np.concatenate([np.ones(2_000), rng.choice([1.0, 20.0], size=400, p=[0.9, 0.1])])
    period = np.repeat([0, 1, 2], [2_000, 200, 200])
    best = kish(scale_by_period(weights, period))
    assert best == pytest.approx(sum(kish(weights[period == each]) for each in range(3)))
    assert best > 2_000
    for _ in range(100):
        other = scale_by_period(weights, period) * rng.uniform(0.2, 5.0, size=3)[period]
        assert kish(other) <= best
    assert kish(weights) < best
