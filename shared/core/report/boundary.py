"""The rows a certificate is of, on both sides of the boundary."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.fit import Fit
from shared.core.gate import Refused
from shared.core.head import mix
from shared.core.policies import answers
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Mask, Scores

ROWS_AT_ONCE = 4_096  # bounds the float64 copies of scores
MOST_LEAD = 700.0  # of logarithms; beyond it odds would be infinite


@dataclass(frozen=True)
class Boundary:
    """m rows, as a certified fit would have answered them, each by what was fitted without it.

    at: int64[m], rows of the training set. y: int64[m], the teacher's labels; said: int64[m], of
    the stage that answers, or of the last one. second: int64[m], the label the last stage would
    give next; odds: float64[m] >= 1, of its first label against that. accept: float64[m], of the
    stage that answers, or of the last. handled, novel, dropped: bool[m]; novel: unlike anything
    seen, by the last stage; dropped: of a label that is deferred whole. weights, groups: as in the
    evidence.
    """

    at: Ints
    y: Ints
    said: Ints
    second: Ints
    odds: Floats
    accept: Floats
    handled: Mask
    novel: Mask
    dropped: Mask
    weights: Floats
    groups: Ints

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows: Ints) -> Boundary:
        """These rows only."""
        return Boundary(**{name: values[rows] for name, values in vars(self).items()})

    @property
    def agrees(self) -> Mask:
        """bool[m]: whether the label is the teacher's, handled or not."""
        return np.asarray(self.said == self.y)


def boundary_of(fitted: Fit, training: TrainingSet) -> Boundary | None:
    """None where there was nothing to fit, or no evidence. Of a refusal every row is deferred."""
    judged = fitted.judged
    if judged is None or fitted.cascade is None or not len(judged.at):
        return None
    refused = isinstance(fitted.verdict, Refused)
    threshold = np.inf if refused else fitted.verdict.threshold  # type: ignore[union-attr]
    stage = answers(judged.evidence, threshold)
    rows = np.arange(len(stage))
    said = judged.outputs.label[rows, stage]  # -1 is the last one
    best, second, odds = _best_two(fitted, training)
    return Boundary(
        at=judged.at,
        y=training.y[judged.at],
        said=said,
        # The graphs may break a tie the other way than NumPy.
        second=np.where(second == said, best, second),
        odds=odds,
        accept=judged.outputs.accept[rows, stage],
        handled=stage >= 0,
        novel=judged.outputs.novel[:, -1],
        dropped=np.isin(said, list(fitted.dropped)) & (stage < 0),
        weights=judged.evidence.weights,
        groups=judged.evidence.groups,
    )


def _best_two(fitted: Fit, training: TrainingSet) -> tuple[Ints, Ints, Floats]:
    """int64[m] each: the last stage's first and second label, and float64[m], the odds between
    them; a few thousand rows at a time."""
    assert fitted.judged is not None
    assert fitted.cascade is not None
    mixture = fitted.cascade.stages[-1].head.mixture
    at = fitted.judged.at
    place = np.full(len(training), -1)
    place[fitted.judged.fitted_at] = np.arange(len(fitted.judged.fitted_at))
    parts = []
    for start in range(0, len(at), ROWS_AT_ONCE):
        rows = at[start : start + ROWS_AT_ONCE]
        mixed = mix(mixture, _stage_scores(fitted, training, rows, place[rows]))
        order = np.argpartition(mixed, -2, axis=1)[:, -2:]
        two = np.take_along_axis(mixed, order, axis=1)
        lead = two[:, 1] - two[:, 0]
        swap = lead < 0
        best = np.where(swap, order[:, 0], order[:, 1])
        second = np.where(swap, order[:, 1], order[:, 0])
        parts.append((best, second, np.exp(np.minimum(np.abs(lead), MOST_LEAD))))
    best, second, odds = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return best, second, odds


def _stage_scores(fitted: Fit, training: TrainingSet, rows: Ints, fitted_as: Ints) -> list[Scores]:
    """float[n, k] of each stage's scorer on rows of the training set, by what was fitted without
    them. fitted_as: their places among the fitted rows, -1 for held-out ones."""
    assert fitted.judged is not None
    assert fitted.cascade is not None
    stages = fitted.cascade.stages
    if (fitted_as >= 0).all():
        return [fit.models.scores[fitted_as] for fit in fitted.judged.fits.stages[: len(stages)]]
    held_out = training.take(rows)
    return [stage.scorer.scores(held_out) for stage in stages]
