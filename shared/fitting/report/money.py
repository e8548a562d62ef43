"""What a certificate saves, in calls, tokens and US dollars."""

from __future__ import annotations

from shared.contracts.report import Certificate, Money
from shared.fitting.prices import DAYS_PER_MONTH, Calls
from shared.rounding import dollars


def money_part(calls: Calls, certificate: Certificate, audit_share: float) -> Money | None:
    """calls: of a day like those to come; of the certified coverage the share `audit_share` is
    asked of the teacher nevertheless. None for a day without calls."""
    requests = float(calls.weights.sum())
    if requests <= 0:
        return None
    asked = 1.0 - audit_share
    saved = certificate.coverage * asked
    spent = calls.spent()
    bounds = [
        None if bound is None else bound * asked
        for bound in (certificate.coverage_lower, certificate.coverage_upper)
    ]
    least, most = (_month(spent, bound) for bound in bounds)
    tokens = None if calls.tokens is None else round(float(calls.weights @ calls.tokens) * saved, 1)
    per_day = None if spent is None else round(spent * saved, 6)
    per_month = _month(spent, saved)
    return Money(
        requests_per_day=round(requests, 1),
        calls_saved_per_1000=round(1000 * saved, 1),
        calls_saved_per_day=round(requests * saved, 1),
        tokens_saved_per_day=tokens,
        saved_per_day=per_day,
        saved_per_month=per_month,
        spent_per_day=spent,
        price_from=calls.source,
        sentence=_sentence(requests, saved, per_month, calls.source),
        calls_saved_per_1000_lower=_per_1000(bounds[0]),
        calls_saved_per_1000_upper=_per_1000(bounds[1]),
        saved_per_month_lower=least,
        saved_per_month_upper=most,
    )


def _month(spent_per_day: float | None, saved: float | None) -> float | None:
    if spent_per_day is None or saved is None:
        return None
    return round(spent_per_day * saved * DAYS_PER_MONTH, 6)


def _per_1000(saved: float | None) -> float | None:
    return None if saved is None else round(1000 * saved, 1)


def _sentence(requests: float, saved: float, per_month: float | None, source: str | None) -> str:
    calls = f"Saves about {requests * saved:,.0f} of {requests:,.0f} calls a day"
    if per_month is None:
        return f"{calls}; give the task a `price` to see what that is worth."
    return f"{calls}, {dollars(per_month)} a month (prices from the {source or 'task'})."
