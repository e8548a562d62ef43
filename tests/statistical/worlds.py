"""Synthetic worlds whose true agreement is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from simulation import JUST_BELOW

from shared.core.policies import Evidence
from shared.core.types import Floats, Kind
from shared.core.weighted_counts import Sums

# Points that stand for all traffic; evenly spread, so that means are good to about 1e-4.
TRAFFIC = 16_000
# The additive recurrence of Roberts (2018): the most even spread in the unit square.
SPREAD = (0.7548776662466927, 0.5698402909980532)


def world(
    n: int, seed: int, *, agreement_at: tuple[float, float], duplicates: int = 1,
    kind: Kind = "holdout",
) -> Evidence:  # fmt: skip
    """n rows: score uniform in (0, 1); P(agree | score) linear from agreement_at[0] to [1].

    With `duplicates` every row is there that many times, in one group.
    """
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=n)
    agrees = rng.uniform(size=n) < agreement_given(scores, agreement_at)
    groups = np.arange(n)
    return Evidence(
        scores=np.repeat(scores, duplicates),
        agrees=np.repeat(agrees, duplicates),
        groups=np.repeat(groups, duplicates),
        weights=np.ones(n * duplicates),
        kind=kind,
    )


def copied_errors(n: int, seed: int, *, share: float, copies: tuple[int, int]) -> Evidence:
    """n different rows. A `share` of them is there so many times and makes all the errors;
    agreement is just below α, whatever the score."""
    rng = np.random.default_rng(seed)
    least, most = copies
    copied = rng.uniform(size=n) < share
    times = np.where(copied, rng.integers(least, most + 1, size=n), 1)
    of_traffic = share * (least + most) / 2.0
    errs = (1.0 - JUST_BELOW) * (of_traffic + 1.0 - share) / of_traffic
    agrees = ~(copied & (rng.uniform(size=n) < errs))
    rows = np.repeat(np.arange(n), times)
    scores = rng.uniform(size=n)
    return Evidence(scores[rows], agrees[rows], rows, np.ones(len(rows)), "holdout")


def agreement_given(scores: Floats, agreement_at: tuple[float, float]) -> Floats:
    low, high = agreement_at
    return low + (high - low) * scores


def true_agreement(threshold: float, agreement_at: tuple[float, float]) -> float:
    """Agreement on traffic whose score is at least `threshold`, scores uniform in (0, 1)."""
    middle = (threshold + 1.0) / 2.0
    low, high = agreement_at
    return low + (high - low) * middle


# From a row's two hidden coordinates, uniform in the unit square, to a stage's score (negative
# where it may not answer) and the probability that its label is the teacher's.
Stage = Callable[[Floats, Floats], tuple[Floats, Floats]]


def always(a: Floats, b: Floats) -> Floats:
    return np.ones(len(a))


@dataclass(frozen=True)
class World:
    """A cascade on traffic that is known exactly.

    observed: the probability that a row is seen at all; it then weighs one over that. heaviest:
    what the gate is told of the largest weight there can be, 0 for nothing.
    """

    stages: tuple[Stage, ...]
    floors: tuple[float, ...] = (0.0,)
    observed: Callable[[Floats, Floats], Floats] = always
    heaviest: float = 0.0

    def evidence(self, n: int, seed: int) -> Evidence:
        """n observed rows."""
        rng = np.random.default_rng(seed)
        a, b = np.empty(0), np.empty(0)
        while len(a) < n:
            more_a, more_b, u = rng.uniform(size=(3, n))
            seen = u < self.observed(more_a, more_b)
            a, b = np.concatenate([a, more_a[seen]]), np.concatenate([b, more_b[seen]])
        a, b = a[:n], b[:n]
        scores, probability = self._stages(a, b)
        return Evidence(
            scores=scores,
            agrees=rng.uniform(size=(n, 1)) < probability,
            groups=np.arange(n),
            weights=1.0 / self.observed(a, b),
            kind="holdout",
            floors=self.floors,
            heaviest=self.heaviest,
        )

    def agreement(self, threshold: float) -> float:
        """Of all traffic answered at a threshold, whichever stage answers."""
        scores, probability = self._traffic
        answers = scores >= np.maximum(threshold, self.floors)
        rows = np.flatnonzero(answers.any(axis=1))
        return float(probability[rows, answers[rows].argmax(axis=1)].mean())

    @cached_property
    def _traffic(self) -> tuple[Floats, Floats]:
        i = np.arange(1, TRAFFIC + 1)
        return self._stages(i * SPREAD[0] % 1.0, i * SPREAD[1] % 1.0)

    def _stages(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """float64[n, s] each: scores and probabilities of agreement."""
        scores, probability = zip(*(stage(a, b) for stage in self.stages), strict=True)
        return np.stack(scores, axis=1), np.stack(probability, axis=1)


def _mean(a: Floats, b: Floats) -> Floats:
    return (a + b) / 2.0


def _just_below(score: Callable[[Floats, Floats], Floats]) -> Stage:
    return lambda a, b: (score(a, b), np.full(len(a), JUST_BELOW))


CASCADES = {
    "two stages, every policy is wrong": World(
        (_just_below(lambda a, b: a), _just_below(_mean)), floors=(0.6, 0.0)
    ),
    "three stages, every policy is wrong": World(
        (_just_below(lambda a, b: a), _just_below(lambda a, b: b), _just_below(_mean)),
        floors=(0.8, 0.5, 0.2),
    ),
    "the earlier stage is worse": World(
        (
            lambda a, b: (a, 0.55 + 0.45 * a),
            lambda a, b: (_mean(a, b), 0.8 + 0.2 * _mean(a, b)),
        ),
        floors=(0.3, 0.0),
    ),
    "the earlier stage is better": World(
        (lambda a, b: (a, 0.9 + 0.1 * a), lambda a, b: (b, 0.6 + 0.4 * b)), floors=(0.7, 0.0)
    ),
    "rows change hands for the worse": World(
        (
            lambda a, b: (0.6 * a, np.full(len(a), 0.5)),
            lambda a, b: (b, 0.85 + 0.15 * b),
        ),
        floors=(0.0, 0.0),
    ),
    "three stages, falls below α and recovers": World(
        (
            lambda a, b: (np.where(a < 0.2, 0.7 + a / 2, -1.0), np.full(len(a), 0.8)),
            lambda a, b: (b, np.where(b > 0.7, 0.97, 0.9)),
            lambda a, b: (_mean(a, b) / 2, np.full(len(a), 0.96)),
        ),
        floors=(0.7, 0.6, 0.0),
    ),
    "the surest rows are the worst": World(
        (lambda a, b: (a, 0.96 - 0.1 * a), lambda a, b: (b, 0.96 - 0.1 * b)), floors=(0.4, 0.0)
    ),
    "some rows are novel to each stage": World(
        (
            lambda a, b: (np.where(b < 0.3, -1.0, a), 0.7 + 0.3 * a),
            lambda a, b: (np.where(a < 0.2, -1.0, b), 0.75 + 0.25 * b),
        ),
        floors=(0.5, 0.1),
    ),
}  # fmt: skip


def _steep(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    return a, 0.7 + 0.3 * a


AUDITED = "steep, a tenth of the surer half is audited"
# Rows that err weigh about as much as the others that are answered, or less.
WEIGHTED = {
    "every policy is wrong, surest seen most": World(
        (_just_below(lambda a, b: a),), observed=lambda a, b: 0.1 + 0.4 * a
    ),
    "every policy is wrong, surest seen least": World(
        (_just_below(lambda a, b: a),), observed=lambda a, b: 0.5 - 0.4 * a
    ),
    AUDITED: World((_steep,), observed=lambda a, b: np.where(a < 0.5, 1.0, 0.1)),
    "steep, surest seen most": World((_steep,), observed=lambda a, b: 0.1 + 0.4 * a),
    "steep, surest seen least": World((_steep,), observed=lambda a, b: 0.5 - 0.4 * a),
    "two stages, weights by chance": World(
        CASCADES["the earlier stage is worse"].stages, (0.3, 0.0), lambda a, b: 0.1 + 0.4 * b
    ),
}


def heavy_errors(share: float, seen: float, *, heaviest: float = 0.0) -> World:
    """Traffic of which a `share` is seen with probability `seen` only and makes all the errors;
    agreement is just below α, whatever the score."""
    return two_kinds(share, seen, (1.0 - JUST_BELOW) / share, heaviest=heaviest)


def light_errors(share: float, seen: float) -> World:
    """The same, but the others make all the errors."""
    return two_kinds(share, seen, 0.0)


def two_kinds(share: float, seen: float, rarely_seen_err: float, *, heaviest: float = 0.0) -> World:
    """Traffic of which a `share` is seen with probability `seen` only and errs at this rate; the
    others err so often that agreement is just below α, whatever the score."""
    others_err = (1.0 - JUST_BELOW - share * rarely_seen_err) / (1.0 - share)
    return World(
        (lambda a, b: (a, 1.0 - np.where(b < share, rarely_seen_err, others_err)),),
        observed=lambda a, b: np.where(b < share, seen, 1.0),
        heaviest=heaviest,
    )


def one_policy(
    n: int, alpha: float, *, share: float, seen: float, rarely_seen_err: float, repeats: int
) -> Sums:
    """What a policy handles in that many draws of n rows of `two_kinds`, at agreement alpha."""
    rng = np.random.default_rng(0)
    heavy = rng.binomial(n, share * seen / (share * seen + 1.0 - share), repeats)
    others_err = max(1.0 - alpha - share * rarely_seen_err, 0.0) / (1.0 - share)
    heavy_errors = rng.binomial(heavy, rarely_seen_err)
    light_errors = rng.binomial(n - heavy, others_err)
    weight = 1.0 / seen
    return Sums(
        weight=n - heavy + weight * heavy,
        squares=n - heavy + weight**2 * heavy,
        errors=light_errors + weight * heavy_errors,
        error_squares=light_errors + weight**2 * heavy_errors,
        heaviest=np.full(repeats, weight),
        copies=np.ones(repeats),
    )


def together(parts: Sequence[Evidence], weights: Floats) -> Evidence:
    """The rows of all of them, weighing this."""
    scores, agrees = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "agrees")
    )
    return Evidence(scores, agrees, np.arange(len(scores)), weights, "holdout")
