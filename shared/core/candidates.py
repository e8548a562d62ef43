"""Candidate scorers: a small zoo of classifiers, compared out of fold.

A scorer gives every label a score; what the scores mean for agreement is the head's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from shared.core.landmark_ridge import LandmarkRidge
from shared.core.lexical import fit_lexical
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask, Matrix, Scores

# A logistic regression's score of a label it never saw.
UNSEEN_LOGIT = -20.0


class Scorer(Protocol):
    """A fitted model: float[n, k] scores, one per label of the task."""

    def scores(self, rows: TrainingSet) -> Scores: ...


@dataclass(frozen=True)
class LexicalStageScorer:
    """The lexical scorer on a training set's word pieces."""

    model: Any

    def scores(self, rows: TrainingSet) -> Matrix:
        return np.asarray(self.model.scores(rows.tokens), dtype=np.float32)


@dataclass(frozen=True)
class FeatureScorer:
    """A scikit-learn classifier on a training set's features."""

    estimator: Any
    n_labels: int

    @property
    def unseen(self) -> float:
        """The score of a label the estimator never saw."""
        return 0.0 if isinstance(self.estimator, LandmarkRidge) else UNSEEN_LOGIT

    def scores(self, rows: TrainingSet) -> Floats:
        decided = self.estimator.decision_function(rows.features)
        if decided.ndim == 1:  # two labels
            decided = np.stack([-decided, decided], axis=1)
        scores = np.full((len(rows), self.n_labels), self.unseen)
        scores[:, self.estimator.classes_] = decided
        return scores


@dataclass(frozen=True)
class Candidate:
    """A scorer to try. `fit` takes a training set of two labels or more and a seed."""

    name: str
    fit: Callable[[TrainingSet, int], Scorer]


def logistic(C: float) -> Candidate:
    """Logistic regression with the inverse regularisation `C`."""

    def fit(rows: TrainingSet, seed: int) -> Scorer:
        model = LogisticRegression(C=C, max_iter=1000, tol=1e-3, random_state=seed)
        return FeatureScorer(model.fit(rows.features, rows.y), rows.n_labels)

    return Candidate(f"logistic_C{C:g}", fit)


def landmark_ridge(ridge: float) -> Candidate:
    """Kernel ridge classification with the penalty `ridge`."""

    def fit(rows: TrainingSet, seed: int) -> Scorer:
        model = LandmarkRidge(ridge=ridge, seed=seed)
        return FeatureScorer(model.fit(rows.features, rows.y), rows.n_labels)

    return Candidate(f"landmark_ridge_{ridge:g}", fit)


def lexical(C: float) -> Candidate:
    """A linear support vector machine on word pieces with the inverse regularisation `C`; what
    words mean it learns from the features."""

    def fit(rows: TrainingSet, seed: int) -> Scorer:
        if rows.tokens is None:
            raise ValueError("the lexical scorer needs word pieces")
        model = fit_lexical(rows.tokens, rows.features, rows.y, rows.n_labels, C=C, seed=seed)
        return LexicalStageScorer(model)

    return Candidate(f"lexical_C{C:g}", fit)


# Measured in docs/decisions.md; others do no better for their cost or do not survive the export.
SEMANTIC_ZOO: tuple[Candidate, ...] = (logistic(10.0), landmark_ridge(0.05))
LEXICAL_ZOO: tuple[Candidate, ...] = (lexical(1.0),)


def fit_one(candidate: Candidate, rows: TrainingSet, seed: int) -> Scorer:
    """On the rows whose label can be learned. One BLAS thread: two are slower on these shapes, and
    sums would depend on their number."""
    if not rows.learnable.all():
        rows = rows.take(rows.learnable)
    with threadpool_limits(limits=1):
        return candidate.fit(rows, seed)


@dataclass(frozen=True)
class FoldModels:
    """One scorer a fold, fitted on the rows outside of it, and what each says of its own rows.

    scorers: by fold. scores: float32[n, k], as precise as the graphs that will be served.
    """

    scorers: dict[int, Scorer]
    scores: Matrix


def cross_fit(
    candidate: Candidate,
    rows: TrainingSet,
    folds: Ints,
    *,
    seed: int,
    jobs: int,
    only: Sequence[int],
    trained_on: Mask | None = None,
) -> FoldModels:
    """Fit on the rows outside of each fold of `only` (and in `trained_on`, if given), score the
    rows inside.

    Rows of other folds keep score 0. Fits run in parallel through joblib, so any of its backends
    can carry them.
    """
    usable = np.ones(len(rows), dtype=np.bool_) if trained_on is None else trained_on
    fitted = Parallel(n_jobs=jobs)(
        delayed(_fit_and_score)(
            candidate, rows.take((folds != fold) & usable), rows.take(folds == fold), seed
        )
        for fold in only
    )
    scores = np.zeros((len(rows), rows.n_labels), dtype=np.float32)
    for fold, (_, said) in zip(only, fitted, strict=True):
        scores[folds == fold] = said
    return FoldModels({fold: s for fold, (s, _) in zip(only, fitted, strict=True)}, scores)


def _fit_and_score(
    candidate: Candidate, rows: TrainingSet, others: TrainingSet, seed: int
) -> tuple[Scorer, Matrix]:
    scorer = fit_one(candidate, rows, seed)
    with threadpool_limits(limits=1):
        return scorer, scorer.scores(others).astype(np.float32)
