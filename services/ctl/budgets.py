"""What the tasks' teachers may spend today, and have, for `tracerctl status`."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any
from zoneinfo import ZoneInfo

from services.ctl.output import percent
from shared.clock import SystemClock
from shared.contracts.spending import LedgerAway, Spent, left
from shared.contracts.tasks import Budget, Task
from shared.registry.ledger import RedisLedger, open_ledger
from shared.rounding import dollars
from shared.settings import ServiceSettings

# By state, what people read of it.
BUDGET_NOTES = {
    "waiting": "the budget for the day is used up; requests wait until the day ends.",
    "unavailable": "the budget for the day is used up; requests are answered 'unavailable'.",
    "unknown": "what is spent cannot be read from Redis.",
    "uncounted": "nothing is counted in Redis today: no call was made, or teachers count for "
    "themselves (TRACER_TEACHER_BUDGET_STORE=memory).",
}


def budgets_today(settings: ServiceSettings, tasks: Iterable[Task]) -> dict[str, dict[str, Any]]:
    """Of each task that has one: what its teacher may spend today, has spent, and what follows.

    Of states, `unknown`: the ledger cannot be read; `uncounted`: it has nothing of today, because
    no call was made or because teachers count in their own memory.
    """
    found = {}
    ledger = open_ledger(settings.redis_url.get_secret_value(), settings.topic_prefix)
    with closing(ledger):
        for task in tasks:
            if task.budget is not None:
                found[task.name] = _budget(task, task.budget, ledger)
    return found


def _budget(task: Task, budget: Budget, ledger: RedisLedger) -> dict[str, Any]:
    day = SystemClock().now().astimezone(ZoneInfo(task.timezone)).date()
    said: dict[str, Any] = {
        "day": day.isoformat(),
        "usd_per_day": budget.usd_per_day,
        "calls_per_day": budget.calls_per_day,
    }
    try:
        spent = ledger.spent(task.name, day)
    except LedgerAway:
        return said | {"usd": None, "calls": None, "left": None, "state": "unknown"}
    if spent == Spent():
        return said | {"usd": 0.0, "calls": 0, "left": None, "state": "uncounted"}
    share = max(0.0, left(budget, spent))
    used_up = {"wait": "waiting", "unavailable": "unavailable"}[budget.when_used_up]
    return said | {
        "usd": round(spent.usd, 6),
        "calls": spent.calls,
        "left": round(share, 4),
        "state": "open" if share > 0 else used_up,
    }


def budgeted(budget: dict[str, Any] | None) -> str:
    """As a table shows it."""
    if budget is None:
        return ""
    if budget["left"] is None:
        return str(budget["state"])
    parts = []
    if budget["usd_per_day"] is not None:
        parts.append(f"{dollars(budget['usd'])} of {dollars(budget['usd_per_day'])}")
    if budget["calls_per_day"] is not None:
        parts.append(f"{budget['calls']} of {budget['calls_per_day']} calls")
    return f"{', '.join(parts)}; {percent(budget['left'])} left"
