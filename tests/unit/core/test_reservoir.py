from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.reservoir import draws, keep_probabilities

COUNTS = st.lists(st.integers(1, 100_000), min_size=1, max_size=60)


def kept(counts: list[int], most: int, **how: object) -> np.ndarray:
    count = np.asarray(counts, dtype=np.float64)
    age = np.zeros(len(count))
    return keep_probabilities(count, count, age, most=most, **how)  # type: ignore[arg-type]


@given(COUNTS, st.integers(1_000, 50_000))
def test_at_most_so_many_are_expected_and_every_row_has_a_chance(
    counts: list[int], most: int
) -> None:
    probability = kept(counts, most)
    assert ((probability > 0) & (probability <= 1)).all()
    expected = float((np.asarray(counts) * probability).sum())
    if sum(counts) <= most:
        assert (probability == 1).all()
    else:
        assert most - 3.1 * most**0.5 - 1 < expected <= most


@given(COUNTS, st.integers(1_000, 50_000))
def test_rarer_rows_are_kept_with_no_smaller_probability(counts: list[int], most: int) -> None:
    order = np.argsort(counts)
    assert (np.diff(kept(counts, most)[order]) <= 1e-12).all()


def test_a_minority_is_kept_whole() -> None:
    assert kept([100_000, 100_000, 8], 2_000)[2] == 1.0


def test_what_stands_for_more_traffic_is_kept_with_greater_probability() -> None:
    """Audits: few, and each stands for many."""
    count = np.asarray([10_000.0, 10_000.0])
    probability = keep_probabilities(count, count * [1.0, 25.0], np.zeros(2), most=3_000)
    assert probability[1] / probability[0] == pytest.approx(5.0)


def test_a_day_counts_half_as_much_each_half_life() -> None:
    count = np.full(3, 10_000.0)
    probability = keep_probabilities(
        count, count, np.asarray([0.0, 7.0, 14.0]), most=3_000, half_life=7.0
    )
    assert probability[:2] / probability[1:] == pytest.approx([2.0, 2.0])


def test_draws_are_even_and_of_the_id_alone() -> None:
    ids = [f"request-{i}" for i in range(20_000)]
    drawn = draws(ids)
    assert (drawn[::-1] == draws(ids[::-1])).all()
    share = np.histogram(drawn, bins=10, range=(0, 1))[0] / len(ids)
    assert np.abs(share - 0.1).max() < 0.01


def test_an_audited_id_is_no_likelier_to_be_kept() -> None:
    """Both are drawn by a hash of the id: they must be different ones."""
    from services.router.sampling import chosen

    audited = [i for i in (f"r{n}" for n in range(100_000)) if chosen("audit", i, 0.05)]
    assert np.mean(draws(audited) < 0.2) == pytest.approx(0.2, abs=0.02)
