"""Kernel ridge classification on landmarks: the semantic scorer that does best on embeddings.

Ridge regression of one-hot labels on Gaussian kernels around landmarks (the Nyström method,
Williams and Seeger 2001). Landmarks are means of neighbouring rows, so that the artifact holds no
copy of the training embeddings. A row unlike all it was trained on scores low for every label,
which is what the out-of-distribution score feeds on.

A landmark is kept by its coordinates along the directions in which landmarks lie (a truncated
singular value decomposition), and by its whole length: half the numbers to read for a row that
comes alone, and distances off by what is left out of one product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, eigh
from scipy.linalg.blas import dsyrk
from sklearn.base import BaseEstimator, ClassifierMixin

from shared.core.types import STAGE_BYTES, Floats, Ints, Matrix

ROWS_AT_ONCE = 512  # bounds memory; more are no faster
# Rows alone in their cells make landmarks, too, as long as there are not so many. Among 3,000 rows
# most are alone; of 10,000 the other cells are so many.
LONE_UP_TO = 2200
# Of the landmarks' squared lengths, along the directions that are kept. All of them agree with the
# teacher as often on Banking77 (0.9347 for 0.9344) and are twice as much to read.
KEPT = 0.975
JITTER = 1e-6


class LandmarkRidge(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier with `decision_function` only.

    n_landmarks: at most; gamma: of exp(-gamma |x - landmark|²); ridge: the penalty on the squared
    norm in the kernel's space. Fitted: directions_ float32[d, r], landmarks_ float32[m, r] along
    them, squares_ float32[m], their squared lengths with all that was left out, weights_
    float32[m, k].
    """

    def __init__(
        self, n_landmarks: int = 3000, gamma: float = 0.5, ridge: float = 0.05, seed: int = 0
    ) -> None:
        self.n_landmarks = n_landmarks
        self.gamma = gamma
        self.ridge = ridge
        self.seed = seed

    def fit(self, X: Matrix, y: Ints) -> LandmarkRidge:
        self.classes_, target = np.unique(y, return_inverse=True)
        landmarks = self._find_landmarks(X, self._most_landmarks(X.shape[1]))
        m = len(landmarks)
        self.directions_ = _directions(landmarks)
        self.landmarks_: NDArray[np.float32] = landmarks @ self.directions_
        self.squares_: NDArray[np.float32] = (landmarks**2).sum(axis=1)
        # Only the lower triangle is ever computed, in place, in Fortran's order as LAPACK wants it.
        gram, moments = np.zeros((m, m), order="F"), np.zeros((m, len(self.classes_)))
        for start in range(0, len(X), ROWS_AT_ONCE):
            kernel = self.kernel(X[start : start + ROWS_AT_ONCE])
            gram = dsyrk(1.0, kernel.T, beta=1.0, c=gram, overwrite_c=True, lower=True)
            moments += kernel.T @ np.eye(len(self.classes_))[target[start : start + ROWS_AT_ONCE]]
        for start in range(0, m, ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            gram[some] += self.ridge * self.kernel(landmarks[some])
        gram.flat[:: m + 1] += JITTER
        factor = cho_factor(gram, lower=True, overwrite_a=True)
        self.weights_: NDArray[np.float32] = cho_solve(factor, moments).astype(np.float32)
        return self

    def kernel(self, X: Matrix) -> Floats:
        """float64[n, m]: the Gaussian kernel between rows and landmarks."""
        x, c = X.astype(np.float64), self.landmarks_.astype(np.float64)
        along = x @ self.directions_.astype(np.float64)
        squares = along @ c.T  # all else in place: this is the largest array of a fit
        squares *= -2.0
        squares += (x**2).sum(axis=1)[:, None]
        squares += self.squares_
        np.maximum(squares, 0.0, out=squares)
        squares *= -self.gamma
        return np.asarray(np.exp(squares, out=squares))

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
        sums = np.zeros(seeds.shape)
        np.add.at(sums, cell, X)
        several = sizes > 1
        means = (sums[several] / sizes[several][:, None]).astype(np.float32)
        alone = drawn[sizes[cell[drawn]] == 1][: max(0, LONE_UP_TO - len(means))]
        return np.concatenate([means, self._with_nearest(X, alone)])


def _directions(landmarks: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32[d, r], orthonormal: the fewest that hold KEPT of the landmarks' squared lengths."""
    rows = landmarks.astype(np.float64)
    lengths, directions = eigh(rows.T @ rows)  # ascending
    held = np.cumsum(np.maximum(lengths[::-1], 0.0))
    r = 1 + int(np.searchsorted(held, KEPT * held[-1]))
    return np.asarray(directions[:, ::-1][:, :r], dtype=np.float32)
