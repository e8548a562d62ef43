"""Counts what the teacher spends, and stops it where a task's budget for the day is used up."""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Protocol
from zoneinfo import ZoneInfo

from services.teacher.answers import (
    NOTHING,
    Answer,
    Ask,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    Used,
)
from services.teacher.costs import Prices, cost_of, estimated
from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.events import Input, Tokens
from shared.contracts.spending import LedgerAway, Spent, left
from shared.contracts.tasks import Budget, Price, Task
from shared.telemetry.metrics import (
    TEACHER_BUDGET_LEFT,
    TEACHER_COST,
    TEACHER_TOKENS,
    TEACHER_WAITING,
)

log = logging.getLogger(__name__)

_REMEMBERED_DAYS = 3


class Ledger(Protocol):
    """Sums by task and day; safe to use from many threads."""

    def spent(self, task: str, day: date) -> Spent:
        """Raises LedgerAway."""
        ...

    def add(self, task: str, day: date, more: Spent) -> None:
        """Raises LedgerAway."""
        ...

    def close(self) -> None: ...


class MemoryLedger:
    """This process's own sums; a restart forgets them."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, date], Spent] = {}
        self._lock = threading.Lock()

    def spent(self, task: str, day: date) -> Spent:
        with self._lock:
            return self._sums.get((task, day), Spent())

    def add(self, task: str, day: date, more: Spent) -> None:
        with self._lock:
            self._sums[task, day] = self._sums.get((task, day), Spent()).plus(more)
            for key in [k for k in self._sums if (day - k[1]).days > _REMEMBERED_DAYS]:
                del self._sums[key]

    def close(self) -> None:
        pass


class BudgetWaits(Retryable):
    """The budget is used up, and the request waits for another day."""


class Unavailable(CannotAnswer):
    """The budget is used up, and the request is told so. Asked another day it may be answered."""


class Metered:
    """Asks within the budgets, and says what each answer cost. Called from many threads."""

    def __init__(self, ask: Ask, *, ledger: Ledger, prices: Prices, clock: Clock) -> None:
        self._ask = ask
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: Counter[str] = Counter()
        self._estimating: set[str] = set()
        # What a ledger that was away did not take.
        self._owed: defaultdict[tuple[str, date], Spent] = defaultdict(Spent)

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses, CannotAnswer; BudgetWaits or Unavailable when the
        budget is used up, BudgetWaits while nobody knows whether it is."""
        day = self._clock.now().astimezone(ZoneInfo(task.timezone)).date()
        self._begin(task, day)
        used, price, said = NOTHING, self._prices.price(task), ""
        cost: float | None = None
        try:
            answer = self._ask(task, text, timeout=timeout)
            used, said = Used(answer.calls, True, answer.tokens), answer.label
            price = self._prices.price(task, answer.model)
            cost = cost_of(price, answer.tokens)
            return replace(answer, cost=cost)
        except (PassingFault, EndpointRefuses, CannotAnswer) as error:
            used = error.used
            cost = cost_of(price, used.tokens) if used.charged else None
            raise
        finally:
            _observe(task.name, cost, used.tokens)
            if task.budget is not None:
                if cost is None and used.charged and task.budget.usd_per_day is not None:
                    cost = self._estimate(task, price, estimated(task, text, said))
                with self._lock:
                    self._count(task.name, day, Spent(cost or 0.0, used.calls))
                    self._under_way[task.name] -= 1

    def _begin(self, task: Task, day: date) -> None:
        """Takes a place among the calls under way, or raises."""
        if task.budget is not None:
            with self._lock:
                self._check(task, task.budget, day)
                self._under_way[task.name] += 1

    def _check(self, task: Task, budget: Budget, day: date) -> None:
        self._pay_owed(task.name, day)
        try:
            spent = self._ledger.spent(task.name, day)
        except LedgerAway as error:
            raise BudgetWaits(f"task {task.name}: nobody knows what is spent: {error}") from error
        spent = spent.plus(self._owed.get((task.name, day), Spent()))
        share = left(budget, spent)
        TEACHER_BUDGET_LEFT.labels(task=task.name).set(max(0.0, share))
        calls = spent.calls + self._under_way[task.name]
        full = budget.calls_per_day is not None and calls >= budget.calls_per_day
        used_up = share <= 0 or full
        TEACHER_WAITING.labels(task=task.name).set(used_up and budget.when_used_up == "wait")
        if not used_up:
            return
        why = f"the budget of task {task.name} for {day} ({_words(budget)}) is used up"
        if budget.when_used_up == "wait":
            raise BudgetWaits(f"{why}; its requests wait until that day ends in {task.timezone}")
        raise Unavailable(f"unavailable: {why}", field="request.task")

    def _estimate(self, task: Task, price: Price, tokens: Tokens) -> float | None:
        """For the budget alone: traces and metrics say what is known."""
        if task.name not in self._estimating:
            self._estimating.add(task.name)
            log.warning(
                "task %s: the endpoint counts no tokens, so its budget in dollars is counted by "
                "the length of texts and answers", task.name,
            )  # fmt: skip
        return cost_of(price, tokens)

    def _count(self, task: str, day: date, more: Spent) -> None:
        """An answer is not lost because the ledger is away: it is owed."""
        if more != Spent():
            self._owed[task, day] = self._owed[task, day].plus(more)
            self._pay_owed(task, day)

    def _pay_owed(self, task: str, day: date) -> None:
        owed = self._owed.pop((task, day), None)
        if owed is None:
            return
        try:
            self._ledger.add(task, day, owed)
        except LedgerAway:
            self._owed[task, day] = owed


def _words(budget: Budget) -> str:
    usd = f"{budget.usd_per_day:g} US dollars" if budget.usd_per_day is not None else ""
    calls = f"{budget.calls_per_day} calls" if budget.calls_per_day is not None else ""
    return " or ".join(part for part in (usd, calls) if part)


def _observe(task: str, cost: float | None, tokens: Tokens | None) -> None:
    if cost is not None:
        TEACHER_COST.labels(task=task).inc(cost)
    counts: Mapping[str, int] = (
        {} if tokens is None else {"input": tokens.input, "output": tokens.output}
    )
    for direction, count in counts.items():
        TEACHER_TOKENS.labels(task=task, direction=direction).inc(count)
