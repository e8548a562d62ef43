"""An incremental refit: the scorers that are served are fitted anew on all rows; what vouches for
them is carried over from the last full fit.

Nearly all of a full fit's time goes into the scorers of the folds, the candidates that were not
chosen and the labels left out to pretend novelty. Here the fold cascades and the heads stay as the
full fit left them. A row it knew keeps its fold, a near-duplicate of one as well, and all others
are dealt to the folds by the same rule: no row is scored by anything that has seen it or a
near-duplicate of it. The gate is the same. What that certificate means: docs/gate.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from shared.core.candidates import Candidate, FoldModels, fit_one
from shared.core.cascade import Outputs, Serve
from shared.core.fit import Prepared, Settings, held_out_rows
from shared.core.grouping import group_folds
from shared.core.head import Head
from shared.core.stages import FOLDS, StageFit, StageFits, Tried
from shared.core.training import TrainingSet
from shared.core.types import Ints, Matrix

# Instead of a fold: rows that take no part in fitting, and rows the full fit says nothing of.
HELD_OUT = -1
UNKNOWN = -2


class FoldSays(NamedTuple):
    """What a fold's cascade says of n rows, and the scores float32[n, k] of each stage."""

    outputs: Outputs
    scores: Sequence[Matrix]


@dataclass(frozen=True)
class CarriedStage:
    """The candidate that the full fit chose, and the head it fitted for all rows."""

    name: str
    candidate: Candidate
    head: Head


@dataclass(frozen=True)
class Carried:
    """What is taken over from a full fit without a residual stage.

    say: what the cascade fitted without a fold says of rows.
    """

    stages: tuple[CarriedStage, ...]
    tried: tuple[Tried, ...]
    say: Callable[[int, TrainingSet], FoldSays]


def prepare_carried(
    training: TrainingSet, folds: Ints, carried: Carried, settings: Settings, serve: Serve
) -> Prepared:
    """For `shared.core.fit.decide`. folds: int64[n], of each row in the full fit: a fold, HELD_OUT
    or UNKNOWN. Evidence and seed of the settings must be those of the full fit."""
    folds = deal(training, folds, settings)
    held_out = folds == HELD_OUT
    rows, folds = training.take(~held_out), folds[~held_out]
    said = _out_of_fold(rows, folds, carried)
    everywhere = np.ones(len(rows), dtype=np.bool_)
    stages = tuple(
        StageFit(
            name=stage.name,
            candidate=stage.candidate,
            models=FoldModels({}, scores),
            final=fit_one(stage.candidate, rows, settings.seed),
            head_rows=everywhere,
        )
        for stage, scores in zip(carried.stages, said.scores, strict=True)
    )
    heads = tuple(stage.head for stage in carried.stages)
    return Prepared(
        all_rows=training,
        fits=StageFits(rows, folds, stages, None, carried.tried, heads),
        outputs=said.outputs,
        held_out=training.take(held_out & training.evidence) if held_out.any() else None,
        serve=serve,
        fitted_at=np.flatnonzero(~held_out),
        held_out_at=np.flatnonzero(held_out & training.evidence),
    )


def deal(training: TrainingSet, folds: Ints, settings: Settings) -> Ints:
    """int64[n]: the folds, those UNKNOWN dealt as a full fit of these rows alone would."""
    folds = folds.copy()
    unknown = np.flatnonzero(folds == UNKNOWN)
    held_out = held_out_rows(training.take(unknown), settings)
    folds[unknown[held_out]] = HELD_OUT
    new = unknown[~held_out]
    folds[new] = group_folds(training.groups[new], training.y[new], FOLDS, settings.seed)
    return folds


def _out_of_fold(rows: TrainingSet, folds: Ints, carried: Carried) -> FoldSays:
    """In the order of the rows."""
    places = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
    parts = [carried.say(fold, rows.take(at)) for fold, at in enumerate(places)]
    order = np.argsort(np.concatenate(places), kind="stable")
    scores = zip(*(part.scores for part in parts), strict=True)
    return FoldSays(
        Outputs.concatenate([part.outputs for part in parts]).take(order),
        [np.concatenate(of_stage)[order] for of_stage in scores],
    )
