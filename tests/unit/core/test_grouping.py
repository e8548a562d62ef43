from __future__ import annotations

import numpy as np
import pytest

from shared.core.grouping import (
    contradiction_share,
    copies,
    group_folds,
    independent_groups,
    near_duplicate_groups,
)


def test_near_duplicates_differ_in_case_punctuation_and_numbers_only() -> None:
    texts = ["Where is order 17?", "where is  order 250", "Where was order 17?", "?!", "…", ""]
    groups = near_duplicate_groups(texts)
    assert groups[0] == groups[1]
    assert len({*groups[[0, 2, 3, 4, 5]].tolist()}) == 5


def test_folds_keep_groups_whole_and_labels_even() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 7, 1_000)
    groups = np.arange(1_000) // 2
    folds = group_folds(groups, y, 5, seed=3)
    assert (folds[0::2] == folds[1::2]).all()
    counts = np.bincount(folds)
    assert counts.min() >= 190
    assert counts.max() <= 210
    assert (group_folds(groups, y, 5, seed=3) == folds).all()
    assert (group_folds(groups, y, 5, seed=4) != folds).any()


def test_every_label_is_in_every_fold_where_it_can_be() -> None:
    y = np.repeat(np.arange(20), 5)
    folds = group_folds(np.arange(100), y, 5, seed=1)
    assert all(len(np.unique(folds[y == label])) == 5 for label in range(20))


def test_copies_are_counted_by_what_kish_makes_of_their_groups() -> None:
    assert np.allclose(copies(np.arange(10), np.ones(10)), 1.0)
    assert np.allclose(copies(np.zeros(10, int), np.ones(10)), np.arange(1, 11))
    mixed = copies(np.asarray([5, 3, 5, 3, 9]), np.ones(5))
    assert np.allclose(np.arange(1, 6) / mixed, [1, 2, 9 / 5, 2, 25 / 9])
    assert np.allclose(copies(np.asarray([0, 1]), np.asarray([1.0, 3.0])), 1.0)
    heavy = copies(np.asarray([0, 0, 1]), np.asarray([1.0, 3.0, 2.0]))
    assert np.allclose(heavy, [1, 16 / 10, 20 / 14])


def test_contradictions() -> None:
    groups = np.asarray([0, 0, 0, 1, 1, 2])
    share, rows = contradiction_share(groups, np.asarray([1, 1, 2, 3, 3, 4]))
    assert (share, rows) == (pytest.approx(1 / 5), 5)
    assert contradiction_share(np.arange(4), np.zeros(4, int)) == (0.0, 0)


def test_head_texts_are_traffic_and_copies_are_not() -> None:
    groups = np.concatenate([np.zeros(200, int), np.repeat(np.arange(1, 401), 2)])
    independent = independent_groups(groups)
    sizes = np.bincount(np.unique(independent, return_inverse=True)[1])
    assert sorted(set(sizes.tolist())) == [1, 2]
    assert (sizes == 1).sum() == 200  # one text of a fifth of the traffic: 200 draws
    assert (sizes == 2).sum() == 400
    assert (
        np.unique(independent_groups(np.repeat(np.arange(770), 5)), return_counts=True)[1] == 5
    ).all()
