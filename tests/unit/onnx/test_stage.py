"""One stage's graph against its manifest, and against inputs nobody sane sends."""

from __future__ import annotations

import numpy as np
import pytest
from horizons import DIM, VOCABULARY, clusters

from shared.contracts.manifest import Stage
from shared.core.grouping import group_folds
from shared.core.stages import FOLDS, fit_stages
from shared.fitting.graphs import export_cascade, run_graphs
from shared.onnx.parity import ParityError, check_parity
from shared.onnx.session import UNASKED, InvalidStage, Scored, StageSession

Exported = tuple[dict[str, Stage], dict[str, bytes]]


@pytest.fixture(scope="module")
def exported() -> Exported:
    """Both stages of a small cascade, by name."""
    rows = clusters(400, tokens=True)
    cascade = fit_stages(rows, group_folds(rows.groups, rows.y, FOLDS, 0), seed=0, jobs=1).cascade()
    stages, blobs = export_cascade(cascade, rows, "embedding", [0.9, 0.5])
    return {stage.name: stage for stage in stages}, {s.name: blobs[s.blob] for s in stages}


def session(exported: Exported, name: str, **changes: object) -> StageSession:
    stages, blobs = exported
    fields = {f: getattr(stages[name], f) for f in stages[name].__struct_fields__}
    return StageSession(blobs[name], Stage(**(fields | changes)), n_labels=4)


def test_what_a_manifest_says_of_the_stages(exported: Exported) -> None:
    stages, _ = exported
    lexical, semantic = stages["lexical"], stages["semantic"]
    assert (lexical.features, lexical.dim, lexical.scores_of) == ("token_ids", VOCABULARY, ())
    assert (semantic.features, semantic.dim) == ("embedding", DIM)
    assert semantic.scores_of == ("lexical",)
    assert (lexical.threshold, semantic.threshold) == (0.9, 0.5)


@pytest.mark.parametrize(
    "ids",
    [[[]], [[-1, -1]], [[5]], [[0, VOCABULARY - 1] * 300], [[7, 8, 9], [7, -1, -1]]],
    ids=["nothing", "only filling", "one piece", "very long", "filled up"],
)
def test_any_word_pieces_give_finite_answers(exported: Exported, ids: list[list[int]]) -> None:
    said = session(exported, "lexical").run(np.asarray(ids, np.int64).reshape(len(ids), -1))
    for values in said:
        assert np.isfinite(values).all()
    assert ((said.accept >= 0) & (said.accept <= 1)).all()


def test_scores_that_nobody_asks_for_are_left_out(exported: Exported) -> None:
    lexical = session(exported, "lexical")
    ids = np.asarray([[5, 6], [7, -1]], np.int64)
    whole, without = lexical.run(ids), lexical.run(ids, asked=False)
    assert without.scores is UNASKED
    for one, two in zip(whole[:3], without[:3], strict=True):
        np.testing.assert_array_equal(one, two)


def test_filling_up_changes_nothing(exported: Exported) -> None:
    lexical = session(exported, "lexical")
    short = lexical.run(np.asarray([[101, 102, 103]], np.int64))
    filled = lexical.run(np.asarray([[101, 102, 103, -1, -1, -1]], np.int64))
    for one, two in zip(short, filled, strict=True):
        assert np.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e4, -1e4, 1e-30])
def test_extreme_embeddings_give_finite_answers(exported: Exported, value: float) -> None:
    scores = np.zeros((2, 4), np.float32)
    rows = np.full((2, DIM), value, np.float32)
    said = session(exported, "semantic").run(rows, {"lexical": scores})
    assert np.isfinite(said.accept).all()
    assert np.isfinite(said.scores).all()


@pytest.mark.parametrize("name", ["scores", "accept", "novelty"])
def test_parity_takes_nan_for_no_agreement(name: str) -> None:
    same = {
        "scores": np.zeros((2, 3), np.float32),
        "accept": np.full(2, 0.5, np.float32),
        "novelty": np.full(2, 0.5, np.float32),
    }
    label = np.zeros(2, np.int64)
    said = Scored(label, **(same | {name: np.full_like(same[name], np.nan)}))
    fitted = {key: value.astype(np.float64) for key, value in same.items()}
    with pytest.raises(ParityError, match=f"{name}.* differ by nan"):
        check_parity(said, labels=label, lead=np.ones(2), **fitted)


def test_parity_notices_another_model(exported: Exported) -> None:
    rows = clusters(200, tokens=True)
    stages, blobs = exported
    said, _ = run_graphs(
        tuple(stages.values()), {stages[n].blob: blob for n, blob in blobs.items()}, rows
    )
    same = {
        "labels": said.label,
        "lead": np.ones(200),
        "scores": said.scores.astype(np.float64),
        "accept": said.accept.astype(np.float64),
        "novelty": said.novelty.astype(np.float64),
    }
    assert check_parity(said, **same).scores == 0.0
    for name, change, message in (
        ("labels", 1, "labels differ"),
        ("scores", 2e-3, "scores differ"),
        ("accept", 5e-3, "accept scores differ"),
        ("novelty", 5e-3, "novelty scores differ"),
    ):
        with pytest.raises(ParityError, match=message):
            check_parity(said, **(same | {name: same[name] + change}))
    near_tie = same | {"labels": (said.label + 1) % 4, "lead": np.full(200, 1e-6)}
    check_parity(said, **near_tie)


def test_a_graph_that_is_not_its_manifests_is_refused(exported: Exported) -> None:
    with pytest.raises(InvalidStage, match="17"):
        session(exported, "semantic", dim=17)
    with pytest.raises(InvalidStage, match="takes"):
        session(exported, "semantic", scores_of=())
    with pytest.raises(InvalidStage, match="takes"):
        session(exported, "semantic", features="token_ids")
    stages, blobs = exported
    with pytest.raises(InvalidStage, match="3"):
        StageSession(blobs["lexical"], stages["lexical"], n_labels=3)
    with pytest.raises(InvalidStage, match="is refused"):
        StageSession(b"not a graph", stages["lexical"], n_labels=4)
