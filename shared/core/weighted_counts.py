"""What rows of unequal weight are worth as evidence: a number of equal rows and of errors in it.

Rows stand for 1/(their observation probability) of the traffic. The exact binomial test wants
whole rows, so a weighted sum of errors is matched by a scaled count. With weights w, of the rows a
policy handles: W = Σ w, y and v the sums of w and w² over its errors, M the heaviest weight there
is (of all rows: a policy may handle heavy ones of which none was seen). Fay and Feuer 1997 (gamma
limits for weighted sums of Poisson counts) scale by

    θ = (v + M²) / (y + M),    errors = (y + M) / θ - 1,    size = W / θ:

as if the next error were as heavy as any can be. Kish's size asks what rows weigh on average;
this asks what the rows weigh that err.

W is a random sum too, and matters where the heavy rows hardly ever err: with r = 1 - α the variance
of y - r W is v (1 - 2r) + r² Σ w², so θ is at least what makes that of a binomial count as large,

    ((v + M²)(1 - 2r) + r² Σ w²) / ((y + M)(1 - 2r) + r² W).

Both are 1 for rows of weight 1: their counts are exactly the rows and the errors. Near-duplicates
are copies of each other: all rows are taken for `copies` times as heavy as they are, and errors for
heavier where they have more copies than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from shared.core.types import Floats

Number = TypeVar("Number", float, Floats)


@dataclass(frozen=True)
class Counts:
    """As many independent rows of equal weight, and errors among them; neither need be whole."""

    errors: Floats
    size: Floats

    def __getitem__(self, steps: slice) -> Counts:
        return Counts(self.errors[steps], self.size[steps])


@dataclass(frozen=True)
class Sums:
    """Of the rows that each of m policies handles, float64[m] each.

    weight: Σ w. squares: Σ w². errors, error_squares: the same over rows whose label is not the
    teacher's. heaviest: the largest w of any row. copies: how many times over near-duplicates make
    the rows be there (`grouping.copies`), 1 without. copies * error_squares is at least what the
    squares of the errors' groups come to.
    """

    weight: Floats
    squares: Floats
    errors: Floats
    error_squares: Floats
    heaviest: Floats
    copies: Floats

    def __getitem__(self, steps: slice) -> Sums:
        return Sums(**{name: value[steps] for name, value in vars(self).items()})

    def with_errors(self, number: int) -> Sums:
        """As if so many rows of average weight, copies and all, were the errors."""
        each = self.squares / self.weight
        errors = number * self.copies * each
        return Sums(
            self.weight, self.squares, errors, errors * each, self.heaviest, self.copies
        )  # fmt: skip

    def counts(self, alpha: float) -> Counts:
        """For a test of "agreement is below alpha"."""
        next_error = self.copies * self.heaviest
        errors = self.errors + next_error
        error_squares = self.copies * self.error_squares + next_error**2
        squares = self.copies * self.squares
        unit = scale(errors, error_squares, self.weight, squares, min(1.0 - alpha, 0.5))
        return Counts(errors=errors / unit - 1.0, size=self.weight / unit)


def scale(
    errors: Number, error_squares: Number, weight: Number, squares: Number, rate: float
) -> Number:
    """θ, the unit in which errors are counted; `rate`: of errors, at most a half."""
    variance = (1.0 - 2.0 * rate) * error_squares + rate**2 * squares
    binomial = (1.0 - 2.0 * rate) * errors + rate**2 * weight
    larger: Number = np.maximum(error_squares / errors, variance / binomial)
    return larger
