"""Kernel ridge classification on landmarks: the semantic scorer that does best on embeddings.

Ridge regression of one-hot labels on Gaussian kernels around landmarks (the Nyström method,
Williams and Seeger 2001). Landmarks are means of neighbouring rows, so that the artifact holds no
copy of the training embeddings. A row unlike all it was trained on scores low for every label,
which is what the out-of-distribution score feeds on.

Distances are learned: a small machine of this kind, on plain distances, says along which
directions the margin between a row's two best labels changes, and those count for more (the average
outer product of gradients, Radhakrishnan et al. 2024).

A landmark is kept by its coordinates along the directions that tell most landmarks apart, and by
its whole length: half the numbers to read for a row that comes alone, and distances off by what is
left out of one product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.linalg.blas import dsyrk
from sklearn.base import BaseEstimator, ClassifierMixin

from shared.core.types import STAGE_BYTES, Floats, Ints, Matrix

ROWS_AT_ONCE = 512  # bounds memory; more are no faster
# Of the landmarks' squared lengths, along the directions that are kept. All of them agree with the
# teacher as often on Banking77 (0.9347 for 0.9344) and are twice as much to read.
KEPT = 0.975
JITTER = 1e-6
# The machine that the distances are learned from, and how much they may differ by direction: the
# square root of what the gradients say, and at least so much of the average everywhere.
METRIC_LANDMARKS = 800
METRIC_ROWS = 4000
METRIC_GRADIENTS = 1000
METRIC_POWER = 0.5
METRIC_FLOOR = 0.2


class Metric(NamedTuple):
    """Orthonormal axes float64[d, d] and what a squared step along each counts, float64[d] > 0."""

    axes: Floats
    weights: Floats


class LandmarkRidge(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier with `decision_function` only.

    n_landmarks: at most; gamma: of exp(-gamma |x - landmark|²); ridge: the penalty on the squared
    norm in the kernel's space. Fitted: directions_ float32[d, r], as long as they count,
    landmarks_ float32[m, r] along them, squares_ float32[m], their squared lengths with all that
    was left out, weights_ float32[m, k]; of a squared length rest_ is what a squared step in any
    direction counts, shares_ float32[r] the part of one along each that comes on top.
    """

    def __init__(
        self, n_landmarks: int = 2200, gamma: float = 0.5, ridge: float = 0.05, seed: int = 0
    ) -> None:
        self.n_landmarks = n_landmarks
        self.gamma = gamma
        self.ridge = ridge
        self.seed = seed

    def fit(self, X: Matrix, y: Ints) -> LandmarkRidge:
        self.classes_, target = np.unique(y, return_inverse=True)
        landmarks = self._find_landmarks(X, self._most_landmarks(X.shape[1]))
        few = _every(landmarks, METRIC_LANDMARKS)
        self._place(few, _plain(few))
        self._solve(_every(X, METRIC_ROWS), _every(target, METRIC_ROWS))
        metric = _learned(self._margin_gradients(_every(X, METRIC_GRADIENTS), few), few)
        self._place(landmarks, metric)
        self._solve(X, target)
        return self

    def _place(self, landmarks: Matrix, metric: Metric) -> None:
        """Keep the landmarks by their coordinates along the axes that hold most of them."""
        along = landmarks.astype(np.float64) @ metric.axes * np.sqrt(metric.weights)
        held = (along**2).sum(axis=0)
        order = np.argsort(-held, kind="stable")
        share = np.cumsum(held[order])
        r = 1 + int(np.searchsorted(share, KEPT * share[-1]))
        kept, left = order[:r], order[r:]
        # All directions that are left out count alike: then a row's length along them is what the
        # kept ones leave of its whole length.
        self.rest_ = float(metric.weights[left].mean()) if len(left) else 0.0
        self.shares_ = (1.0 - self.rest_ / metric.weights[kept]).astype(np.float32)
        scaled = metric.axes[:, kept] * np.sqrt(metric.weights[kept])
        self.directions_: Matrix = scaled.astype(np.float32)
        self.landmarks_: Matrix = landmarks @ self.directions_
        self.squares_: Matrix = self.squared_lengths(landmarks, self.landmarks_)

    def squared_lengths(self, X: Matrix | Floats, along: Matrix | Floats) -> Any:
        """[n]: of rows, from their coordinates `along` the kept directions too."""
        return (along * along) @ self.shares_ + np.float32(self.rest_) * (X * X).sum(axis=1)

    def _solve(self, X: Matrix, target: Ints) -> None:
        m, k = len(self.landmarks_), len(self.classes_)
        # Only the lower triangle is ever computed, in place, in Fortran's order as LAPACK wants it.
        gram, moments = np.zeros((m, m), order="F"), np.zeros((m, k))
        for start in range(0, len(X), ROWS_AT_ONCE):
            kernel = self.kernel(X[start : start + ROWS_AT_ONCE])
            gram = dsyrk(1.0, kernel.T, beta=1.0, c=gram, overwrite_c=True, lower=True)
            one_hot = np.zeros((len(kernel), k))
            one_hot[np.arange(len(kernel)), target[start : start + ROWS_AT_ONCE]] = 1.0
            moments += kernel.T @ one_hot
        for start in range(0, m, ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            gram[some] += self.ridge * self._between(self.landmarks_[some], self.squares_[some])
        gram.flat[:: m + 1] += JITTER
        factor = cho_factor(gram, lower=True, overwrite_a=True)
        self.weights_: NDArray[np.float32] = cho_solve(factor, moments).astype(np.float32)

    def kernel(self, X: Matrix) -> Floats:
        """float64[n, m]: the Gaussian kernel between rows and landmarks."""
        x = X.astype(np.float64)
        along = x @ self.directions_.astype(np.float64)
        return self._between(along, self.squared_lengths(x, along))

    def _between(self, along: Matrix | Floats, squares: Matrix | Floats) -> Floats:
        """float64[n, m], from coordinates and squared lengths of rows."""
        distances = along.astype(np.float64) @ self.landmarks_.astype(np.float64).T
        distances *= -2.0  # all in place: this is the largest array of a fit
        distances += squares[:, None]
        distances += self.squares_
        np.maximum(distances, 0.0, out=distances)
        distances *= -self.gamma
        return np.asarray(np.exp(distances, out=distances))

    def _margin_gradients(self, X: Matrix, landmarks: Matrix) -> Floats:
        """float64[n, d]: how the scores of each row's two best labels part as it moves, but for a
        constant factor."""
        kernel = self.kernel(X)
        weights = self.weights_.astype(np.float64)
        second, first = np.argsort(kernel @ weights, axis=1)[:, -2:].T
        pull = kernel * (weights[:, first] - weights[:, second]).T
        return np.asarray(pull @ landmarks.astype(np.float64) - pull.sum(axis=1)[:, None] * X)

    def decision_function(self, X: Matrix) -> Floats:
        """float64[n, k], about 1 for the label and 0 for the others."""
        parts = [
            self.kernel(X[start : start + ROWS_AT_ONCE]) @ self.weights_.astype(np.float64)
            for start in range(0, max(len(X), 1), ROWS_AT_ONCE)
        ]
        return np.concatenate(parts)

    def predict(self, X: Matrix) -> Ints:
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)], dtype=np.int64)

    def _most_landmarks(self, dim: int) -> int:
        """`n_landmarks`, or so many that the stage's artifact stays below STAGE_BYTES."""
        bytes_each = 4 * (dim + len(self.classes_) + 1)
        return max(2, min(self.n_landmarks, STAGE_BYTES // bytes_each))

    def _with_nearest(self, X: Matrix, alone: Ints) -> NDArray[np.float32]:
        """float32[s, d]: the mean of each of these rows and the row nearest to it, a pair once."""
        best, nearest = np.full(len(alone), -np.inf, np.float32), np.zeros(len(alone), np.int64)
        for start in range(0, len(X), ROWS_AT_ONCE):
            some = X[start : start + ROWS_AT_ONCE]
            near = X[alone] @ some.T - (some**2).sum(axis=1) / np.float32(2.0)
            here = np.flatnonzero((alone >= start) & (alone < start + len(some)))
            near[here, alone[here] - start] = -np.inf  # no row is its own neighbour
            found = near.max(axis=1, initial=-np.inf)
            nearer = found > best
            best[nearer], nearest[nearer] = found[nearer], start + near[nearer].argmax(axis=1)
        pairs = np.unique(np.sort(np.stack([alone, nearest], axis=1), axis=1), axis=0)
        return np.asarray((X[pairs[:, 0]] + X[pairs[:, 1]]) / 2.0, dtype=np.float32)

    def _find_landmarks(self, X: Matrix, most: int) -> NDArray[np.float32]:
        """One step of k-means from random rows, all of them where they are few. A row alone in its
        cell makes a landmark with the row nearest to it."""
        m = min(most, len(X))
        drawn = np.random.default_rng(self.seed).permutation(len(X))[:m]
        seeds = X[np.sort(drawn)]
        half = (seeds**2).sum(axis=1) / np.float32(2.0)
        cell = np.concatenate([
            (X[start : start + ROWS_AT_ONCE] @ seeds.T - half).argmax(axis=1)
            for start in range(0, len(X), ROWS_AT_ONCE)
        ])  # fmt: skip
        sizes = np.bincount(cell, minlength=m)
        of_cell = sp.csr_matrix((np.ones(len(X)), (cell, np.arange(len(X)))), shape=(m, len(X)))
        sums = of_cell @ X
        several = sizes > 1
        means = (sums[several] / sizes[several][:, None]).astype(np.float32)
        alone = drawn[sizes[cell[drawn]] == 1]  # most rows of 3,000, of 10,000 hardly any
        return np.concatenate([means, self._with_nearest(X, alone)])


def _every(rows: NDArray[Any], about: int) -> NDArray[Any]:
    """Evenly spaced ones: at least so many and fewer than twice, all where there are fewer."""
    return rows[:: max(1, len(rows) // about)]


def _plain(landmarks: Matrix) -> Metric:
    """Plain distances, axes those along which landmarks lie."""
    rows = landmarks.astype(np.float64)
    return Metric(eigh(rows.T @ rows)[1], np.ones(landmarks.shape[1]))


def _learned(gradients: Floats, landmarks: Matrix) -> Metric:
    """Landmarks are as far apart as they were, on average."""
    strengths, axes = eigh(gradients.T @ gradients)
    weights = np.maximum(strengths, 0.0) ** METRIC_POWER
    weights = (1.0 - METRIC_FLOOR) * weights / max(float(weights.mean()), 1e-12) + METRIC_FLOOR
    spread = np.var(landmarks.astype(np.float64) @ axes, axis=0)
    after = float(spread @ weights)
    return Metric(axes, weights * (spread.sum() / after if after > 0 else 1.0))
