"""A full fit's fold models and heads, taken over without any graph or file."""

from __future__ import annotations

import numpy as np

from shared.core.carried import HELD_OUT, UNKNOWN, Carried, CarriedStage, FoldSays, prepare_carried
from shared.core.cascade import in_numpy
from shared.core.fit import Fit, Judged, Settings, decide
from shared.core.stages import StageFits
from shared.core.training import TrainingSet
from shared.core.types import Ints


def carried_by(fits: StageFits) -> Carried:
    def say(fold: int, rows: TrainingSet) -> FoldSays:
        cascade = fits.fold_cascades[fold]
        scores = [
            np.asarray(stage.scorer.scores(rows), dtype=np.float32) for stage in cascade.stages
        ]
        return FoldSays(cascade.outputs(rows), scores)

    return Carried(
        stages=tuple(
            CarriedStage(fit.name, fit.candidate, stage.head)
            for fit, stage in zip(fits.stages, fits.served.stages, strict=True)
        ),
        tried=fits.tried,
        say=say,
    )


def folds_after(judged: Judged, n_then: int, rows: TrainingSet) -> Ints:
    """int64[n]: of rows that begin with those of the full fit, and may repeat their groups."""
    then = np.full(n_then, HELD_OUT)
    then[judged.fitted_at] = judged.fits.folds
    by_group = dict(zip(rows.groups[:n_then].tolist(), then.tolist(), strict=True))
    new = [by_group.get(group, UNKNOWN) for group in rows.groups[n_then:].tolist()]
    return np.concatenate([then, np.asarray(new, dtype=np.int64)])


def fit_after(full: Fit, n_then: int, rows: TrainingSet, settings: Settings) -> Fit:
    """The incremental fit of rows that begin with those of the full one."""
    assert full.judged is not None
    folds = folds_after(full.judged, n_then, rows)
    carried = carried_by(full.judged.fits)
    return decide(prepare_carried(rows, folds, carried, settings, in_numpy), settings)
