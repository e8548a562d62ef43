"""The served cascade answers as the gate was told it would."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from horizons import clusters

from shared.core.fit import Fit, Settings, fit
from shared.core.label_floor import drop_labels
from shared.core.policies import answers, evidence_of
from shared.core.training import TrainingSet
from shared.fitting.graphs import export_cascade, serve_as_onnx, unpublished
from shared.onnx import cascade
from shared.onnx.cascade import Answers, CascadeSession
from shared.onnx.session import InvalidStage


@pytest.fixture(scope="module")
def fitted() -> Fit:
    return fit(clusters(1_000, tokens=True), Settings(alpha=0.9), serve_as_onnx)


def served(
    fitted: Fit, rows: TrainingSet, dropped: tuple[str, ...] = ()
) -> tuple[Answers, list[int]]:
    """What the cascade answers, and the rows it asked embeddings for."""
    assert fitted.cascade is not None
    assert rows.tokens is not None
    stages, blobs = export_cascade(fitted.cascade, rows, "embedding", fitted.thresholds)
    session = CascadeSession(unpublished(stages, rows.labels, dropped), blobs)
    asked: list[int] = []

    def features(left: np.ndarray) -> np.ndarray:
        asked.extend(left.tolist())
        return rows.features[left]

    return session.answer(len(rows), rows.tokens.rows(), features), asked


@pytest.mark.parametrize("dropped", [(), (1,), (0, 3)])
def test_each_row_is_answered_by_the_stage_the_gate_counted(
    fitted: Fit, dropped: tuple[int, ...]
) -> None:
    rows = clusters(700, seed=4, tokens=True)
    said, _ = served(fitted, rows, tuple(rows.labels[i] for i in dropped))
    assert fitted.cascade is not None
    outputs = drop_labels(serve_as_onnx(fitted.cascade, rows), dropped)
    evidence = evidence_of(outputs, rows, "holdout", fitted.thresholds)
    expected = answers(evidence, 0.0)
    assert (said.stage == expected).all()
    handled = np.flatnonzero(expected >= 0)
    assert 0 < len(handled) < 700
    assert (said.label[handled] == outputs.label[handled, expected[handled]]).all()
    assert not np.isin(said.label[handled], dropped).any()


def test_only_what_the_lexical_stage_leaves_over_is_embedded(fitted: Fit) -> None:
    said, asked = served(fitted, clusters(700, seed=4, tokens=True))
    assert sorted(asked) == np.flatnonzero(said.stage != 0).tolist()
    assert len(asked) < 700


def test_every_deferral_has_its_reason(fitted: Fit) -> None:
    rows = clusters(700, seed=4, tokens=True)
    said, _ = served(fitted, rows, (rows.labels[2],))
    deferred = said.stage < 0
    below = said.accept < said.threshold
    assert (said.novel | said.dropped | below)[deferred].all()
    assert (said.dropped & deferred).any()


def test_an_embedding_that_is_not_finite_is_never_answered(fitted: Fit) -> None:
    rows = clusters(60, seed=4, tokens=True)
    rows.features[:] = np.nan
    said, asked = served(fitted, rows)
    assert asked
    assert (said.stage[asked] == -1).all()


def test_rows_run_in_parts_say_what_they_say_at_once(
    fitted: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fitted.cascade is not None
    rows = clusters(300, seed=5, tokens=True)
    assert rows.tokens is not None
    stages, blobs = export_cascade(fitted.cascade, rows, "embedding", fitted.thresholds)
    session = CascadeSession(unpublished(stages, rows.labels), blobs)
    at_once = session.every_stage(rows.tokens.rows(), rows.features)
    monkeypatch.setattr(cascade, "BATCH_ROWS", 7)
    in_parts = session.every_stage(rows.tokens.rows(), rows.features)
    for one, other in zip(at_once, in_parts, strict=True):
        assert (one.label == other.label).all()
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
        np.testing.assert_allclose(one.accept, other.accept, atol=1e-6)
        np.testing.assert_allclose(one.novelty, other.novelty, atol=1e-6)


def test_threads_change_nothing_to_the_last_bit(
    fitted: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascade, "BATCH_TOKENS", 256)  # many parts of the lexical stage too
    assert fitted.cascade is not None
    rows = clusters(300, seed=5, tokens=True)
    assert rows.tokens is not None
    stages, blobs = export_cascade(fitted.cascade, rows, "embedding", fitted.thresholds)
    manifest = unpublished(stages, rows.labels)
    tokens = rows.tokens.rows()
    one, three = (CascadeSession(manifest, blobs, threads=threads) for threads in (1, 3))
    said = three.answer(len(rows), tokens, lambda left: rows.features[left])
    for a, b in zip(
        one.answer(len(rows), tokens, lambda left: rows.features[left]), said, strict=True
    ):
        np.testing.assert_array_equal(a, b)
    for alone, shared in zip(
        one.every_stage(tokens, rows.features),
        three.every_stage(tokens, rows.features),
        strict=True,
    ):
        for a, b in zip(alone, shared, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_manifest_of_endless_stages_is_refused(fitted: Fit) -> None:
    """One blob may be named by many stages, each of which would have a session of its own."""
    assert fitted.cascade is not None
    rows = clusters(60, seed=4, tokens=True)
    stages, blobs = export_cascade(fitted.cascade, rows, "embedding", fitted.thresholds)
    many = tuple(
        msgspec.structs.replace(stages[0], name=f"stage{i}")
        for i in range(cascade.MAX_STAGES + 1)
    )  # fmt: skip
    with pytest.raises(InvalidStage, match="17 stages, more than 16"):
        CascadeSession(unpublished(many, rows.labels), blobs)
