"""What a task has spent on its teacher, held against its budget for the day."""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.teaching import Budget


@dataclass(frozen=True, slots=True)
class Spent:
    """Of one task on one day."""

    usd: float = 0.0
    calls: int = 0

    def plus(self, other: Spent) -> Spent:
        return Spent(self.usd + other.usd, self.calls + other.calls)


class LedgerAway(Exception):
    """The ledger cannot be read or written now."""


def left(budget: Budget, spent: Spent) -> float:
    """The share of the budget that is left, of its scarcer part; not above 1, below 0 where more
    was spent than it allows."""
    shares = []
    if budget.usd_per_day is not None:
        shares.append(1 - spent.usd / budget.usd_per_day)
    if budget.calls_per_day is not None:
        shares.append(1 - spent.calls / budget.calls_per_day)
    return min(shares)
