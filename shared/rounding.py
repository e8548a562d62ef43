"""Bounds and levels as people read them: never more than was found, or asked for.

Rounded to the nearest digit, a certificate of at least 95.68% read "at least 95.7%", and a
confidence of 99.9% read 100%.
"""

from __future__ import annotations

import math

# What floating point added is no part of a figure: 0.29 is 28.999999999999996 hundredths.
_NOISE = 6


def down(bound: float, digits: int) -> float:
    """A bound from below, with so many digits after the point."""
    scale = 10.0**digits
    return math.floor(round(bound * scale, _NOISE)) / scale


def up(bound: float, digits: int) -> float:
    """A bound from above."""
    scale = 10.0**digits
    return math.ceil(round(bound * scale, _NOISE)) / scale


def at_least(share: float, digits: int = 1) -> str:
    """A share that bounds from below, as a percentage.

    >>> at_least(0.9568)
    '95.6%'
    """
    return f"{down(100.0 * share, digits):.{digits}f}%"


def at_most(share: float, digits: int = 1) -> str:
    """A share that bounds from above."""
    return f"{up(100.0 * share, digits):.{digits}f}%"


def whole(share: float) -> str:
    """What somebody chose (α, δ, or 1 - δ), with all of its digits.

    >>> whole(0.975), whole(1 - 0.001)
    ('97.5%', '99.9%')
    """
    return f"{round(100.0 * share, 8):.10g}%"


def dollars(amount: float) -> str:
    """Two digits after the point; two that say something for less than a cent, as a call costs.

    >>> dollars(1234.5), dollars(0.0000225)
    ('$1,234.50', '$0.000023')
    """
    if not 0 < amount < 0.01:
        return f"${amount:,.2f}"
    return f"${amount:.{1 - math.floor(math.log10(amount))}f}"
