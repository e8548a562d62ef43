from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from shared.contracts.manifest import Stage, sha256
from shared.core.acceptor import PROBABILITY_FLOOR, fit_acceptor
from shared.onnx.export import export_stage
from shared.onnx.parity import ParityError, check_parity
from shared.onnx.session import InvalidStage, StageSession

DIM = 12


def stage_of(blob: bytes, **changes: object) -> Stage:
    settings = {"name": "semantic", "features": "embedding", "blob": sha256(blob),
                "bytes": len(blob), "dim": DIM, "threshold": 0.5}  # fmt: skip
    return Stage(**(settings | changes))  # type: ignore[arg-type]


def fitted(classes: list[int], seed: int = 0):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(600, DIM)).astype(np.float32)
    y = np.asarray(classes)[(X[:, : len(classes)] + rng.normal(size=(600, len(classes)))).argmax(1)]
    classifier = LogisticRegression(C=10, max_iter=500).fit(X, y)
    p = classifier.predict_proba(X)
    acceptor = fit_acceptor(p, classifier.predict(X) == y)
    blob = export_stage(
        classifier, acceptor.coefficients, acceptor.intercept, dim=DIM, floor=PROBABILITY_FLOOR
    )
    return X, classifier, p, acceptor, blob


@pytest.mark.parametrize("classes", [[0, 1], [1, 3], [0, 1, 2], [0, 2, 5, 7], list(range(10))])
def test_graph_says_what_sklearn_says(classes: list[int]) -> None:
    X, classifier, p, acceptor, blob = fitted(classes)
    session = StageSession(blob, stage_of(blob), n_labels=10)
    parity = check_parity(session, X, classifier.predict(X), p, acceptor.score(p))
    assert parity.rows == 600
    assert parity.probabilities <= 1e-5


def test_equal_models_give_equal_bytes() -> None:
    assert fitted([0, 1, 2])[-1] == fitted([0, 1, 2])[-1]
    assert fitted([0, 1, 2])[-1] != fitted([0, 1, 2], seed=1)[-1]


def test_extreme_inputs_give_finite_scores() -> None:
    *_, blob = fitted([0, 1, 2])
    session = StageSession(blob, stage_of(blob), n_labels=3)
    extreme = np.asarray([[1e4] * DIM, [-1e4] * DIM, [0.0] * DIM], dtype=np.float32)
    scored = session.run(extreme)
    assert np.isfinite(scored.accept).all()
    assert ((scored.accept >= 0) & (scored.accept <= 1)).all()


def test_parity_notices_another_model() -> None:
    X, classifier, p, acceptor, blob = fitted([0, 1, 2])
    session = StageSession(blob, stage_of(blob), n_labels=3)
    with pytest.raises(ParityError, match="labels differ"):
        check_parity(session, X, (classifier.predict(X) + 1) % 3, p, acceptor.score(p))
    with pytest.raises(ParityError, match="probabilities differ"):
        check_parity(session, X, classifier.predict(X), p + 2e-5, acceptor.score(p))
    with pytest.raises(ParityError, match="accept scores differ"):
        check_parity(session, X, classifier.predict(X), p, acceptor.score(p) + 2e-4)


def test_a_graph_that_is_not_its_manifests_is_refused() -> None:
    *_, blob = fitted([0, 1, 2])
    with pytest.raises(InvalidStage, match="float\\[n, 13\\]"):
        StageSession(blob, stage_of(blob, dim=13), n_labels=3)
    with pytest.raises(InvalidStage, match="outside of its labels"):
        StageSession(blob, stage_of(blob), n_labels=0)
    with pytest.raises(InvalidStage, match="cannot be loaded"):
        StageSession(b"not a graph", stage_of(blob), n_labels=3)
