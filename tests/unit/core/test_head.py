from __future__ import annotations

import numpy as np
import pytest
from horizons import clusters

from shared.core.candidates import SEMANTIC_ZOO
from shared.core.grouping import group_folds
from shared.core.head import (
    Linear,
    accept_features,
    fit_head,
    fit_linear,
    fit_mixture,
    mix,
    novelty_features,
)
from shared.core.novelty import EXPECTED_SHARE, PretendedNovelty, fit_novelty, pretend

NO_NOVELTY = Linear(np.zeros(5), -10.0)


def scores_of(n: int, k: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and scores of a scorer that is right the more often the stronger it is."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    return y, rng.normal(size=(n, k)) + strength * np.eye(k)[y]


def test_the_better_scorer_weighs_more() -> None:
    y, strong = scores_of(3_000, 5, 4.0, 0)
    weak = np.random.default_rng(1).normal(size=(3_000, 5)) + 0.5 * np.eye(5)[y]
    weights = fit_mixture([weak, strong], y)
    assert weights[1] > 3 * weights[0] > 0
    alone = mix(fit_mixture([strong], y), [strong])
    together = mix(weights, [weak, strong])
    rows = np.arange(len(y))
    assert together[rows, y].mean() > alone[rows, y].mean()


def test_the_mixture_does_not_depend_on_a_scorers_scale() -> None:
    y, scores = scores_of(2_000, 4, 2.0, 0)
    one, two = fit_mixture([scores], y), fit_mixture([scores * 100], y)
    assert one[0] == pytest.approx(100 * two[0], rel=0.05)


def test_accept_scores_say_how_often_answers_agree() -> None:
    y, scores = scores_of(20_000, 5, 2.0, 0)
    folds = np.arange(len(y)) % 5
    head = fit_head([scores], y, folds, fit_mixture([scores], y), NO_NOVELTY)
    fresh_y, fresh = scores_of(20_000, 5, 2.0, 1)
    said = head([fresh])
    agrees = said.label == fresh_y
    for low in (0.3, 0.5, 0.7, 0.9):
        inside = (said.accept >= low) & (said.accept < low + 0.1)
        assert agrees[inside].mean() == pytest.approx(said.accept[inside].mean(), abs=0.04)


def test_a_label_with_a_bad_record_is_trusted_less() -> None:
    y, scores = scores_of(5_000, 4, 3.0, 0)
    rng = np.random.default_rng(2)
    y = np.where((y == 3) & (rng.uniform(size=len(y)) < 0.4), 0, y)
    head = fit_head([scores], y, np.arange(len(y)) % 5, fit_mixture([scores], y), NO_NOVELTY)
    assert head.reliability.argmin() == 3
    said = head([np.eye(4) * 4.0])
    assert said.accept.argmin() == 3


def test_features_of_a_very_sure_answer_are_finite() -> None:
    scores = np.asarray([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])
    mixed = mix(np.ones(1), [scores])
    assert np.isfinite(accept_features(mixed, [scores])).all()
    assert np.isfinite(novelty_features(mixed, [scores])).all()


@pytest.mark.parametrize(("rate", "said"), [(1.0, 0.99), (0.0, 0.01)])
def test_where_all_agree_or_none_does_the_base_rate_is_said(rate: float, said: float) -> None:
    linear = fit_linear(np.random.default_rng(0).normal(size=(200, 3)), np.full(200, rate > 0.5))
    assert linear(np.zeros((1, 3)))[0] == pytest.approx(said, abs=0.01)


def test_inputs_of_no_label_are_told_from_the_tasks_own() -> None:
    """Nobody showed it a single novel input: leaving labels out is enough."""
    rows = clusters(2_400, 12, noise=0.1)
    folds = group_folds(rows.groups, rows.y, 5, 0)
    candidate = SEMANTIC_ZOO[1]
    pretended = pretend([candidate], rows, folds, seed=0, jobs=1)
    assert pretended is not None
    scorer = candidate.fit(rows, 0)
    scores = [scorer.scores(rows)]
    mixture = fit_mixture(scores, rows.y)
    novelty = fit_novelty(pretended, scores, mixture, cut=0.7)

    def said(features: np.ndarray) -> np.ndarray:
        strangers = clusters(len(features), 12)
        theirs = [scorer.scores(type(rows)(
            features.astype(np.float32), strangers.y, rows.labels, strangers.groups,
            strangers.evidence,
        ))]  # fmt: skip
        return novelty(novelty_features(mix(mixture, theirs), theirs))

    own = said(clusters(600, 12, noise=0.1, seed=5).features)
    elsewhere = np.random.default_rng(7).normal(size=(600, rows.features.shape[1]))
    elsewhere /= np.linalg.norm(elsewhere, axis=1, keepdims=True)
    assert (own > 0.7).mean() < 0.05
    assert (said(elsewhere) > 0.7).mean() > 0.5
    assert said(np.zeros((1, rows.features.shape[1])))[0] > 0.7  # a vector of nothing


def test_too_few_labels_to_leave_any_out() -> None:
    rows = clusters(300, 3)
    folds = group_folds(rows.groups, rows.y, 5, 0)
    assert pretend([SEMANTIC_ZOO[0]], rows, folds, seed=0, jobs=1) is None
    y, scores = scores_of(5_000, 3, 2.0, 0)
    mixture = fit_mixture([scores], y)
    novelty = fit_novelty(None, [scores], mixture, cut=0.7)
    features = novelty_features(mix(mixture, [scores]), [scores])
    assert 0 < (novelty(features) >= 0.7).mean() <= 0.003


def test_the_novelty_is_a_probability_at_the_expected_share() -> None:
    """A detector that knows nothing says the share of novel traffic one should expect."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4_000, 6))
    nothing = PretendedNovelty((scores,), rng.uniform(size=4_000) < 0.4, np.arange(4_000) % 3)
    novelty = fit_novelty(nothing, [scores], np.ones(1), cut=0.7)
    features = novelty_features(mix(np.ones(1), [scores]), [scores])
    assert novelty(features).mean() == pytest.approx(EXPECTED_SHARE, abs=0.02)
