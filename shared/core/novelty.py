"""Out of distribution, learned without a single out-of-distribution trace.

Scorers are fitted without some of the labels; the held-out traces of those labels then stand for
inputs that belong to none. A logistic model on the scorers' own scores tells them from held-out
traces of labels they knew, and its intercept is shifted to the share of novel traffic one should
expect: the score is P(the input belongs to none of the task's labels). Tasks of too few labels
defer what scores below all but the lowest of the traffic instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit

from shared.core.candidates import Candidate, cross_fit
from shared.core.head import Linear, fit_linear, mix, novelty_features
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask

# Novel traffic to expect, and the probability beyond which an input is deferred for it. The first
# stage is strict, because what it passes on may still be answered by the next.
EXPECTED_SHARE = 0.1
CUTS = {"lexical": 0.15}
CUT = 0.7
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
    """Scores float64[r, k] by scorer of r held-out traces, and bool[r]: of a label left out."""

    scores: tuple[Floats, ...]
    novel: Mask


def pretend(
    candidates: Sequence[Candidate], rows: TrainingSet, folds: Ints, *, seed: int, jobs: int
) -> PretendedNovelty | None:
    """None where the task has too few labels or traces to leave some out."""
    labels = np.unique(rows.y)
    if len(labels) < MINIMUM_LABELS:
        return None
    part = np.zeros(rows.n_labels, dtype=np.int64)
    part[labels] = np.random.default_rng(seed).permutation(len(labels)) % PARTS
    chosen: list[Mask] = []
    scores: list[list[Floats]] = []
    for turn in range(PARTS):
        inside = folds == turn
        if len(np.unique(rows.y[~inside & (part[rows.y] != turn)])) < 2:
            return None
        said = [
            cross_fit(
                candidate, rows, inside.astype(np.int64),
                seed=seed, jobs=jobs, only=[1], trained_on=part[rows.y] != turn,
            ).scores[inside]
            for candidate in candidates
        ]  # fmt: skip
        scores.append(said)
        chosen.append(inside)
    novel = np.concatenate([part[rows.y[inside]] == turn for turn, inside in enumerate(chosen)])
    if min(novel.sum(), (~novel).sum()) < MINIMUM_NOVEL_ROWS:
        return None
    return PretendedNovelty(
        tuple(np.concatenate(parts) for parts in zip(*scores, strict=True)), novel
    )


def fit_novelty(
    pretended: PretendedNovelty | None, scores: Sequence[Floats], mixture: Floats, *, cut: float
) -> Linear:
    """The novelty model of a head with this `mixture` of m scorers.

    `scores` are theirs, out of fold. Scorers beyond the pretended ones' have no say.
    """
    if pretended is None:
        return _unfamiliar(novelty_features(mix(mixture, scores), scores), cut)
    m = len(pretended.scores[: len(scores)])
    theirs = pretended.scores[:m]
    model = fit_linear(novelty_features(mix(mixture[:m], theirs), theirs), pretended.novel)
    share = float(pretended.novel.mean())
    return Linear(
        np.pad(model.coefficients, (0, 3 * (len(scores) - m))),
        model.intercept - float(logit(share)) + float(logit(EXPECTED_SHARE)),
    )


def _unfamiliar(features: Floats, cut: float) -> Linear:
    """Reaches `cut` where the last scorer's highest score is lower than nearly all rows' are."""
    highest = features[:, -1]
    slope = 10.0 / max(float(highest.std()), 1e-6)
    coefficients = np.zeros(features.shape[1])
    coefficients[-1] = -slope
    return Linear(coefficients, float(logit(cut) + slope * np.quantile(highest, UNFAMILIAR_SHARE)))
