"""The acceptor: a score in [0, 1] for "will surrogate and teacher agree on this input?".

A logistic model on what the surrogate's probabilities say of themselves. It is fitted on
out-of-fold probabilities, so that no row is spent on it. `shared.onnx.export` draws the same
features as an ONNX graph; the parity check holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from shared.core.types import Floats, Mask

# Below this a float32 probability and its float64 twin differ by more than they agree.
PROBABILITY_FLOOR = 1e-6
FEATURES = ("top1", "top2", "margin", "entropy", "log_ratio")


def accept_features(probabilities: Floats) -> Floats:
    """float64[n, 5], in the order of FEATURES, from class probabilities float64[n, k], k >= 2."""
    p = np.clip(probabilities, PROBABILITY_FLOOR, 1.0)
    top = np.partition(p, -2, axis=1)[:, -2:]
    top1, top2 = top[:, 1], top[:, 0]
    entropy = -(probabilities * np.log(p)).sum(axis=1)
    return np.stack([top1, top2, top1 - top2, entropy, np.log(top1) - np.log(top2)], axis=1)


@dataclass(frozen=True)
class Acceptor:
    """score = sigmoid(features · coefficients + intercept)."""

    coefficients: Floats
    intercept: float

    def score(self, probabilities: Floats) -> Floats:
        """float64[n] in [0, 1] from class probabilities float64[n, k]."""
        z = accept_features(probabilities) @ self.coefficients + self.intercept
        return 1.0 / (1.0 + np.exp(-z))


def fit_acceptor(probabilities: Floats, agrees: Mask) -> Acceptor:
    """Fit on out-of-fold probabilities float64[n, k] and whether their top label agreed."""
    if agrees.all() or not agrees.any():
        # Nothing to learn from: rank by margin.
        return Acceptor(np.asarray([0.0, 0.0, 1.0, 0.0, 0.0]), 0.0)
    features = accept_features(probabilities)
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(features), agrees)
    scale = np.where(scaler.scale_ > 0, scaler.scale_, 1.0)
    coefficients = model.coef_[0] / scale
    intercept = float(model.intercept_[0] - coefficients @ scaler.mean_)
    return Acceptor(np.asarray(coefficients, dtype=np.float64), intercept)
