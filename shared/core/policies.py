"""What the gate may look at, and the policies it may choose among: fixed by the scores alone.

A policy is one number t for a whole cascade: a request is answered by the first stage whose accept
score reaches max(t, that stage's floor). So one certificate covers the composite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.cascade import Outputs
from shared.core.grouping import before, copies
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Kind, Mask
from shared.core.weighted_counts import Sums

# A walk begun at the very strictest policy ends at its first unlucky handful.
START_COVERAGE = 0.2
STEPS = 1000
MINIMUM_EVIDENCE = 50
# A stage with this floor never answers.
NEVER = 2.0


@dataclass(frozen=True)
class Evidence:
    """Rows the gate may look at.

    scores: float64[n, s], each stage's accept score, negative where it may not answer; float64[n]
    will do for one stage. agrees: bool of the same shape, whether its label is the teacher's.
    groups: int64[n], near-duplicates share one and count as one. weights: float64[n] > 0, 1 for
    rows that represent themselves. floors: float[s], below which a stage does not answer however
    loose the policy. kind: `holdout` rows took no part in fitting (exact); `crossfit` rows were
    scored out of fold (approximate: the served surrogate is refitted on all of them). heaviest:
    the largest weight a row can have, one over the least observation probability; needed where so
    few rows are that heavy that there may be none.
    """

    scores: Floats
    agrees: Mask
    groups: Ints
    weights: Floats
    kind: Kind
    floors: tuple[float, ...] = (0.0,)
    heaviest: float = 0.0

    def __post_init__(self) -> None:
        if self.scores.ndim == 1:
            object.__setattr__(self, "scores", self.scores[:, None])
            object.__setattr__(self, "agrees", self.agrees[:, None])

    def __len__(self) -> int:
        return len(self.scores)


def evidence_of(
    outputs: Outputs, rows: TrainingSet, kind: Kind, floors: tuple[float, ...]
) -> Evidence:
    """What the gate may look at, from what the stages said of `rows`."""
    return Evidence(
        outputs.eligible,
        outputs.label == rows.y[:, None],
        rows.groups,
        rows.observation_weights,
        kind,
        floors,
        rows.heaviest,
    )


@dataclass(frozen=True)
class Policies:
    """The walk's steps, float64[m] each: threshold, coverage, and what is known of the rows
    handled."""

    threshold: Floats
    coverage: Floats
    handled: Sums

    @property
    def agreement(self) -> Floats:
        return np.asarray(np.clip(1.0 - self.handled.errors / self.handled.weight, 0.0, 1.0))

    def __len__(self) -> int:
        return len(self.threshold)


NO_POLICIES = Policies(np.empty(0), np.empty(0), Sums(*(np.empty(0) for _ in range(6))))


def policies(evidence: Evidence) -> Policies:
    """Policies of growing coverage, fixed by the scores alone; none where rows are too few."""
    if len(evidence) < MINIMUM_EVIDENCE:
        return NO_POLICIES
    handled_at = _reach(evidence).max(axis=1)
    order = np.argsort(-handled_at, kind="stable")
    levels, weights = handled_at[order], evidence.weights[order]
    n_handled = int((levels >= 0).sum())
    if not n_handled:
        return NO_POLICIES
    traffic = np.cumsum(weights)
    steps = np.linspace(START_COVERAGE, 1.0, STEPS) * traffic[-1]
    stops = np.unique(np.minimum(np.searchsorted(traffic, steps), n_handled - 1))
    # Rows of equal score are handled together or not at all.
    last = np.unique(np.searchsorted(-levels, -levels[stops], side="right")) - 1
    last = last[last < n_handled]
    threshold = np.where(last == n_handled - 1, 0.0, levels[last])
    there = copies(evidence.groups[order], weights)[last]
    reached, errors, error_squares, by_group = _errors(evidence)
    seen = np.searchsorted(-reached, -threshold, side="right") - 1
    return Policies(
        threshold=threshold,
        coverage=traffic[last] / traffic[-1],
        handled=Sums(
            weight=traffic[last],
            squares=np.cumsum(weights**2)[last],
            errors=np.maximum(errors[seen], 0.0),
            error_squares=np.maximum(np.maximum(error_squares, 0.0)[seen], by_group[seen] / there),
            heaviest=np.full(len(last), max(evidence.heaviest, weights.max())),
            copies=there,
        ),
    )


def answers(evidence: Evidence, threshold: float) -> Ints:
    """int64[n]: the stage that answers each row at a threshold, -1 for none."""
    takes = _reach(evidence) >= threshold
    return np.where(takes.any(axis=1), takes.argmax(axis=1), -1)


def _reach(evidence: Evidence) -> Floats:
    """float64[n, s]: the loosest threshold at which a stage still answers; negative for never."""
    able = (evidence.scores >= np.asarray(evidence.floors)) & (evidence.scores >= 0)
    return np.where(able, evidence.scores, -1.0)


def _errors(evidence: Evidence) -> tuple[Floats, Floats, Floats, Floats]:
    """As the threshold falls: where something changes, and from there on the sums of the weights
    and of their squares over the rows that are answered wrongly; and, with the weights of each
    group summed up first, the sum of their squares.

    A row changes hands when an earlier stage comes within its reach.
    """
    reach = _reach(evidence)
    n, s = reach.shape
    order = np.argsort(-reach, axis=1, kind="stable")
    current = np.full(n, s)
    counted = np.zeros(n)
    at, row, change = [], [], []
    for rank in range(s):
        stage = order[:, rank]
        level = reach[np.arange(n), stage]
        takes_over = (stage < current) & (level >= 0)
        wrong = 1.0 - evidence.agrees[np.arange(n), stage]
        at.append(level[takes_over])
        row.append(np.flatnonzero(takes_over))
        change.append((wrong - counted)[takes_over])
        counted = np.where(takes_over, wrong, counted)
        current = np.where(takes_over, stage, current)
    levels, changes = np.concatenate(at), np.concatenate(change)
    falling = np.argsort(-levels, kind="stable")
    rows, changes = np.concatenate(row)[falling], changes[falling]
    weights = evidence.weights[rows]
    steps = weights * changes
    by_group = steps**2 + 2.0 * steps * before(evidence.groups[rows], steps)
    squares = weights**2 * changes
    return levels[falling], np.cumsum(steps), np.cumsum(squares), np.cumsum(by_group)
