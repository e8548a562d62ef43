"""Every scorer of the zoo keeps these laws."""

from __future__ import annotations

import numpy as np
import pytest
from horizons import clusters
from scipy.special import softmax

from shared.core.candidates import LEXICAL_ZOO, SEMANTIC_ZOO, Candidate, cross_fit, fit_one
from shared.core.cascade import Cascade, StageModel
from shared.core.fit import Settings, fit
from shared.core.gate import Refused
from shared.core.grouping import group_folds
from shared.core.head import fit_head, fit_mixture
from shared.core.novelty import fit_novelty
from shared.core.training import TrainingSet
from shared.core.types import InvalidData
from shared.fitting.graphs import export_cascade, parity_of

pytestmark = pytest.mark.parametrize(
    "candidate", [*LEXICAL_ZOO, *SEMANTIC_ZOO], ids=lambda c: c.name
)


def cascade_of(candidate: Candidate, rows: TrainingSet) -> Cascade:
    scorer = fit_one(candidate, rows, 0)
    scores = [scorer.scores(rows)]
    mixture = fit_mixture(scores, rows.y)
    novelty = fit_novelty(None, scores, mixture, cut=0.7)
    head = fit_head(scores, rows.y, np.arange(len(rows)) % 3, mixture, novelty)
    return Cascade((StageModel("only", scorer, head, 0.7),), rows.n_labels)


def test_scores_are_finite_and_probabilities_sum_to_one(candidate: Candidate) -> None:
    rows = clusters(300, tokens=True)
    scores = fit_one(candidate, rows, 0).scores(rows)
    assert scores.shape == (300, 4)
    assert np.isfinite(scores).all()
    assert np.allclose(softmax(scores, axis=1).sum(axis=1), 1.0)
    assert (scores.argmax(axis=1) == rows.y).mean() > 0.6


def test_a_label_missing_in_training_is_never_the_best(candidate: Candidate) -> None:
    rows = clusters(300, tokens=True)
    scores = fit_one(candidate, rows.take(rows.y != 2), 0).scores(rows)
    assert scores.shape == (300, 4)
    assert np.isfinite(scores).all()
    assert (scores.argmax(axis=1) != 2).mean() > 0.95


def test_repeatable(candidate: Candidate) -> None:
    rows = clusters(300, tokens=True)
    one, two = (fit_one(candidate, rows, 5).scores(rows) for _ in range(2))
    assert (one == two).all()


def test_out_of_fold_means_out_of_fold(candidate: Candidate) -> None:
    """Changing a fold's labels does not change what is said of that fold."""
    rows = clusters(300, tokens=True)
    folds = group_folds(rows.groups, rows.y, 3, 0)
    changed = rows.y.copy()
    changed[folds == 1] = (changed[folds == 1] + 1) % 4
    other = TrainingSet(
        rows.features, changed, rows.labels, rows.groups, rows.evidence, tokens=rows.tokens
    )
    one, two = (
        cross_fit(candidate, r, folds, seed=0, jobs=1, only=[1]).scores[folds == 1]
        for r in (rows, other)
    )
    assert (one == two).all()


@pytest.mark.parametrize("n", [2, 5, 12])
def test_tiny_windows(candidate: Candidate, n: int) -> None:
    rows = clusters(n, 2, tokens=True)
    scores = fit_one(candidate, rows, 0).scores(clusters(50, 2, tokens=True))
    assert scores.shape == (50, 2)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("k", [2, 4])
def test_the_graph_says_the_same(candidate: Candidate, k: int) -> None:
    rows = clusters(400, k, tokens=True)
    cascade = cascade_of(candidate, rows)
    stages, blobs = export_cascade(cascade, rows, "embedding", [0.5])
    (parity,) = parity_of(cascade, stages, blobs, rows)
    assert parity.rows == 400
    assert max(parity.scores, parity.accept, parity.novelty) < 1e-3
    again, _ = export_cascade(cascade, rows, "embedding", [0.5])
    assert again == stages  # the same bytes


def test_the_graph_of_a_fold_that_missed_a_label_says_the_same(candidate: Candidate) -> None:
    rows = clusters(400, tokens=True)
    cascade = cascade_of(candidate, rows.take(rows.y != 1))
    stages, blobs = export_cascade(cascade, rows, "embedding", [0.5])
    parity_of(cascade, stages, blobs, rows)


def test_one_label_only_is_refused_before_any_fit(candidate: Candidate) -> None:
    verdict = fit(clusters(100, 1, tokens=True), Settings()).verdict
    assert isinstance(verdict, Refused)
    assert "one label only" in verdict.reason


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_never_reaches_it(candidate: Candidate, value: float) -> None:
    rows = clusters(50)
    features = rows.features.copy()
    features[7, 3] = value
    with pytest.raises(InvalidData, match="1 rows that are not finite, first 7"):
        TrainingSet(features, rows.y, rows.labels, rows.groups, rows.evidence)
