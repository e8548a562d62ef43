from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from carrying import carried_by, fit_after, folds_after
from horizons import clusters

from shared.core.candidates import fit_one
from shared.core.carried import HELD_OUT, UNKNOWN, FoldSays, deal, prepare_carried
from shared.core.cascade import in_numpy
from shared.core.fit import Fit, Judged, Settings, fit
from shared.core.gate import Certified
from shared.core.stages import FOLDS
from shared.core.training import TrainingSet

THEN, NOW = 600, 750
SETTINGS = Settings(alpha=0.8, next_sample=0.0)


@pytest.fixture(scope="module")
def rows() -> TrainingSet:
    """Of the new rows every third is a near-duplicate of one the full fit knew."""
    rows = clusters(NOW, 6, noise=0.2, tokens=True)
    groups = rows.groups.copy()
    groups[THEN::3] = groups[: len(groups[THEN::3])]
    return replace(rows, groups=groups)


@pytest.fixture(scope="module")
def full(rows: TrainingSet) -> Fit:
    return fit(rows.take(np.arange(THEN)), SETTINGS)


@pytest.fixture(scope="module")
def judged(full: Fit) -> Judged:
    assert full.judged is not None
    return full.judged


def test_no_row_is_scored_by_what_has_seen_it_or_a_near_duplicate(
    rows: TrainingSet, judged: Judged
) -> None:
    carried, asked = carried_by(judged.fits), []

    def say(fold: int, some: TrainingSet) -> FoldSays:
        fitted_on = judged.fits.rows.groups[judged.fits.folds != fold]
        assert not np.isin(some.groups, fitted_on).any()
        asked.append(len(some))
        return carried.say(fold, some)

    folds = folds_after(judged, THEN, rows)
    prepare_carried(rows, folds, replace(carried, say=say), SETTINGS, in_numpy)
    assert len(asked) == FOLDS
    assert sum(asked) == NOW


def test_known_rows_keep_what_was_said_of_them(
    rows: TrainingSet, full: Fit, judged: Judged
) -> None:
    prepared = prepare_carried(
        rows, folds_after(judged, THEN, rows), carried_by(judged.fits), SETTINGS, in_numpy
    )
    then = prepared.outputs.take(np.arange(THEN))
    again = judged.fits.out_of_fold(in_numpy)
    assert (then.label == again.label).all()
    np.testing.assert_allclose(then.accept, again.accept, atol=1e-6)
    assert (then.novel == again.novel).all()
    for stage, before in zip(prepared.fits.stages, judged.fits.stages, strict=True):
        np.testing.assert_allclose(stage.models.scores[:THEN], before.models.scores, atol=1e-5)


def test_what_is_served_is_what_a_full_fit_with_those_candidates_serves(
    rows: TrainingSet, full: Fit, judged: Judged
) -> None:
    incremental = fit_after(full, THEN, rows, SETTINGS)
    assert isinstance(incremental.verdict, Certified)
    assert incremental.verdict.kind == "crossfit"
    assert incremental.verdict.n_evidence == NOW
    assert incremental.cascade is not None
    for stage, before in zip(incremental.cascade.stages, judged.fits.stages, strict=True):
        anew = fit_one(before.candidate, rows, SETTINGS.seed)
        np.testing.assert_allclose(stage.scorer.scores(rows), anew.scores(rows), atol=1e-6)
    heads = [stage.head for stage in judged.fits.served.stages]
    assert [stage.head for stage in incremental.cascade.stages] == heads
    assert incremental.tried == full.tried


def test_it_is_deterministic(rows: TrainingSet, full: Fit) -> None:
    one, two = (fit_after(full, THEN, rows, SETTINGS) for _ in range(2))
    assert one.verdict == two.verdict
    assert one.thresholds == two.thresholds


def test_no_residual_stage_is_tried_without_fold_models(rows: TrainingSet, full: Fit) -> None:
    incremental = fit_after(full, THEN, rows, SETTINGS)
    assert "rsb" not in [family.name for family in incremental.families]


@pytest.mark.parametrize("kind", ["crossfit", "holdout"])
def test_new_groups_are_dealt_evenly_and_stay_whole(rows: TrainingSet, kind: str) -> None:
    settings = replace(SETTINGS, kind=kind)  # type: ignore[arg-type]
    twice = replace(rows, groups=np.arange(NOW) // 2)
    folds = np.full(NOW, UNKNOWN)
    folds[:100] = 3
    dealt = deal(twice, folds, settings)
    assert (dealt[:100] == 3).all()
    new = dealt[100:]
    assert (new[::2] == new[1::2]).all()
    held_out = (new == HELD_OUT).mean()
    assert held_out == (0.0 if kind == "crossfit" else pytest.approx(0.3, abs=0.03))
    shares = np.bincount(new[new >= 0], minlength=FOLDS) / (new >= 0).sum()
    np.testing.assert_allclose(shares, 1 / FOLDS, atol=0.02)


def test_held_out_rows_are_answered_by_what_is_served(rows: TrainingSet) -> None:
    """That certificate is exact: nothing that is served has seen them."""
    settings = replace(SETTINGS, kind="holdout")
    full = fit(rows.take(np.arange(THEN)), settings)
    incremental = fit_after(full, THEN, rows, settings)
    assert incremental.judged is not None
    assert incremental.cascade is not None
    at = incremental.judged.at
    assert not np.isin(rows.groups[at], rows.groups[incremental.judged.fitted_at]).any()
    said = incremental.cascade.outputs(rows.take(at))
    np.testing.assert_allclose(said.accept, incremental.judged.outputs.accept, atol=1e-9)
