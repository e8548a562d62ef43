"""A share of weighted rows with exact bounds, and whether it is credibly above a given one.

Rows stand for one over the probability with which they were observed; near-duplicates share a
group and are one observation. Bounded is whichever is rarer, the rows that hit or those that do
not: how sure a share is depends on what those weigh. With weights w of the groups, W = Σ w, y and v
the sums over groups of the rarer weight and of its square, M the heaviest group: the exact binomial
bounds (Clopper and Pearson 1934) are taken of a scaled count, y / θ of W / θ, with θ = v / y below
and (v + M²) / (y + M) above. Source: Fay and Feuer 1997, gamma limits for weighted sums of Poisson
counts. W is random as well, so θ is at least what makes the variance of y - r W, r = y / W, that of
a binomial count (`weighted_counts`, which does the upper bound for a whole walk of policies at
once, and for a given α). With weights of 1 and no near-duplicates θ is 1 and the bounds are the
exact binomial ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv

from shared.core.types import Floats, Ints, Mask
from shared.core.weighted_counts import scale

HALF = 0.5


@dataclass(frozen=True)
class Share:
    """Of n rows: the weighted share that hits, with one-sided bounds, each at the level asked."""

    n: int
    share: float
    lower: float
    upper: float


@dataclass(frozen=True)
class _Count:
    """hits of size, neither need be whole."""

    hits: float
    size: float


def share_of(hits: Mask, weights: Floats, groups: Ints, risk: float) -> Share | None:
    """risk: of each bound being wrong. None without rows."""
    if not len(hits):
        return None
    share = float(weights @ hits / weights.sum())
    least, most = _counts(hits if share <= HALF else ~hits, weights, groups)
    lower, upper = 0.0, 1.0
    if least.hits > 0:
        lower = float(betaincinv(least.hits, _rest(least) + 1.0, risk))
    if _rest(most) > 0:
        upper = float(betaincinv(most.hits + 1.0, _rest(most), 1.0 - risk))
    if share > HALF:
        lower, upper = 1.0 - upper, 1.0 - lower
    return Share(len(hits), share, min(lower, share), max(upper, share))


def effective_size(share: Share, risk: float) -> float:
    """Of how many rows of weight 1 the exact interval would be as wide; at most n. risk: of each
    bound, as in `share_of`."""

    def too_wide(size: float) -> float:
        hits = share.share * size
        lower = betaincinv(hits, size - hits + 1.0, risk) if hits > 0 else 0.0
        upper = betaincinv(hits + 1.0, size - hits, 1.0 - risk) if hits < size else 1.0
        return float(upper - lower) - (share.upper - share.lower)

    least, most = 1e-3, float(share.n)
    if too_wide(most) >= 0:
        return most
    return least if too_wide(least) <= 0 else float(brentq(too_wide, least, most))


def p_value_above(hits: Mask, weights: Floats, groups: Ints, share: float) -> float:
    """P(at least these hits | each row hits with probability `share`): small where rows hit more
    often. At most `risk` exactly where the lower bound of `share_of` at that risk is above."""
    if weights @ hits / weights.sum() <= HALF:
        least, _ = _counts(hits, weights, groups)
        return float(betainc(least.hits, _rest(least) + 1.0, share)) if least.hits > 0 else 1.0
    _, most = _counts(~hits, weights, groups)
    rest = _rest(most)
    return float(betainc(rest, most.hits + 1.0, share)) if rest > 0 else 1.0


def _counts(hits: Mask, weights: Floats, groups: Ints) -> tuple[_Count, _Count]:
    """What the rows are worth for a lower and for an upper bound. hits: at most half of them."""
    _, group = np.unique(groups, return_inverse=True)
    mass = np.bincount(group, weights)
    hit = np.bincount(group, weights * hits)
    total, y, v, heaviest = float(mass.sum()), float(hit.sum()), float(hit @ hit), float(mass.max())
    squares = float(mass @ mass)
    low = scale(y, v, total, squares, y / total) if y > 0 else 1.0
    high = scale(y + heaviest, v + heaviest**2, total, squares, y / total)
    # All hit: the scaled count of the upper bound must not exceed its size.
    most = min((y + heaviest) / high - 1.0, total / high)
    return _Count(y / low, total / low), _Count(most, total / high)


def _rest(count: _Count) -> float:
    return max(count.size - count.hits, 0.0)
