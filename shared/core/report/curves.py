"""Learning curves: what more traces would bring, with intervals, or that one cannot tell.

Errors fall as a + b n^-c with the number n of traces fitted on (the usual power law; Hestness et
al. 2017, arXiv 1712.00409), the floor a anything up to nine tenths of today's errors. It is fitted
to the scored rows and to bootstrap samples of them, near-duplicates drawn together; intervals are
quantiles over the samples. A forecast's is of what will be measured then, on the rows of the slice
there will be, not of an agreement nobody can see.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from shared.core.report.growth import Growth
from shared.core.types import Floats, Ints, Mask

Verdict = Literal["growing", "plateaued", "cannot_tell"]

SAMPLES = 200
RISK = 0.1
EXPONENTS = np.geomspace(0.1, 1.0, 20)
MINIMUM_SIZES = 3
# A floor as a share of today's errors; none is thought likelier before the errors are seen.
FLOORS = np.linspace(0.0, 0.9, 10).tolist()
# As many other traces would have taught a little more or less: of the errors, this share.
TRAINING_NOISE = 0.08
# Curves bend: a law of what comes next need not go through what was long ago. By halving, as above.
BEND = 0.1
LEAST_NOISE = 0.002
MINIMUM_ROWS = 30
# Twice the traces: less than this is not worth waiting for, more than this is credibly something.
NO_GAIN = 0.01
SOME_GAIN = 0.002
AHEAD = (2.0, 4.0)
# Beyond this many times the traces there are nobody should believe a forecast.
FARTHEST = 16.0
# Where no answer of so few rows changed at all, NO_GAIN would still be believable (rule of three).
PLATEAU_ROWS = int(np.ceil(-np.log(RISK / 2) / NO_GAIN))


class Interval(NamedTuple):
    """value, lower, upper; the interval at level 1 - RISK."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Needs:
    """More traces of the whole task until the target is reached; upper: None beyond FARTHEST."""

    more: int
    lower: int
    upper: int | None


@dataclass(frozen=True)
class Curve:
    """sizes: float64[s], traces fitted on; points: agreement at each. forecast: size, and agreement
    that will be measured."""

    n_rows: int
    sizes: Floats
    points: list[Interval]
    forecast: list[tuple[float, Interval]]
    verdict: Verdict
    needs: Needs | None


@dataclass(frozen=True)
class Laws:
    """a + b n^-c, float64[r] each: of the rows themselves first, then of bootstrap samples."""

    a: Floats
    b: Floats
    c: Floats

    def errors(self, n: float) -> Floats:
        """float64[r]"""
        return np.asarray(np.clip(self.a + self.b * n**-self.c, 0.0, 1.0))


def curve(
    growth: Growth, rows: Mask, weights: Floats, groups: Ints, *, n: int, target: float, seed: int
) -> Curve | None:
    """Of a slice. rows: bool[m] among those scored; weights, groups: of the m. n: traces of the
    task today. None where rows or sizes are too few to draw anything."""
    if rows.sum() < MINIMUM_ROWS or len(growth.sizes) < MINIMUM_SIZES:
        return None
    errors = resampled(~growth.right[:, rows], weights[rows], groups[rows], seed)
    laws = fit_laws(growth.sizes, errors, int(rows.sum()), seed)
    return Curve(
        n_rows=int(rows.sum()),
        sizes=growth.sizes,
        points=[_agreement(errors[:, s]) for s in range(len(growth.sizes))],
        forecast=[
            (n * times, _measured(laws.errors(n * times), times * rows.sum(), seed))
            for times in AHEAD
        ],
        verdict=_verdict(laws, float(n), errors[0, -1], int(rows.sum())),
        needs=_needs(laws, float(n), target) if errors[0, -1] > 1.0 - target else None,
    )


def resampled(wrong: Mask, weights: Floats, groups: Ints, seed: int) -> Floats:
    """float64[1 + SAMPLES, s]: the share of errors at each size, of the rows and of Poisson
    bootstrap samples of their groups. Half a row that errs and half a one that does not, of random
    weight, join each sample (Jeffreys' prior): no error yet is not no error ever."""
    _, group = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = rng.poisson(1.0, (SAMPLES, int(group.max()) + 1))
    mass = np.concatenate([np.ones((1, len(weights))), drawn[:, group]]) * weights
    prior = rng.gamma(0.5, weights.mean(), (SAMPLES + 1, 2))
    prior[0] = 0.0
    errors = mass @ wrong.T + prior[:, :1]
    return np.asarray(errors / (mass.sum(axis=1) + prior.sum(axis=1))[:, None])


def fit_laws(sizes: Floats, errors: Floats, n_rows: int, seed: int) -> Laws:
    """Of the first row the likeliest law, of every other one drawn by likelihood: so few sizes do
    not tell a floor from a slower fall, and each sample believes in one of them. errors:
    float64[r, s], shares of n_rows."""
    cells = [(floor, c) for floor in FLOORS for c in EXPONENTS.tolist()]
    floors = errors[:, -1:] * np.asarray([floor for floor, _ in cells])
    x = sizes ** -np.asarray([c for _, c in cells])[:, None]
    rest = errors[:, None, :] - floors[:, :, None]
    noise = TRAINING_NOISE + BEND * np.log2(sizes[-1] / sizes)
    variance = (noise * errors[0]) ** 2 + errors[0] * (1 - errors[0]) / (2 * n_rows)
    w = 1.0 / (variance + LEAST_NOISE**2)
    b = np.maximum((rest * (w * x)).sum(axis=2) / (w * x**2).sum(axis=1), 0.0)
    squares = (w * (rest - b[:, :, None] * x) ** 2).sum(axis=2)
    luck = np.random.default_rng(seed).gumbel(size=squares.shape)
    luck[0] = 0.0
    chosen = (luck - squares / 2.0).argmax(axis=1)  # Gumbel's trick: by likelihood
    rows = np.arange(len(errors))
    return Laws(floors[rows, chosen], b[rows, chosen], np.asarray([c for _, c in cells])[chosen])


def _agreement(errors: Floats) -> Interval:
    lower, upper = np.quantile(1.0 - errors[1:], [RISK / 2, 1 - RISK / 2]).tolist()
    value = 1.0 - float(errors[0])
    return Interval(value, min(lower, value), max(upper, value))


def _measured(errors: Floats, n_rows: float, seed: int) -> Interval:
    """With the noise of a measurement on so many rows."""
    luck = np.random.default_rng(seed).normal(size=len(errors))
    rate = np.clip(errors, 0.5 / n_rows, 1.0)
    noisy = errors + luck * np.sqrt(rate * (1.0 - rate) / n_rows)
    noisy[0] = np.median(errors[1:])
    return _agreement(np.clip(noisy, 0.0, 1.0))


def _verdict(laws: Laws, n: float, errors: float, n_rows: int) -> Verdict:
    """errors: the share measured today; where the law says that more traces bring no less, it does
    not fit, and one cannot tell."""
    gain = laws.errors(n) - laws.errors(2 * n)
    if n_rows >= PLATEAU_ROWS and np.quantile(gain[1:], 1 - RISK / 2) < NO_GAIN:
        return "plateaued"
    grows = (
        np.quantile(gain[1:], RISK / 2) > SOME_GAIN and np.median(laws.errors(2 * n)[1:]) < errors
    )
    return "growing" if grows else "cannot_tell"


def _needs(laws: Laws, n: float, target: float) -> Needs | None:
    """None where the target is reached already, or lies beyond what one should believe."""
    sizes = np.geomspace(n, FARTHEST * n, 60)
    reached = np.stack([laws.errors(size) <= 1.0 - target for size in sizes.tolist()], axis=1)
    first = np.where(reached.any(axis=1), sizes[reached.argmax(axis=1)], np.inf)
    first[0] = np.quantile(first[1:], 0.5, method="inverted_cdf")
    if first[0] <= n or not np.isfinite(first[0]):
        return None
    lower, upper = np.quantile(first[1:], [RISK / 2, 1 - RISK / 2], method="inverted_cdf").tolist()
    more = round(first[0] - n)
    return Needs(
        more=more,
        lower=round(min(lower, first[0]) - n),
        upper=max(round(upper - n), more) if np.isfinite(upper) else None,
    )
