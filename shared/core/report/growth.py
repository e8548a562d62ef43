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
# So many scored rows tell a curve well enough; the folds they need, at least two, are fitted.
SCORED_ROWS = 6_000
MINIMUM_FOLDS = 2


@dataclass(frozen=True)
class Growth:
    """at: int64[m], rows of the fits' training set that were scored. sizes: float64[s], traces
    fitted on, ascending. right: bool[s, m], whether the label is the teacher's."""

    at: Ints
    sizes: Floats
    right: Mask


def growth(fits: StageFits, *, seed: int, jobs: int) -> Growth:
    """Of the stages that answer any traffic, their scores mixed as a head mixes them. A part is
    made of whole groups and lies within the next larger one."""
    rows, folds = fits.rows, fits.folds
    stages = [stage for stage in fits.stages if stage.name != "residual"]
    per_fold = max(len(rows) / FOLDS, 1.0)
    used = range(min(FOLDS, max(MINIMUM_FOLDS, round(SCORED_ROWS / per_fold))))
    scored = np.isin(folds, list(used))
    at = np.flatnonzero(scored & rows.evidence)
    draw = np.random.default_rng(seed).permutation(int(rows.groups.max()) + 1)
    place = draw[rows.groups] / len(draw)
    sizes, right = [], []
    for part in PARTS:
        kept = np.asarray(place < part)
        fitted = [int((kept & (folds != fold)).sum()) for fold in used]
        if min(fitted) < MINIMUM_FITTED or _one_label(rows.y, kept, folds, list(used)):
            continue
        scores = [
            cross_fit(
                stage.candidate, rows, folds, seed=seed, jobs=jobs, only=list(used), trained_on=kept
            ).scores[scored]
            for stage in stages
        ]
        sizes.append(float(np.mean(fitted)))
        right.append(_right(scores, rows.y[scored]))
    sizes.append(float(np.mean([(folds != fold).sum() for fold in used])))
    right.append(_right([stage.models.scores[scored] for stage in stages], rows.y[scored]))
    inside = rows.evidence[scored]
    return Growth(at, np.asarray(sizes), np.stack([one[inside] for one in right]))


def _right(scores: Sequence[Scores], y: Ints) -> Mask:
    return np.asarray(mix(fit_mixture(scores, y), scores).argmax(axis=1) == y)


def _one_label(y: Ints, kept: Mask, folds: Ints, used: list[int]) -> bool:
    return any(len(np.unique(y[kept & (folds != fold)])) < 2 for fold in used)
