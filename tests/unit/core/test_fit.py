from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from horizons import clusters

from shared.core.causes import with_causes
from shared.core.families import Family, choose
from shared.core.fit import (
    FRONTIER_ALPHAS,
    Fit,
    Settings,
    decide,
    fit,
    held_out_rows,
    prepare,
)
from shared.core.gate import Certified, Refused, frontier
from shared.core.policies import Evidence, answers, evidence_of
from shared.core.training import TrainingSet
from shared.core.types import InvalidData
from shared.fitting.graphs import serve_as_onnx


def on(fitted: Fit, rows: TrainingSet) -> tuple[float, float]:
    """Coverage and agreement of a fit on fresh rows."""
    assert fitted.cascade is not None
    outputs = fitted.cascade.outputs(rows)
    evidence = evidence_of(outputs, rows, "holdout", fitted.thresholds)
    stage = answers(evidence, 0.0)
    handled = np.flatnonzero(stage >= 0)
    return len(handled) / len(rows), float(evidence.agrees[handled, stage[handled]].mean())


@pytest.mark.parametrize("kind", ["crossfit", "holdout"])
@pytest.mark.parametrize("tokens", [False, True], ids=["embeddings only", "with word pieces"])
def test_a_certified_surrogate_keeps_its_word_on_new_rows(kind: str, tokens: bool) -> None:
    settings = Settings(alpha=0.9, kind=kind)  # type: ignore[arg-type]
    fitted = fit(clusters(2_000, tokens=tokens), settings)
    verdict = fitted.verdict
    assert isinstance(verdict, Certified)
    assert verdict.kind == kind
    coverage, agreement = on(fitted, clusters(4_000, seed=9, tokens=tokens))
    assert coverage == pytest.approx(verdict.coverage, abs=0.05)
    assert agreement > 0.89


def test_the_manifest_can_say_what_was_tried() -> None:
    fitted = fit(clusters(1_000, tokens=True), Settings(alpha=0.9))
    assert {(t.stage, t.chosen) for t in fitted.tried} >= {("lexical", True), ("semantic", True)}
    assert fitted.family in fitted.families
    assert {f.name for f in fitted.families} >= {"l2d", "lexical"}
    assert fitted.cascade is not None
    assert len(fitted.thresholds) == len(fitted.cascade.stages) == len(fitted.family.floors)  # type: ignore[union-attr]
    assert [p.alpha for p in fitted.frontier] == list(FRONTIER_ALPHAS)


def test_coverage_never_grows_along_the_frontier() -> None:
    fitted = fit(clusters(1_000, tokens=True), Settings(alpha=0.9))
    coverages = [p.coverage if isinstance(p, Certified) else 0.0 for p in fitted.frontier]
    assert coverages == sorted(coverages, reverse=True)
    assert coverages[0] > coverages[-1]


def test_equal_settings_and_data_give_equal_surrogates() -> None:
    rows = clusters(600, tokens=True)
    one, two = (fit(rows, Settings(alpha=0.8, jobs=jobs)) for jobs in (1, 2))
    assert one.verdict == two.verdict
    assert one.tried == two.tried
    assert one.thresholds == two.thresholds
    assert one.cascade is not None
    assert two.cascade is not None
    fresh = clusters(500, seed=3, tokens=True)
    assert (one.cascade.outputs(fresh).accept == two.cascade.outputs(fresh).accept).all()


def test_what_is_certified_is_what_the_graphs_say() -> None:
    """Served by ONNX or by numpy, the verdict is the same to within a few rows."""
    rows = clusters(800, tokens=True)
    numpy, onnx = fit(rows, Settings(alpha=0.9)), fit(rows, Settings(alpha=0.9), serve_as_onnx)
    assert isinstance(numpy.verdict, Certified)
    assert isinstance(onnx.verdict, Certified)
    assert onnx.verdict.coverage == pytest.approx(numpy.verdict.coverage, abs=0.005)


def test_the_gate_sees_the_served_outputs_and_nothing_else() -> None:
    """A graph that answers nonsense is refused, however good the fit behind it."""

    def nonsense(cascade, some):  # type: ignore[no-untyped-def]
        said = cascade.outputs(some)
        return replace(said, label=(said.label + 1) % cascade.n_labels)

    assert isinstance(fit(clusters(800), Settings(alpha=0.9), nonsense).verdict, Refused)


def test_a_residual_stage_is_built_and_compared() -> None:
    fitted = fit(clusters(3_000, 6, noise=0.45), Settings(alpha=0.9))
    assert "rsb" in {family.name for family in fitted.families}


def test_a_residual_stage_is_chosen_only_where_it_earns_coverage() -> None:
    l2d, lexical = Family("l2d", (2.0, 0.0), 0.80), Family("lexical", (0.9, 0.0), 0.799)
    assert choose([l2d, lexical]) == lexical  # cheaper, and as good
    assert choose([l2d, Family("lexical", (0.9, 0.0), 0.7)]) == l2d
    little, much = (Family("rsb", (0.9, 0.0, 0.0), c) for c in (0.802, 0.82))
    assert choose([l2d, lexical, little]) == lexical
    assert choose([l2d, lexical, much]) == much


@pytest.mark.parametrize(
    ("best", "good_enough", "too_little"),
    [(0.60, 0.5925, 0.591), (0.95, 0.9492, 0.948)],
    ids=["a fiftieth more is deferred", "a step of the walk"],
)
def test_what_the_lexical_stage_may_cost(
    best: float, good_enough: float, too_little: float
) -> None:
    l2d = Family("l2d", (2.0, 0.0), best)
    cheaper, too_cheap = (Family("lexical", (0.9, 0.0), c) for c in (good_enough, too_little))
    assert choose([l2d, cheaper]) == cheaper
    assert choose([l2d, too_cheap]) == l2d


def test_prepared_once_decided_many_times() -> None:
    rows = clusters(1_000, tokens=True)
    prepared = prepare(rows, Settings())
    assert not isinstance(prepared, Refused)
    for alpha in (0.8, 0.9):
        assert (
            decide(prepared, Settings(alpha=alpha)).verdict
            == fit(rows, Settings(alpha=alpha)).verdict
        )


def scrambled(groups: np.ndarray) -> TrainingSet:
    rows = clusters(len(groups))
    noise = np.random.default_rng(0).integers(0, 4, len(groups))
    return TrainingSet(rows.features, noise, rows.labels, groups, rows.evidence)


def test_labels_that_do_not_follow_the_input_are_refused_with_figures() -> None:
    fitted = fit(scrambled(np.arange(1_000)), Settings(alpha=0.9))
    assert isinstance(fitted.verdict, Refused)
    assert "below α = 0.9" in fitted.verdict.reason
    assert fitted.method is None
    assert fitted.thresholds == ()


def test_a_teacher_that_contradicts_itself_is_named() -> None:
    fitted = fit(scrambled(np.arange(800) // 4), Settings(alpha=0.9))
    assert isinstance(fitted.verdict, Refused)
    assert "contradicts itself" in fitted.verdict.reason


def test_a_noisy_teacher_is_named() -> None:
    rows = clusters(2_000, noise=0.1)
    rng = np.random.default_rng(0)
    y = np.where(rng.uniform(size=2_000) < 0.12, rng.integers(0, 4, 2_000), rows.y)
    noisy = TrainingSet(rows.features, y, rows.labels, rows.groups, rows.evidence)
    verdict = fit(noisy, Settings(alpha=0.97)).verdict
    assert isinstance(verdict, Refused)
    assert "look like noise" in verdict.reason


def test_labels_the_embedding_does_not_separate_are_named() -> None:
    verdict = fit(clusters(2_000, noise=1.5), Settings(alpha=0.97)).verdict
    assert isinstance(verdict, Refused)
    assert "does not separate" in verdict.reason


def test_labels_that_are_not_separated_are_named_although_every_trace_looks_new() -> None:
    rows = clusters(500)
    nothing_handled = Evidence(
        np.full(500, -1.0), np.arange(500) % 10 == 0, rows.groups, np.ones(500), "crossfit"
    )
    (refused,) = frontier(nothing_handled, (0.9,), 0.1)
    assert isinstance(refused, Refused)
    reason = with_causes(refused, rows, nothing_handled).reason
    assert "looks unlike the others" in reason
    assert "does not separate the labels (agreement on everything 0.10)" in reason


def test_labels_below_their_floor_are_deferred_whole() -> None:
    rows = clusters(3_000, 6, noise=0.25)
    rng = np.random.default_rng(0)
    muddled = (rows.y == 5) & (rng.uniform(size=3_000) < 0.3)
    y = np.where(muddled, 4, rows.y)
    training = TrainingSet(rows.features, y, rows.labels, rows.groups, rows.evidence)
    free = fit(training, Settings(alpha=0.85))
    held = fit(training, Settings(alpha=0.85, label_floor=0.84))
    assert free.dropped == ()
    assert isinstance(held.verdict, Certified)
    assert held.dropped
    assert set(held.dropped) <= {4, 5}
    assert held.verdict.agreement > free.verdict.agreement  # type: ignore[union-attr]


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_of_a_hold_out_something_is_left_on_either_side(share: float) -> None:
    held = held_out_rows(clusters(1_000), Settings(kind="holdout", holdout_share=share))
    assert 0 < held.sum() < 1_000


def test_only_evidence_rows_certify() -> None:
    rows = clusters(1_000)
    half = TrainingSet(rows.features, rows.y, rows.labels, rows.groups, np.arange(1_000) < 400)
    assert fit(half, Settings(alpha=0.8)).verdict.n_evidence == 400


@pytest.mark.parametrize(
    ("n", "k", "said"), [(10, 2, "too few to fit"), (100, 1, "one label only")]
)
def test_too_little_to_fit_is_refused(n: int, k: int, said: str) -> None:
    fitted = fit(clusters(n, k), Settings())
    assert isinstance(fitted.verdict, Refused)
    assert said in fitted.verdict.reason
    assert fitted.cascade is None


def test_one_text_over_and_over_is_refused() -> None:
    rows = clusters(200)
    copies = TrainingSet(rows.features, rows.y, rows.labels, np.zeros(200, int), rows.evidence)
    verdict = fit(copies, Settings()).verdict
    assert isinstance(verdict, Refused)
    assert "near-duplicate" in verdict.reason


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_weights_that_are_no_probabilities_are_refused(weight: float) -> None:
    rows = clusters(10)
    weights = np.ones(10)
    weights[3] = weight
    with pytest.raises(InvalidData, match="weights"):
        TrainingSet(rows.features, rows.y, rows.labels, rows.groups, rows.evidence, weights=weights)
