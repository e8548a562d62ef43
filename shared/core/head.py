"""A stage's head: from scores to a label, an accept score and an out-of-distribution score.

The label is the best of a log-linear mixture of the scores of this stage's scorer and of the
stages before it. The *acceptor* says how likely surrogate and teacher agree on it, the *novelty*
score how likely the input belongs to none of the task's labels. All three are fitted on
out-of-fold scores, so that no row is spent on them. `shared.onnx.head` draws the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from shared.core.types import Floats, Ints, Mask, Scores

# Rows of the label's own record that stand for what is known of all labels.
PRIOR_ROWS = 10.0
# Steps of the simplex search for the mixture, per scorer.
MIXTURE_STEPS = 40
# The best label's logit above the average one's where the search begins.
STARTING_RISE = 5.0
# A handful of weights needs no more rows than this.
MIXTURE_ROWS = 4_000
ROWS_AT_ONCE = 4_096  # bounds the float64 copies of scores


@dataclass(frozen=True)
class Linear:
    """sigmoid(features · coefficients + intercept)."""

    coefficients: Floats
    intercept: float

    def __call__(self, features: Floats) -> Floats:
        return np.asarray(expit(features @ self.coefficients + self.intercept))


class Read(NamedTuple):
    """What a head sees of each row: int64[n] labels, the features float64[n, 3] of the acceptor
    but for the label's record, and float64[n, 2 + 3m] of the novelty."""

    label: Ints
    accept: Floats
    novelty: Floats


class AcceptorRows(NamedTuple):
    """What an acceptor is fitted on: int64[n] answers, float64[n, 4] features, bool[n]: whether
    the answer agrees."""

    label: Ints
    features: Floats
    agrees: Mask


@dataclass(frozen=True)
class Said:
    """A stage's answers: int64[n] labels, float64[n] accept scores and novelties in [0, 1]."""

    label: Ints
    accept: Floats
    novelty: Floats


@dataclass(frozen=True)
class Head:
    """mixture: float64[m], weights of the m scorers. reliability: float64[k], log-odds that an
    answer with this label agrees."""

    mixture: Floats
    reliability: Floats
    acceptor: Linear
    novelty: Linear

    def __call__(self, scores: Sequence[Scores]) -> Said:
        """From the m scorers' float[n, k]."""
        label, accept, novelty = read(self.mixture, scores)
        return Said(
            label=label,
            accept=self.acceptor(np.column_stack([accept, self.reliability[label]])),
            novelty=self.novelty(novelty),
        )


def mix(weights: Floats, scores: Sequence[Scores]) -> Floats:
    """float64[n, k] log-probabilities."""
    mixed: Floats = sum(w * s.astype(np.float64) for w, s in zip(weights, scores, strict=True))
    return np.asarray(log_softmax(mixed, axis=1))


def read(mixture: Floats, scores: Sequence[Scores]) -> Read:
    """From the m scorers' float[n, k], a few thousand rows at a time."""
    parts = []
    for start in range(0, max(len(scores[0]), 1), ROWS_AT_ONCE):
        some = [s[start : start + ROWS_AT_ONCE].astype(np.float64) for s in scores]
        mixed = mix(mixture, some)
        parts.append(
            (mixed.argmax(axis=1), accept_features(mixed, some), novelty_features(mixed, some))
        )
    return Read(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def accept_features(mixed: Floats, scores: Sequence[Floats]) -> Floats:
    """float64[n, 3]: the mixture's top-1 and its log-odds of the first against the second; the
    highest score of the stage's own scorer, which is the last. What each is worth, and what was
    left out for being worth nothing, is in docs/ablation.md."""
    first, second = _best_two(mixed)
    return np.stack([np.exp(first), first - second, scores[-1].max(axis=1)], axis=1)


def novelty_features(mixed: Floats, scores: Sequence[Floats]) -> Floats:
    """float64[n, 2 + 3m]: the mixture's top-1 and entropy; of each scorer the score of the
    mixture's label, its margin and its highest score."""
    label = mixed.argmax(axis=1)
    columns = [np.exp(mixed.max(axis=1)), _entropy(mixed)]
    for s in scores:
        first, second = _best_two(s)
        columns += [s[np.arange(len(s)), label], first - second, first]
    return np.stack(columns, axis=1)


def _entropy(mixed: Floats) -> Floats:
    return np.asarray(-(np.exp(mixed) * mixed).sum(axis=1))


def _best_two(values: Floats) -> tuple[Floats, Floats]:
    best = np.partition(values, -2, axis=1)[:, -2:]
    return best[:, 1], best[:, 0]


def fit_head(
    scores: Sequence[Scores], y: Ints, folds: Ints, mixture: Floats, novelty: Linear
) -> Head:
    """On out-of-fold scores float[n, k] of m scorers and the folds they come from."""
    label, features, agrees = acceptor_rows(scores, y, folds, mixture)
    return Head(
        mixture=mixture,
        reliability=_reliability(label, agrees, scores[0].shape[1]),
        acceptor=fit_linear(features, agrees),
        novelty=novelty,
    )


def acceptor_rows(scores: Sequence[Scores], y: Ints, folds: Ints, mixture: Floats) -> AcceptorRows:
    """From out-of-fold scores float[n, k]; a row's own answer does not speak for its label."""
    label, features, _ = read(mixture, scores)
    agrees = label == y
    record = np.empty(len(y))
    for fold in np.unique(folds):
        inside = folds == fold
        others = _reliability(label[~inside], agrees[~inside], scores[0].shape[1])
        record[inside] = others[label[inside]]
    return AcceptorRows(label, np.column_stack([features, record]), agrees)


def fit_mixture(scores: Sequence[Scores], y: Ints) -> Floats:
    """float64[m] > 0, by the likelihood of the teacher's labels, where it gave one of the k."""
    at = np.flatnonzero(y < scores[0].shape[1])
    if not len(at):
        return np.ones(len(scores))
    rows = at[np.linspace(0, len(at) - 1, min(len(at), MIXTURE_ROWS)).astype(np.int64)]
    scores, y = [s[rows].astype(np.float64) for s in scores], y[rows]

    def loss(logarithms: ArrayLike) -> float:
        mixed = mix(np.exp(np.asarray(logarithms)), scores)
        return float(-mixed[np.arange(len(y)), y].mean())

    # Every scorer has a scale of its own; begin where all weigh the same.
    rise = [max(float(np.mean(s.max(axis=1) - s.mean(axis=1))), 1e-6) for s in scores]
    start = -np.log(np.asarray(rise) * len(scores) / STARTING_RISE)
    found = minimize(
        loss, start, method="Nelder-Mead",
        options={"maxiter": MIXTURE_STEPS * len(scores), "initial_simplex": _simplex(start)},
    )  # fmt: skip
    return np.asarray(np.exp(found.x), dtype=np.float64)


def fit_linear(features: Floats, target: Mask) -> Linear:
    """Logistic regression on standardised features; the base rate where `target` is one-sided."""
    if target.all() or not target.any():
        rate = (target.sum() + 1.0) / (len(target) + 2.0)
        return Linear(np.zeros(features.shape[1]), float(logit(rate)))
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(features), target)
    coefficients = np.asarray(model.coef_[0] / scaler.scale_, dtype=np.float64)
    return Linear(coefficients, float(model.intercept_[0] - coefficients @ scaler.mean_))


def _simplex(start: Floats) -> Floats:
    return np.vstack([start, start + 0.7 * np.eye(len(start))])


def _reliability(label: Ints, agrees: Mask, k: int) -> Floats:
    """float64[k]: log-odds of agreement by answered label, drawn to the overall rate."""
    overall = (agrees.sum() + 0.5) / (len(agrees) + 1.0)
    right = np.bincount(label, weights=agrees, minlength=k) + PRIOR_ROWS * overall
    wrong = np.bincount(label, weights=~agrees, minlength=k) + PRIOR_ROWS * (1.0 - overall)
    return np.asarray(np.log(right / wrong))
