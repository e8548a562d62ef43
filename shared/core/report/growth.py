"""How agreement grew with the number of traces: the same scorers on nested parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.core.candidates import cross_fit
from shared.core.head import fit_mixture, mix
from shared.core.stages import FOLDS, StageFits
from shared.core.types import Floats, Ints, Mask, Scores

PARTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
MINIMUM_FITTED = 30
ROWS_A_LABEL = 2  # of fewer nothing is learned that a law would go through
# So many scored rows tell a curve well enough; the folds they need, at least two, are fitted.
SCORED_ROWS = 6_000
MINIMUM_FOLDS = 2
# No part has more: of larger tasks the law is drawn from smaller shares, and from all traces.
MOST_FITTED = 20_000


@dataclass(frozen=True)
class Growth:
    """at: int64[m], rows of the fits' training set that were scored. sizes: float64[s], traces
    fitted on, ascending. right: bool[s, m], whether the label is the teacher's."""

    at: Ints
    sizes: Floats
    right: Mask


def growth(fits: StageFits, *, seed: int, jobs: int) -> Growth:
    """Of the stages that answer any traffic, their scores mixed as a head mixes them. A part is
    made of whole groups and lies within the next larger one. What it costs is bounded, however many
    rows there are."""
    rows, folds = fits.rows, fits.folds
    stages = [stage for stage in fits.stages if stage.name != "residual"]
    per_fold = max(len(rows) / FOLDS, 1.0)
    used = list(range(min(FOLDS, max(MINIMUM_FOLDS, round(SCORED_ROWS / per_fold)))))
    rng = np.random.default_rng(seed)
    different, group = np.unique(rows.groups, return_inverse=True)
    place = (rng.permutation(len(different)) / len(different))[group]
    at = np.flatnonzero(np.isin(folds, used) & rows.evidence)
    at = np.sort(rng.permutation(at)[: 2 * SCORED_ROWS])
    y = rows.y[at]
    scored = np.zeros(len(rows), dtype=np.bool_)
    scored[at] = True
    largest = min(1.0, MOST_FITTED / max((1 - 1 / FOLDS) * len(rows), 1.0) / PARTS[-1])
    sizes, right = [], []
    for part in PARTS:
        kept = np.asarray(place < part * largest)
        fitted = [int((kept & (folds != fold)).sum()) for fold in used]
        least = max(MINIMUM_FITTED, ROWS_A_LABEL * rows.n_labels)
        if min(fitted) < least or _one_label(rows.y, kept & rows.learnable, folds, used):
            continue
        involved = np.flatnonzero(kept | scored)
        some, inside = rows.take(involved), scored[involved]
        scores = [
            cross_fit(
                stage.candidate, some, folds[involved], seed=seed, jobs=jobs, only=used,
                trained_on=kept[involved],
            ).scores[inside]
            for stage in stages
        ]  # fmt: skip
        sizes.append(float(np.mean(fitted)))
        right.append(_right(scores, y))
    sizes.append(float(np.mean([(folds != fold).sum() for fold in used])))
    right.append(_right([stage.models.scores[at] for stage in stages], y))
    return Growth(at, np.asarray(sizes), np.stack(right))


def _right(scores: Sequence[Scores], y: Ints) -> Mask:
    return np.asarray(mix(fit_mixture(scores, y), scores).argmax(axis=1) == y)


def _one_label(y: Ints, kept: Mask, folds: Ints, used: list[int]) -> bool:
    return any(len(np.unique(y[kept & (folds != fold)])) < 2 for fold in used)
