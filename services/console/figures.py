"""Figures of a task's days, from counts: coverage, agreement on audits, reasons, savings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from shared.contracts.events import Outcome, Reason

# Field of a day -> number, as `tallies` counts them.
Counts = Mapping[str, int]

Z_95 = 1.959964  # two-sided
MICRO = 1e-6
# Split and looked up once each: a page reads tens of thousands of fields.
_DECIDED = {
    f"decided|{outcome.value}|{reason.value}": (outcome, reason)
    for outcome in Outcome
    for reason in Reason
}


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `n`, with Wilson's interval at 95% (Wilson 1927); None of nothing."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        return self.hits / self.n if self.n else None

    @property
    def lower(self) -> float | None:
        return self._bound(-1.0)

    @property
    def upper(self) -> float | None:
        return self._bound(1.0)

    def _bound(self, side: float) -> float | None:
        if not self.n:
            return None
        if self.hits == (0 if side < 0 else self.n):  # exact, where rounding would leave a crumb
            return self.hits / self.n
        share, z2 = self.hits / self.n, Z_95**2 / self.n
        spread = Z_95 * math.sqrt(share * (1.0 - share) / self.n + z2 / (4.0 * self.n))
        bound = (share + z2 / 2.0 + side * spread) / (1.0 + z2)
        return min(1.0, max(0.0, bound))


@dataclass(frozen=True, slots=True)
class Day:
    """One day of live requests, by the time of the request in the task's time zone.

    `handled` were answered by the surrogate alone, `audited` by it with the teacher asked as well,
    `deferred` by the teacher. `agreement`: of the day's audits. `spent`: what the calls of that day
    cost, of `priced` calls, in US dollars.
    """

    day: date
    handled: int
    audited: int
    deferred: int
    failed: int
    agreement: Share
    reasons: Mapping[Reason, int]
    priced: int
    spent: float

    @property
    def requests(self) -> int:
        return self.handled + self.audited + self.deferred

    @property
    def coverage(self) -> float | None:
        return (self.handled + self.audited) / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Totals:
    """Several days together. `saved`: US dollars, calls saved at the mean price of a call; None
    where no call had a price."""

    days: int
    requests: int
    handled: int
    audited: int
    deferred: int
    agreement: Share
    price: float | None

    @property
    def coverage(self) -> float | None:
        return (self.handled + self.audited) / self.requests if self.requests else None

    @property
    def saved(self) -> float | None:
        return None if self.price is None else self.handled * self.price


def day_of(day: date, counts: Counts) -> Day:
    """Unknown fields, of a newer release, are left out."""
    handled = audited = deferred = agree = audits = 0
    reasons: dict[Reason, int] = {}
    for field, n in counts.items():
        if known := _DECIDED.get(field):
            outcome, reason = known
            if outcome is Outcome.HANDLED:
                handled += n
            elif outcome is Outcome.AUDITED:
                audited += n
            else:
                deferred += n
                reasons[reason] = reasons.get(reason, 0) + n
        elif field.startswith("audit|") and field.count("|") == 2:
            audits += n
            agree += n if field.endswith("|agree") else 0
    return Day(
        day=day,
        handled=handled,
        audited=audited,
        deferred=deferred,
        failed=counts.get("failed", 0),
        agreement=Share(agree, audits),
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        priced=counts.get("priced", 0),
        spent=counts.get("micro_dollars", 0) * MICRO,
    )


def totals_of(days: Iterable[Day]) -> Totals:
    days = list(days)
    priced = sum(day.priced for day in days)
    return Totals(
        days=len(days),
        requests=sum(day.requests for day in days),
        handled=sum(day.handled for day in days),
        audited=sum(day.audited for day in days),
        deferred=sum(day.deferred for day in days),
        agreement=Share(
            sum(day.agreement.hits for day in days), sum(day.agreement.n for day in days)
        ),
        price=sum(day.spent for day in days) / priced if priced else None,
    )
