"""Out of distribution, learned without a single out-of-distribution trace.

Scorers are fitted without some of the labels; the held-out traces of those labels then stand for
inputs that belong to none. A logistic model on the scorers' own scores tells them from held-out
traces of labels they knew, and its intercept is shifted to the share of novel traffic one should
expect: the score is P(the input belongs to none of the task's labels). Tasks of too few labels
defer what scores below all but the lowest of the traffic instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import logit

from shared.core.candidates import Candidate, cross_fit
from shared.core.head import Linear, fit_linear, read
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask, Matrix, Scores

# Novel traffic to expect, and the probability beyond which an input is deferred for it. The first
# stage is strict, because what it passes on may still be answered by the next.
EXPECTED_SHARE = 0.1
CUTS = {"lexical": 0.15}
CUT = 0.71
PARTS = 3
MINIMUM_LABELS = 6
MINIMUM_NOVEL_ROWS = 30
# Without pretended novelty: this share of the traffic is deferred as the least familiar.
UNFAMILIAR_SHARE = 0.002


def cut(stage: str) -> float:
    """The novelty from which a stage of that name does not answer."""
    return CUTS.get(stage, CUT)


@dataclass(frozen=True)
class PretendedNovelty:
    """Scores float32[r, k] by scorer of r held-out traces, bool[r]: of a label left out, and
    int64[r]: the fold each is of."""

    scores: tuple[Matrix, ...]
    novel: Mask
    folds: Ints

    def of(self, scorers: int, without: int | None) -> PretendedNovelty:
        """What the first scorers say of the traces outside of a fold, or of all."""
        if without is None or not (self.folds == without).any():
            return replace(self, scores=self.scores[:scorers])
        rows = self.folds != without
        return PretendedNovelty(
            tuple(scores[rows] for scores in self.scores[:scorers]),
            self.novel[rows],
            self.folds[rows],
        )


def pretend(
    candidates: Sequence[Candidate],
    rows: TrainingSet,
    folds: Ints,
    *,
    seed: int,
    jobs: int,
    trained_on: Mask | None = None,
) -> PretendedNovelty | None:
    """What scorers fitted without some labels (on rows of `trained_on`, if given) say of traces.

    None where there are too few labels or traces to leave some out. The traces and the labels
    left out depend on rows, folds and seed only.
    """
    labels = np.unique(rows.y[rows.learnable])
    if len(labels) < MINIMUM_LABELS:
        return None
    part = np.zeros(rows.n_labels + 1, dtype=np.int64)
    part[labels] = np.random.default_rng(seed).permutation(len(labels)) % PARTS
    # An answer outside of the labels says neither that its text is novel nor that it is known.
    usable = rows.learnable if trained_on is None else trained_on & rows.learnable
    turns = [np.flatnonzero((folds == turn) & rows.learnable) for turn in range(PARTS)]
    novel = [part[rows.y[inside]] == turn for turn, inside in enumerate(turns)]
    # Each fold's head is fitted without that fold's turn.
    least = min(min(known.sum(), (~known).sum()) for known in _without_each(novel))
    if least < MINIMUM_NOVEL_ROWS:
        return None
    scores: list[list[Matrix]] = []
    for turn, inside in enumerate(turns):
        kept = usable & (part[rows.y] != turn)
        if len(np.unique(rows.y[kept & (folds != turn)])) < 2:
            return None
        scores.append([
            cross_fit(
                candidate, rows, folds, seed=seed, jobs=jobs, only=[turn], trained_on=kept
            ).scores[inside]
            for candidate in candidates
        ])  # fmt: skip
    return PretendedNovelty(
        scores=tuple(np.concatenate(parts) for parts in zip(*scores, strict=True)),
        novel=np.concatenate(novel),
        folds=folds[np.concatenate(turns)],
    )


def _without_each(parts: Sequence[Mask]) -> list[Mask]:
    return [np.concatenate([*parts[:i], *parts[i + 1 :]]) for i in range(len(parts))]


def fit_novelty(
    pretended: PretendedNovelty | None, scores: Sequence[Scores], mixture: Floats, *, cut: float
) -> Linear:
    """The novelty model of a head with this `mixture` of m scorers.

    `scores` are theirs, out of fold; `pretended` has as many.
    """
    if pretended is None:
        return _unfamiliar(read(mixture, scores).novelty, cut)
    features = read(mixture, pretended.scores).novelty
    model = fit_linear(features, pretended.novel)
    shift = logit(EXPECTED_SHARE) - logit(pretended.novel.mean())
    return Linear(model.coefficients, model.intercept + float(shift))


def _unfamiliar(features: Floats, cut: float) -> Linear:
    """Reaches `cut` where the last scorer's highest score is lower than nearly all rows' are."""
    highest = features[:, -1]
    slope = 10.0 / max(float(highest.std()), 1e-6)
    coefficients = np.zeros(features.shape[1])
    coefficients[-1] = -slope
    return Linear(coefficients, float(logit(cut) + slope * np.quantile(highest, UNFAMILIAR_SHARE)))
