"""Distances to landmarks that are kept along a few directions only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from shared.core.landmark_ridge import KEPT, LandmarkRidge

DIM = 32


def rows(n: int, spread: float, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors that lie in four dimensions of DIM, but for `spread` in the others."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(n, DIM)) * np.where(np.arange(DIM) < 4, 1.0, spread)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def fitted(spread: float) -> LandmarkRidge:
    X = rows(300, spread)
    return LandmarkRidge().fit(X, (X[:, 0] > 0).astype(np.int64))


def exact(model: LandmarkRidge, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """The kernel between rows and whole landmarks, which are found again, by learned distances."""
    train = rows(300, 0.02)
    landmarks = model._find_landmarks(train, model._most_landmarks(DIM))
    return np.exp(-model.gamma * cdist(X, landmarks, "mahalanobis", VI=metric(model)) ** 2)


def metric(model: LandmarkRidge) -> NDArray[np.float64]:
    """float64[DIM, DIM]: what squared steps count, the same in all directions that are left out."""
    scaled = model.directions_.astype(np.float64)
    kept = scaled / np.linalg.norm(scaled, axis=0)
    return scaled @ scaled.T + model.rest_ * (np.eye(DIM) - kept @ kept.T)


def test_the_fewest_directions_that_hold_the_share() -> None:
    model = fitted(0.3)
    directions = model.directions_.astype(np.float64)
    r = directions.shape[1]
    assert 4 < r < DIM
    lengths = np.linalg.norm(directions, axis=0)
    assert np.allclose(directions.T @ directions, np.diag(lengths**2), atol=1e-6)
    along = (model.landmarks_.astype(np.float64) ** 2).sum(axis=0)
    assert along.sum() >= KEPT * model.squares_.sum() * (1 - 1e-3)
    assert along[:-1].sum() < KEPT * model.squares_.sum()


def test_directions_along_which_labels_part_count_for_more() -> None:
    """The label is the sign of the first of four alike coordinates."""
    counts = np.diag(metric(fitted(0.02)))
    assert counts[0] > 1.5 * counts[1:4].max()
    assert counts.min() > 0.05


def test_landmarks_are_as_far_apart_as_by_plain_distances() -> None:
    model, train = fitted(0.02), rows(300, 0.02)
    landmarks = model._find_landmarks(train, model._most_landmarks(DIM)).astype(np.float64)
    learned = pdist(landmarks, "mahalanobis", VI=metric(model)) ** 2
    assert np.isclose(learned.mean(), pdist(landmarks, "sqeuclidean").mean(), rtol=0.1)


def test_the_kernel_is_the_one_of_whole_landmarks_where_rows_lie_with_them() -> None:
    model, X = fitted(0.02), rows(50, 0.02, seed=1)
    assert 4 <= model.directions_.shape[1] < DIM / 3
    assert np.abs(model.kernel(X) - exact(model, X)).max() < 0.03


def test_a_row_unlike_all_is_as_far_away_as_it_is() -> None:
    """What lies outside of the directions counts: novelty feeds on it."""
    model = fitted(0.02)
    strange = np.zeros((1, DIM), np.float32)
    strange[0, DIM - 1] = 1.0
    assert np.allclose(model.kernel(strange), exact(model, strange), atol=0.05)
    assert model.kernel(strange).max() < model.kernel(rows(50, 0.02)).max(axis=1).min()


def test_embeddings_of_nothing_but_zeros_are_no_crash() -> None:
    X = np.zeros((30, DIM), np.float32)
    model = LandmarkRidge().fit(X, np.arange(30) % 2)
    assert np.isfinite(model.decision_function(X)).all()


def test_a_row_alone_in_its_cell_makes_a_landmark_with_its_nearest() -> None:
    X = np.asarray([[0, 0], [0, 1], [5, 0], [5, 3]], np.float32)
    found = LandmarkRidge()._with_nearest(X, np.asarray([0, 1, 2]))
    assert found.tolist() == [[0.0, 0.5], [5.0, 1.5]]  # 0 and 1 are each other's: one pair


def test_the_nearest_is_found_among_all_rows() -> None:
    """Also where they are looked at in several parts."""
    X, alone = rows(1_300, 0.3), np.asarray([0, 511, 512, 1_299])
    apart = cdist(X[alone], X)
    apart[np.arange(4), alone] = np.inf
    expected = (X[alone] + X[apart.argmin(axis=1)]) / 2.0
    found = LandmarkRidge()._with_nearest(X, alone)
    assert cdist(expected, found).min(axis=1).max() < 1e-6


def test_no_landmark_is_a_copy_of_a_row() -> None:
    X = rows(600, 0.3)
    everywhere = LandmarkRidge()._find_landmarks(X, 3_000)
    assert cdist(everywhere, X).min() > 1e-3
    assert 400 < len(everywhere) < 600  # two rows that are each other's nearest share one
    fewer = LandmarkRidge()._find_landmarks(X, 100)
    assert cdist(fewer, X).min() > 1e-3
    assert 90 < len(fewer) <= 100


def test_of_many_rows_the_cells_of_several_are_enough() -> None:
    X = rows(6_000, 0.3)
    assert 1_200 < len(LandmarkRidge()._find_landmarks(X, 1_500)) <= 1_500
