from __future__ import annotations

import numpy as np
import pytest

from shared.core.acceptor import accept_features, fit_acceptor
from shared.core.candidates import ZOO, Candidate, fit_classifier, out_of_fold, predict
from shared.core.fit import Settings, fit
from shared.core.gate import Certified, Refused
from shared.core.grouping import group_folds
from shared.core.types import InvalidData, TrainingSet

FAST = (Candidate("logistic_C3", 3.0), Candidate("logistic_C30", 30.0))


def clusters(n: int, k: int = 4, *, noise: float = 0.35, seed: int = 0) -> TrainingSet:
    """n unit vectors around k random directions, some of them astray."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, 16))
    y = np.arange(n) % k
    X = centres[y] / 4 + rng.normal(size=(n, 16)) * noise
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return TrainingSet(
        features=X.astype(np.float32),
        y=y,
        labels=tuple(f"label-{i}" for i in range(k)),
        groups=np.arange(n),
        evidence=np.ones(n, bool),
    )


@pytest.mark.parametrize("kind", ["crossfit", "holdout"])
def test_a_certified_surrogate_keeps_its_word_on_new_rows(kind: str) -> None:
    training = clusters(2_000)
    fitted = fit(training, Settings(alpha=0.9, kind=kind, zoo=FAST))  # type: ignore[arg-type]
    verdict = fitted.verdict
    assert isinstance(verdict, Certified)
    assert verdict.kind == kind
    assert fitted.surrogate is not None
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 16))  # those of `clusters`
    fresh = np.random.default_rng(9)
    y = fresh.integers(0, 4, 4_000)
    X = centres[y] / 4 + fresh.normal(size=(4_000, 16)) * 0.35
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    labels, scores = fitted.surrogate.predict(X.astype(np.float32))
    handled = scores >= verdict.threshold
    assert handled.mean() == pytest.approx(verdict.coverage, abs=0.05)
    assert (labels == y)[handled].mean() > 0.89


def test_equal_settings_and_data_give_equal_surrogates() -> None:
    training = clusters(600)
    one, two = (fit(training, Settings(alpha=0.8, zoo=FAST, jobs=j)) for j in (1, 2))
    assert one.verdict == two.verdict
    assert one.tried == two.tried
    assert one.surrogate is not None
    assert two.surrogate is not None
    assert (one.surrogate.classifier.coef_ == two.surrogate.classifier.coef_).all()
    assert (one.surrogate.acceptor.coefficients == two.surrogate.acceptor.coefficients).all()


def test_noise_is_refused_with_figures() -> None:
    training = clusters(1_000)
    noise = np.random.default_rng(0).integers(0, 4, 1_000)
    scrambled = TrainingSet(
        training.features, noise, training.labels, training.groups, training.evidence
    )
    fitted = fit(scrambled, Settings(alpha=0.9, zoo=FAST))
    assert isinstance(fitted.verdict, Refused)
    assert "below α = 0.9" in fitted.verdict.reason
    assert fitted.method is None


def test_a_teacher_that_contradicts_itself_is_named() -> None:
    training = clusters(800)
    noise = np.random.default_rng(0).integers(0, 4, 800)
    twins = TrainingSet(
        training.features, noise, training.labels, np.arange(800) // 4, training.evidence
    )
    fitted = fit(twins, Settings(alpha=0.9, zoo=FAST))
    assert isinstance(fitted.verdict, Refused)
    assert "contradicts itself" in fitted.verdict.reason


def test_only_evidence_rows_certify() -> None:
    training = clusters(1_000)
    half = TrainingSet(
        training.features, training.y, training.labels, training.groups, np.arange(1_000) < 400
    )
    fitted = fit(half, Settings(alpha=0.8, zoo=FAST))
    assert fitted.verdict.n_evidence == 400


@pytest.mark.parametrize(
    ("n", "k", "said"), [(10, 2, "too few to fit"), (100, 1, "one label only")]
)
def test_too_little_to_fit_is_refused(n: int, k: int, said: str) -> None:
    fitted = fit(clusters(n, k), Settings(zoo=FAST))
    assert isinstance(fitted.verdict, Refused)
    assert said in fitted.verdict.reason
    assert fitted.surrogate is None


def test_one_text_over_and_over_is_refused() -> None:
    training = clusters(200)
    copies = TrainingSet(
        training.features, training.y, training.labels, np.zeros(200, int), training.evidence
    )
    verdict = fit(copies, Settings(zoo=FAST)).verdict
    assert isinstance(verdict, Refused)
    assert "near-duplicate" in verdict.reason


def test_rows_that_are_not_finite_are_named() -> None:
    training = clusters(100)
    X = training.features.copy()
    X[7, 3] = np.nan
    with pytest.raises(InvalidData, match="1 rows that are not finite, first 7"):
        TrainingSet(X, training.y, training.labels, training.groups, training.evidence)


@pytest.mark.parametrize("candidate", ZOO, ids=lambda c: c.name)
class TestCandidateLaws:
    """Every estimator of the zoo keeps these."""

    def test_probabilities_are_finite_and_sum_to_one(self, candidate: Candidate) -> None:
        training = clusters(300)
        classifier = fit_classifier(candidate, training.features, training.y, 0)
        p = predict(classifier, training.features, 4)
        assert np.isfinite(p).all()
        assert np.allclose(p.sum(axis=1), 1.0)

    def test_a_label_missing_in_training_has_probability_zero(self, candidate: Candidate) -> None:
        training = clusters(300)
        seen = training.y != 2
        classifier = fit_classifier(candidate, training.features[seen], training.y[seen], 0)
        p = predict(classifier, training.features, 4)
        assert (p[:, 2] == 0).all()
        assert np.allclose(p.sum(axis=1), 1.0)

    def test_repeatable(self, candidate: Candidate) -> None:
        training = clusters(300)
        one, two = (
            fit_classifier(candidate, training.features, training.y, 5).coef_ for _ in range(2)
        )
        assert (one == two).all()

    def test_out_of_fold_means_out_of_fold(self, candidate: Candidate) -> None:
        """Changing a fold's labels does not change its own predictions."""
        training = clusters(300)
        folds = group_folds(training.groups, training.y, 3, 0)
        changed = training.y.copy()
        changed[folds == 1] = (changed[folds == 1] + 1) % 4
        one, two = (
            out_of_fold(
                [candidate], training.features, y, 4, folds, only_folds=[1], seed=0, jobs=1
            )[0][1]
            for y in (training.y, changed)
        )
        assert (one == two).all()


def test_acceptor_learns_that_sure_answers_agree() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.3] * 5, size=2_000)
    agrees = rng.uniform(size=2_000) < p.max(axis=1)
    acceptor = fit_acceptor(p, agrees)
    scores = acceptor.score(p)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert agrees[scores > 0.9].mean() > agrees[scores < 0.5].mean() + 0.3


def test_acceptor_without_disagreement_ranks_by_margin() -> None:
    p = np.asarray([[0.9, 0.1], [0.6, 0.4], [1.0, 0.0]])
    scores = fit_acceptor(p, np.ones(3, bool)).score(p)
    assert list(np.argsort(scores)) == [1, 0, 2]


def test_accept_features_of_a_sure_answer_are_finite() -> None:
    assert np.isfinite(accept_features(np.asarray([[1.0, 0.0, 0.0]]))).all()
