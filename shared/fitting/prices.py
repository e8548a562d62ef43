"""What the teacher's calls cost, and what is saved where a surrogate answers instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from shared.contracts.tasks import Price
from shared.core.types import Floats, Mask

DAYS_PER_MONTH = 30

PriceSource = Literal["--price", "traces", "task"]


@dataclass(frozen=True)
class Calls:
    """n calls of the teacher. weights: float64[n], how many requests of the day each stands for.
    costs: float64[n] US dollars, None where no price is known. tokens: float64[n], in and out
    together, None where no trace says. source: where the prices come from."""

    weights: Floats
    costs: Floats | None
    tokens: Floats | None
    source: PriceSource | None

    def saved(self, handled: Mask, audit_share: float) -> dict[str, float | None]:
        """Per day and per month, after the audits: that share of what is handled is asked of the
        teacher nevertheless."""
        mass = self.weights * handled * (1.0 - audit_share)
        money = None if self.costs is None else float(mass @ self.costs)
        return {
            "calls_saved_per_day": round(float(mass.sum()), 1),
            "tokens_saved_per_day": (
                None if self.tokens is None else round(float(mass @ self.tokens), 1)
            ),
            "saved_per_day": None if money is None else round(money, 6),
            "saved_per_month": None if money is None else round(money * DAYS_PER_MONTH, 6),
        }

    def spent(self) -> float | None:
        """US dollars of the day with the teacher answering everything."""
        return None if self.costs is None else round(float(self.weights @ self.costs), 6)


def calls(
    weights: Floats,
    costs: Sequence[float | None],
    input_tokens: Sequence[int | None],
    output_tokens: Sequence[int | None],
    *,
    price: Price,
    per_call: float | None,
) -> Calls:
    """A price `per_call` asked for goes before the cost a trace carries, and that before the
    task's price. Where a trace does not say, it is taken for an average one."""
    n = len(weights)
    tokens_in, tokens_out = _floats(input_tokens), _floats(output_tokens)
    tokens = _filled(tokens_in + tokens_out, weights)
    if per_call is not None:
        return Calls(weights, np.full(n, per_call), tokens, "--price")
    carried = _floats(costs)
    priced = np.full(n, price.per_call if price.per_call > 0 else np.nan)
    per_token = price.per_million_input_tokens, price.per_million_output_tokens
    if max(per_token) > 0:
        of_tokens = (tokens_in * per_token[0] + tokens_out * per_token[1]) / 1e6
        priced = np.where(np.isnan(of_tokens), priced, of_tokens + price.per_call)
    source: PriceSource | None = None
    if not np.isnan(carried).all():
        source = "traces"
    elif not np.isnan(priced).all():
        source = "task"
    known = np.where(np.isnan(carried), priced, carried)
    return Calls(weights, _filled(known, weights), tokens, source)


def _floats(values: Sequence[float | None]) -> Floats:
    return np.asarray([np.nan if v is None else v for v in values], dtype=np.float64)


def _filled(values: Floats, weights: Floats) -> Floats | None:
    """What is not known becomes the average of what is; None where nothing is."""
    known = ~np.isnan(values)
    if not known.any():
        return None
    average = float(weights[known] @ values[known] / weights[known].sum())
    return np.where(known, values, average)
