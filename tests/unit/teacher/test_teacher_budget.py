"""Budgets: laws of the ledgers, in memory and on a real Redis, and what happens at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from test_teacher_handlers import REJECT, RULES, broker_with, decided, deferral, message

from services.ctl.recorded_llm import RecordedLLM
from services.teacher.answers import (
    CHARGED,
    Answer,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    Used,
)
from services.teacher.app import Teacher, build
from services.teacher.budget import (
    BudgetWaits,
    Ledger,
    LedgerAway,
    MemoryLedger,
    Metered,
    Spent,
    Unavailable,
)
from services.teacher.client import OpenAITeacher
from services.teacher.config import TeacherSettings
from services.teacher.costs import Prices, check_budgets, load_prices
from services.teacher.handlers import teach
from services.teacher.panel import Limits, Panel, Question, Reply
from services.teacher.retries import Policy
from shared.bus.errors import Fatal
from shared.bus.fates import DeadLetterLimit
from shared.bus.memory import MemoryPipe
from shared.clock import FakeClock, SystemClock
from shared.contracts.codec import decode
from shared.contracts.events import Decision, Tokens
from shared.contracts.tasks import Budget, Price, Task
from shared.contracts.teaching import TeacherEndpoint
from shared.registry.ledger import RedisLedger
from shared.rejecting import rejecting
from shared.telemetry.health import Health

NOW = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
TODAY = NOW.date()
DOLLAR = Price(per_call=1.0)


def budgeted(**budget: Any) -> Task:
    return Task(name="support", price=DOLLAR, budget=Budget(**budget))


class Fixed:
    """Answers everything, or raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = 0
        self.error = error

    def __call__(self, task: Task, text: Any, *, timeout: float) -> Answer:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Answer("refund", "m-2026-01-01", Tokens(input=1_000_000, output=500_000))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    return RedisLedger(request.getfixturevalue("redis_url"), prefix=f"{uuid4().hex}:")


class TestLedger:
    def test_sums_are_by_task_and_day(self, ledger: Ledger) -> None:
        assert ledger.spent("a", TODAY) == Spent()
        ledger.add("a", TODAY, Spent(0.25, 1))
        ledger.add("a", TODAY, Spent(0.5, 2))
        ledger.add("b", TODAY, Spent(9.0, 9))
        ledger.add("a", TODAY + timedelta(days=1), Spent(7.0, 7))
        assert ledger.spent("a", TODAY) == Spent(0.75, 3)

    def test_nothing_is_lost_between_threads(self, ledger: Ledger) -> None:
        with ThreadPoolExecutor(8) as threads:
            for _ in range(200):
                threads.submit(ledger.add, "a", TODAY, Spent(0.5, 1))
        assert ledger.spent("a", TODAY) == Spent(100.0, 200)


def test_a_ledger_on_redis_is_shared_and_says_when_redis_is_away(redis_url: str) -> None:
    prefix = uuid4().hex
    RedisLedger(redis_url, prefix=prefix).add("a", TODAY, Spent(1.0, 1))
    assert RedisLedger(redis_url, prefix=prefix).spent("a", TODAY) == Spent(1.0, 1)
    absent = RedisLedger("redis://:secret@127.0.0.1:9/0", prefix=prefix)
    with pytest.raises(LedgerAway) as caught:
        absent.spent("a", TODAY)
    assert "secret" not in str(caught.value)


class TestMetered:
    def metered(self, ask: Any, ledger: Ledger | None = None, clock: Any = None) -> Metered:
        return Metered(
            ask, ledger=ledger or MemoryLedger(), prices=Prices(), clock=clock or FakeClock(NOW)
        )

    def test_an_answer_says_what_it_cost(self) -> None:
        prices = Prices({"m": Price(per_million_input_tokens=2.0, per_million_output_tokens=8.0)})
        ask = Metered(Fixed(), ledger=MemoryLedger(), prices=prices, clock=FakeClock(NOW))
        assert ask(Task(name="free"), "x", timeout=1).cost == 6.0
        assert ask(Task(name="own", price=DOLLAR), "x", timeout=1).cost == 1.0
        assert self.metered(Fixed())(Task(name="free"), "x", timeout=1).cost is None

    @pytest.mark.parametrize("budget", [{"usd_per_day": 2.0}, {"calls_per_day": 2}])
    def test_when_it_is_used_up_requests_wait_until_the_task_s_day_ends(
        self, budget: dict[str, Any]
    ) -> None:
        clock = FakeClock(NOW)
        fixed = Fixed()
        ask = self.metered(fixed, clock=clock)
        task = Task(name="a", price=DOLLAR, budget=Budget(**budget), timezone="Europe/Berlin")
        for _ in range(2):
            ask(task, "x", timeout=1)
        with pytest.raises(BudgetWaits, match=r"for 2026-03-01 .* is used up; .* Europe/Berlin"):
            ask(task, "x", timeout=1)
        assert fixed.asked == 2
        clock.sleep(1_900)  # 23:01 UTC, past midnight in Berlin
        ask(task, "x", timeout=1)
        assert fixed.asked == 3

    def test_or_are_answered_unavailable(self) -> None:
        ask = self.metered(Fixed())
        task = budgeted(calls_per_day=1, when_used_up="unavailable")
        ask(task, "x", timeout=1)
        with pytest.raises(Unavailable, match=r"unavailable: the budget of task support .*1 calls"):
            ask(task, "x", timeout=1)
        ask(Task(name="another"), "x", timeout=1)

    def test_calls_at_once_do_not_exceed_a_number_of_calls(self) -> None:
        fixed = Fixed()
        ask = self.metered(fixed)
        task = budgeted(calls_per_day=5)

        def call(_: int) -> bool:
            try:
                ask(task, "x", timeout=1)
            except BudgetWaits:
                return False
            return True

        with ThreadPoolExecutor(16) as threads:
            assert sum(threads.map(call, range(50))) == 5
        assert fixed.asked == 5

    def test_an_answer_that_is_none_is_a_call_all_the_same(self) -> None:
        ledger = MemoryLedger()
        with pytest.raises(CannotAnswer):
            self.metered(Fixed(CannotAnswer("no")), ledger)(
                budgeted(calls_per_day=5), "x", timeout=1
            )
        assert ledger.spent("support", TODAY).calls == 1

    def test_what_came_of_a_call_does_not_matter_to_what_it_cost(self) -> None:
        tokens = Tokens(input=1_000_000, output=500_000)
        price = Price(per_million_input_tokens=2.0, per_million_output_tokens=8.0)
        task = Task(name="support", price=price, budget=Budget(usd_per_day=100))
        paid = Used(calls=1, charged=True, tokens=tokens)
        errors = [
            (CannotAnswer("cut short", used=paid), Spent(6.0, 1)),
            (PassingFault("unreadable", used=replace(paid, calls=2)), Spent(6.0, 2)),
            (CannotAnswer("the endpoint answered 400"), Spent(0.0, 1)),
            (PassingFault("the endpoint answered 503"), Spent()),
            (EndpointRefuses("no key"), Spent()),
        ]
        for error, spent in errors:
            ledger = MemoryLedger()
            with pytest.raises(type(error)):
                self.metered(Fixed(error), ledger)(task, "x", timeout=1)
            assert ledger.spent("support", TODAY) == spent

    def test_tokens_that_nobody_counted_are_estimated_for_the_budget(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        price = Price(per_million_input_tokens=1e6, per_million_output_tokens=1e6)
        ledger, text = MemoryLedger(), "word " * 600

        def uncounted(task: Task, text: Any, *, timeout: float) -> Answer:
            return Answer("refund", "m")

        budget = Budget(usd_per_day=1e6)
        task = Task(name="support", price=price, budget=budget)
        for ask in (uncounted, uncounted, Fixed(PassingFault("no answer", used=CHARGED))):
            metered = self.metered(ask, ledger)
            before = ledger.spent("support", TODAY).usd
            with suppress(PassingFault):
                assert metered(task, text, timeout=1).cost is None, "a trace says what is known"
            spent = ledger.spent("support", TODAY).usd - before
            assert 600 < spent < 1500, "dollars, at one a token"
        caplog.clear()
        for _ in range(3):
            with suppress(PassingFault):
                metered(task, text, timeout=1)
        assert caplog.text == "", "it was said once"
        by_calls = Task(name="other", price=price, budget=Budget(calls_per_day=9))
        self.metered(uncounted, ledger)(by_calls, text, timeout=1)
        assert ledger.spent("other", TODAY) == Spent(0.0, 1)

    def test_calls_that_time_out_are_counted_and_those_that_never_came_are_not(
        self, recorded: Callable[..., RecordedLLM]
    ) -> None:
        task, ledger = budgeted(calls_per_day=3), MemoryLedger()
        llm = recorded(hang_every=1)
        for url, calls in (("http://127.0.0.1:9/v1", 0), (llm.base_url, 3)):
            client = OpenAITeacher(base_url=url, api_key="k", model="m", clock=SystemClock())
            ask = self.metered(client, ledger)
            for _ in range(3):
                with pytest.raises(PassingFault):
                    ask(task, "x", timeout=0.1)
            assert ledger.spent("support", TODAY).calls == calls
        with pytest.raises(BudgetWaits):
            ask(task, "x", timeout=0.1)
        assert llm.calls == 3

    def test_a_ledger_that_is_away_stops_asking_but_loses_no_answer(self) -> None:
        class Flaky(MemoryLedger):
            away = False

            def spent(self, task: str, day: date) -> Spent:
                if self.away:
                    raise LedgerAway("Redis is away")
                return super().spent(task, day)

            def add(self, task: str, day: date, more: Spent) -> None:
                if self.away:
                    raise LedgerAway("Redis is away")
                super().add(task, day, more)

        ledger = Flaky()

        def away_meanwhile(task: Task, text: Any, *, timeout: float) -> Answer:
            ledger.away = True
            return Answer("refund", "m")

        task = budgeted(usd_per_day=1.5)
        ask = self.metered(away_meanwhile, ledger)
        assert ask(task, "x", timeout=1).label == "refund"
        with pytest.raises(BudgetWaits, match="nobody knows what is spent"):
            ask(task, "x", timeout=1)
        ledger.away = False
        ask(task, "x", timeout=1)
        ledger.away = False
        with pytest.raises(BudgetWaits, match="used up"):
            ask(task, "x", timeout=1)
        assert ledger.spent("support", TODAY) == Spent(2.0, 2), "what was owed was paid"


class TestPrices:
    def test_the_longest_name_that_fits_counts(self, tmp_path: Path) -> None:
        file = tmp_path / "prices.yaml"
        file.write_text("m: {per_call: 1}\nm-mini: {per_call: 2}\n")
        prices = load_prices(file, "default")
        names = ("m", "m-mini", "m-mini-2026", "m-2026", "else")
        found = [prices.price(Task(name="a"), name).per_call for name in names]
        assert found == [1.0, 2.0, 2.0, 1.0, 0.0]
        file.write_text("m: {per_cal: 1}\n")
        with pytest.raises(Fatal, match="unknown field `per_cal`"):
            load_prices(file, "default")

    def test_a_budget_in_dollars_needs_a_price(self) -> None:
        task = Task(name="a", budget=Budget(usd_per_day=1))
        with pytest.raises(Fatal, match=r"task 'a': budget\.usd_per_day needs a price"):
            check_budgets({"a": task}, Prices(default_model="m"))
        check_budgets({"a": task}, Prices({"m": DOLLAR}, default_model="m-2026"))

    @pytest.mark.parametrize("teacher", [None, TeacherEndpoint(model="haiku-latest")])
    def test_what_answers_by_another_name_costs_what_was_asked_for(
        self, teacher: TeacherEndpoint | None
    ) -> None:
        prices = Prices({"haiku-latest": DOLLAR}, default_model="haiku-latest")
        task = Task(name="support", teacher=teacher, budget=Budget(usd_per_day=2.0))
        check_budgets({"support": task}, prices)
        ask = Metered(Fixed(), ledger=MemoryLedger(), prices=prices, clock=FakeClock(NOW))
        assert [ask(task, "x", timeout=1).cost for _ in range(2)] == [1.0, 1.0]
        with pytest.raises(BudgetWaits):
            ask(task, "x", timeout=1)
        both = Prices({"haiku-latest": DOLLAR, "m": Price(per_call=3.0)})
        assert both.price(task, "m-2026").per_call == 3.0, "the name of the answer goes first"


def running(
    llm: RecordedLLM, task: Task, broker: Any, clock: FakeClock, stop: threading.Event
) -> Teacher:
    """A teacher on the memory bus; budgets go by `clock`, all else by the machine's."""
    real = SystemClock()
    client = OpenAITeacher(base_url=llm.base_url, api_key="none", model="m", clock=real)
    panel = Panel(
        Metered(client, ledger=MemoryLedger(), prices=Prices(), clock=clock),
        policy=Policy(1, 0.01, 0.02),
        limits=Limits(timeout=5.0, batch=20.0, patience=600.0, concurrency=4),
        clock=real,
        wait=stop.wait,
        on_answer=lambda: None,
    )
    rules = replace(RULES, tasks={**RULES.tasks, "support": task})
    pipe = MemoryPipe(broker, group="teacher", topics=["deferred"])
    settings = TeacherSettings(teacher_max_wait_seconds=0.05)
    return Teacher(settings, client, panel, rules, REJECT, pipe, Health(real), real)


def until(condition: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(600):
        if condition():
            return
        waiting.wait(0.02)
    raise AssertionError("it did not come to that")


def test_waiting_requests_stay_in_the_topic_the_teacher_is_alive_and_says_why(
    recorded: Callable[..., RecordedLLM],
) -> None:
    broker, llm, clock, stop = broker_with(5), recorded(), FakeClock(NOW), threading.Event()
    teacher = running(llm, budgeted(calls_per_day=3), broker, clock, stop)
    thread = threading.Thread(target=teacher.run, args=(stop,))
    thread.start()
    try:
        until(lambda: "used up" in teacher.health.readiness()[1])
        assert teacher.health.liveness()[0], "a restart would not bring money"
        assert llm.calls == 3
        assert decided(broker) == [], "nothing is committed, so nothing can be lost"
        clock.sleep(7_200)
        until(lambda: len(decided(broker)) == 5)
        assert sorted(decided(broker)) == [f"r{number}" for number in range(5)]
        assert llm.calls == 5, "what was answered the day before is not asked again"
        assert broker.messages("dead-letters") == []
    finally:
        stop.set()
        thread.join(10)
        teacher.panel.close()


def test_unavailable_is_a_decision_and_a_dead_letter_and_can_be_asked_another_day(
    recorded: Callable[..., RecordedLLM],
) -> None:
    task = budgeted(calls_per_day=1, when_used_up="unavailable")
    broker, llm, clock, stop = broker_with(3), recorded(), FakeClock(NOW), threading.Event()
    teacher = running(llm, task, broker, clock, stop)
    thread = threading.Thread(target=teacher.run, args=(stop,))
    thread.start()
    until(lambda: len(decided(broker)) == 3)
    stop.set()
    thread.join(10)
    decisions = [decode(m.value, Decision) for m in broker.messages("decisions")]
    errors = [decision.error for decision in decisions if decision.error]
    assert len(errors) == 2
    assert all("unavailable: the budget of task support" in error for error in errors)
    letters = broker.messages("dead-letters")
    assert len(letters) == 2
    clock.sleep(7_200)
    [again, *_] = [m for m in broker.messages("deferred") if m.key == letters[0].key]
    records = teach(
        [again],
        rules=teacher.rules,
        ask_all=teacher.panel.ask_all,
        reject=REJECT,
        clock=SystemClock(),
    )
    assert decode(records[0].value, Decision).label == "refund"
    teacher.panel.close()


def test_however_many_are_unavailable_the_teacher_goes_on() -> None:
    """Many dead letters in a row stop a service, as something is wrong then; here nothing is."""

    def ask_all(questions: Any) -> dict[Any, Reply]:
        return {each.key: Reply(Unavailable("used up"), 0.0) for each in questions}

    clock = FakeClock(NOW)
    reject = rejecting("teacher", "dead-letters", clock, DeadLetterLimit(3))
    messages = [message(deferral(number=number), offset=number) for number in range(20)]
    records = teach(messages, rules=RULES, ask_all=ask_all, reject=reject, clock=clock)
    assert len(records) == 40


class TestSharedTasks:
    def ask_all(self, questions: Any) -> dict[Any, Reply]:
        return {
            q.key: Reply(Answer("refund", "m"), 0.0) for q in questions if isinstance(q, Question)
        }

    def teach(self, messages: Any, **shared: Any) -> int:
        rules = replace(RULES, **shared)
        clock = FakeClock(NOW)
        return len(teach(messages, rules=rules, ask_all=self.ask_all, reject=REJECT, clock=clock))

    def test_two_groups_share_the_tasks_and_nothing_is_done_twice_or_by_nobody(self) -> None:
        messages = [message(deferral()), message(b"garbage")]
        assert self.teach(messages, only=frozenset({"support"})) == 2
        assert self.teach(messages, never=frozenset({"support"})) == 1, "what nobody can read"
        assert self.teach(messages) == 3

    def test_names_that_are_no_task_s_are_refused(self) -> None:
        settings = TeacherSettings(teacher_tasks=frozenset({"suport"}))
        with pytest.raises(Fatal, match="name suport, which"):
            build(
                settings,
                RULES.tasks,
                stop=threading.Event(),
                clock=SystemClock(),
                health=Health(SystemClock()),
            )
