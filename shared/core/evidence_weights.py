"""How much rows of different days say together."""

from __future__ import annotations

import numpy as np

from shared.core.types import Floats, Ints


def scale_by_period(weights: Floats, period: Ints) -> Floats:
    """Give each period the mass of its effective size (Σ w)² / Σ w² (Kish 1965).

    weights: float64[n] > 0, one over a row's observation probability; period: int64[n], equal for
    rows of one window and one way of observing. A day of which 2% is audited weighs as much as a
    day seen whole, and says far less. Where traffic stays the same every period estimates the same
    agreement, so any weights of the periods do; these give the least variance, as far as that can
    be told without looking at a label. All weights 1: unchanged.
    """
    _, which = np.unique(period, return_inverse=True)
    mass = np.bincount(which, weights=weights)
    squares = np.bincount(which, weights=weights**2)
    return np.asarray(weights * (mass / squares)[which])
