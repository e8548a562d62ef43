from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from horizons import clusters

from shared.core.grouping import group_folds
from shared.core.stages import FOLDS, StageFits, fit_stages, with_residual


@pytest.fixture(scope="module")
def fits() -> StageFits:
    rows = clusters(1_800, 12, noise=0.1)
    return fit_stages(rows, group_folds(rows.groups, rows.y, FOLDS, 0), seed=0, jobs=1)


def test_nothing_of_a_folds_rows_is_in_the_head_it_is_judged_by(fits: StageFits) -> None:
    pretended = fits.pretended
    assert pretended is not None
    assert set(pretended.folds.tolist()) == {0, 1, 2}
    inside = fits.folds == 1
    models = fits.stages[0].models
    spoiled = models.scores.copy()
    spoiled[inside] = np.random.default_rng(0).normal(size=spoiled[inside].shape)
    strange = pretended.scores[0].copy()
    strange[pretended.folds == 1] += 3.0
    other = replace(
        fits,
        stages=(replace(fits.stages[0], models=replace(models, scores=spoiled)),),
        pretended=replace(pretended, scores=(strange,)),
    )
    one, two = (f.cascade(without=1).stages[0].head for f in (fits, other))
    assert one.novelty.intercept == two.novelty.intercept
    assert (one.novelty.coefficients == two.novelty.coefficients).all()
    assert (one.acceptor.coefficients == two.acceptor.coefficients).all()
    assert (one.mixture == two.mixture).all()
    for without in (0, None):
        assert (
            fits.cascade(without).stages[0].head.novelty.intercept
            != other.cascade(without).stages[0].head.novelty.intercept
        )


def test_a_residual_stages_novelty_knows_its_own_scorer(fits: StageFits) -> None:
    deferred = np.random.default_rng(0).uniform(size=len(fits.rows)) < 0.5
    boosted = with_residual(fits, deferred, seed=0, jobs=1)
    assert boosted is not None
    assert boosted.pretended is not None
    assert len(boosted.pretended.scores) == len(boosted.stages) == 2
    novelty = boosted.cascade().stages[-1].head.novelty
    assert (novelty.coefficients[-3:] != 0).all()
    # The stage before it is what it was.
    one, two = fits.cascade(), boosted.cascade()
    assert (
        one.stages[0].head.novelty.coefficients == two.stages[0].head.novelty.coefficients
    ).all()


def test_no_residual_stage_where_too_few_labels_are_left_to_leave_some_out(
    fits: StageFits,
) -> None:
    few = fits.rows.y < 2
    assert few.sum() > 200
    assert with_residual(fits, few, seed=0, jobs=1) is None
