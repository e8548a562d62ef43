"""Fit the scorers of a cascade in and out of fold, and the heads that read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from shared.core.candidates import (
    LEXICAL_ZOO,
    SEMANTIC_ZOO,
    Candidate,
    FoldModels,
    Scorer,
    cross_fit,
    fit_one,
)
from shared.core.cascade import Cascade, Outputs, Serve, StageModel
from shared.core.head import Head, fit_head, fit_mixture
from shared.core.novelty import PretendedNovelty, cut, fit_novelty, pretend
from shared.core.training import TrainingSet
from shared.core.types import Ints, Mask

FOLDS = 5
SELECTION_FOLDS = (0, 1)
# A residual stage fitted on fewer deferred traces has nothing to learn from.
MINIMUM_RESIDUAL_ROWS = 200


@dataclass(frozen=True)
class Tried:
    """A candidate scorer and its cross-validated agreement on the selection folds."""

    stage: str
    name: str
    agreement: float
    chosen: bool


@dataclass(frozen=True)
class StageFit:
    """A stage's scorer, fitted without each fold and on all rows.

    head_rows: bool[n], the rows whose out-of-fold scores its head is fitted on.
    """

    name: str
    candidate: Candidate
    models: FoldModels
    final: Scorer
    head_rows: Mask


@dataclass(frozen=True)
class StageFits:
    """All stages of a cascade on one training set.

    heads: of the cascade fitted on all rows, where they were carried over from an earlier fit
    (`shared.core.carried`); then no fold's scorers are here either.
    """

    rows: TrainingSet
    folds: Ints
    stages: tuple[StageFit, ...]
    pretended: PretendedNovelty | None
    tried: tuple[Tried, ...]
    heads: tuple[Head, ...] | None = None

    @cached_property
    def fold_cascades(self) -> tuple[Cascade, ...]:
        """By fold, what is fitted on the rows outside of it."""
        return tuple(self.cascade(fold) for fold in range(FOLDS))

    @cached_property
    def served(self) -> Cascade:
        """What is fitted on all rows."""
        return self.cascade()

    def cascade(self, without: int | None = None) -> Cascade:
        """What is fitted on the rows outside of a fold, or on all."""
        rows = np.ones(len(self.rows), dtype=np.bool_) if without is None else self.folds != without
        return Cascade(
            tuple(
                StageModel(
                    name=stage.name,
                    scorer=stage.final if without is None else stage.models.scorers[without],
                    head=self._head(i, rows & stage.head_rows, without),
                    novelty_cut=cut(stage.name),
                )
                for i, stage in enumerate(self.stages)
            ),
            self.rows.n_labels,
        )

    def out_of_fold(self, serve: Serve) -> Outputs:
        """What the cascades fitted without each row's fold say of it, as they would be served."""
        places = [np.flatnonzero(self.folds == fold) for fold in range(FOLDS)]
        said = [
            serve(cascade, self.rows.take(self.folds == fold))
            for fold, cascade in enumerate(self.fold_cascades)
        ]
        order = np.argsort(np.concatenate(places), kind="stable")
        return Outputs.concatenate(said).take(order)

    def _head(self, stage: int, rows: Mask, without: int | None) -> Head:
        """Fitted on out-of-fold scores of `rows`; no row of the fold `without` has a part in it."""
        if self.heads is not None:
            return self.heads[stage]
        chosen = slice(None) if rows.all() else rows  # a slice copies nothing
        scores = [fit.models.scores[chosen] for fit in self.stages[: stage + 1]]
        y = self.rows.y[chosen]
        mixture = fit_mixture(scores, y)
        pretended = None if self.pretended is None else self.pretended.of(stage + 1, without)
        novelty = fit_novelty(pretended, scores, mixture, cut=cut(self.stages[stage].name))
        return fit_head(scores, y, self.folds[chosen], mixture, novelty)


def fit_stages(rows: TrainingSet, folds: Ints, *, seed: int, jobs: int) -> StageFits:
    """The lexical stage, if there are word pieces, and the semantic one."""
    zoos: list[tuple[str, Sequence[Candidate]]] = [("semantic", SEMANTIC_ZOO)]
    if rows.tokens is not None:
        zoos.insert(0, ("lexical", LEXICAL_ZOO))
    stages, tried = [], []
    for name, zoo in zoos:
        candidate, models, compared = _choose(name, zoo, rows, folds, seed, jobs)
        everywhere = np.ones(len(rows), dtype=np.bool_)
        stages.append(StageFit(name, candidate, models, fit_one(candidate, rows, seed), everywhere))
        tried += compared
    pretended = pretend([s.candidate for s in stages], rows, folds, seed=seed, jobs=jobs)
    return StageFits(rows, folds, tuple(stages), pretended, tuple(tried))


def with_residual(fits: StageFits, deferred: Mask, *, seed: int, jobs: int) -> StageFits | None:
    """One more stage, its scorer and head fitted on what the others deferred out of fold.

    Residual surrogate boosting (arXiv 2604.14531). None where too little is deferred, or of too
    few labels: to fit on, or to leave some out of and pretend novelty. None for carried heads too,
    which have no fold's scorers beside them.
    """
    rows, folds = fits.rows, fits.folds
    if fits.heads is not None or deferred.sum() < MINIMUM_RESIDUAL_ROWS:
        return None
    learned = deferred & rows.learnable
    if any(len(np.unique(rows.y[learned & (folds != fold)])) < 2 for fold in range(FOLDS)):
        return None
    candidate = fits.stages[-1].candidate
    models = cross_fit(
        candidate, rows, folds, seed=seed, jobs=jobs, only=range(FOLDS), trained_on=deferred
    )
    final = fit_one(candidate, rows.take(deferred), seed)
    stage = StageFit("residual", candidate, models, final, deferred)
    pretended = fits.pretended
    if pretended is not None:
        more = pretend([candidate], rows, folds, seed=seed, jobs=jobs, trained_on=deferred)
        if more is None:
            return None
        pretended = replace(pretended, scores=pretended.scores + more.scores)
    return replace(fits, stages=(*fits.stages, stage), pretended=pretended)


def _choose(
    stage: str, zoo: Sequence[Candidate], rows: TrainingSet, folds: Ints, seed: int, jobs: int
) -> tuple[Candidate, FoldModels, list[Tried]]:
    """The candidate that agrees most on the selection folds, fitted for every fold."""
    inside = np.isin(folds, SELECTION_FOLDS)
    tried: list[Tried] = []
    best, models = zoo[0], FoldModels({}, np.zeros((0, 0), np.float32))
    for candidate in zoo:  # only the best one's scores are kept
        selection = cross_fit(candidate, rows, folds, seed=seed, jobs=jobs, only=SELECTION_FOLDS)
        agreement = float((selection.scores.argmax(axis=1) == rows.y)[inside].mean())
        if agreement > max((t.agreement for t in tried), default=-1.0):
            best, models = candidate, selection
        tried.append(Tried(stage, candidate.name, agreement, chosen=False))
    others = [fold for fold in range(FOLDS) if fold not in SELECTION_FOLDS]
    rest = cross_fit(best, rows, folds, seed=seed, jobs=jobs, only=others)
    models.scores[~inside] = rest.scores[~inside]
    return (
        best,
        FoldModels(models.scorers | rest.scorers, models.scores),
        [replace(t, chosen=t.name == best.name) for t in tried],
    )
