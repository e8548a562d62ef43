"""Candidate surrogates: a small zoo of scikit-learn classifiers, compared out of fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from shared.core.types import Floats, Ints, Mask, Matrix


@dataclass(frozen=True)
class Candidate:
    """A classifier to try: logistic regression with the inverse regularisation `C`.

    On sentence embeddings nothing in scikit-learn that converts to ONNX faithfully does better
    for its cost (docs/decisions.md has the figures).
    """

    name: str
    C: float

    def build(self, seed: int) -> LogisticRegression:
        return LogisticRegression(C=self.C, max_iter=1000, tol=1e-4, random_state=seed)


ZOO: tuple[Candidate, ...] = (
    Candidate("logistic_C3", 3.0),
    Candidate("logistic_C10", 10.0),
    Candidate("logistic_C30", 30.0),
)


def fit_classifier(candidate: Candidate, features: Matrix, y: Ints, seed: int) -> Any:
    """A fitted classifier, its classes indices into the task's labels.

    One BLAS thread: two are slower on these shapes, and sums would depend on their number.
    """
    with threadpool_limits(limits=1):
        return candidate.build(seed).fit(features, y)


def predict(classifier: Any, features: Matrix, n_labels: int) -> Floats:
    """float64[n, n_labels] class probabilities; a label the classifier never saw has 0."""
    probabilities = np.zeros((len(features), n_labels))
    with threadpool_limits(limits=1):
        probabilities[:, classifier.classes_] = classifier.predict_proba(features)
    return probabilities


def out_of_fold(
    candidates: Sequence[Candidate],
    features: Matrix,
    y: Ints,
    n_labels: int,
    folds: Ints,
    *,
    only_folds: Sequence[int],
    seed: int,
    jobs: int,
) -> list[tuple[Mask, Floats]]:
    """For each candidate: bool[n], rows of `only_folds`, and their float64[m, n_labels].

    Every row is predicted by a classifier that saw no row of its fold. Fits run in parallel
    through joblib, so any of its backends can carry them.
    """
    tasks = [(candidate, fold) for candidate in candidates for fold in only_folds]
    fitted: list[Floats] = Parallel(n_jobs=jobs)(
        delayed(_one_fold)(candidate, features, y, n_labels, folds == fold, seed)
        for candidate, fold in tasks
    )
    results = []
    rows = np.isin(folds, list(only_folds))
    for i in range(len(candidates)):
        probabilities = np.zeros((len(y), n_labels))
        for j, fold in enumerate(only_folds):
            probabilities[folds == fold] = fitted[i * len(only_folds) + j]
        results.append((rows, probabilities[rows]))
    return results


def _one_fold(
    candidate: Candidate, features: Matrix, y: Ints, n_labels: int, held_out: Mask, seed: int
) -> Floats:
    classifier = fit_classifier(candidate, features[~held_out], y[~held_out], seed)
    return predict(classifier, features[held_out], n_labels)
