"""Retries and the panel: bounded concurrency, answers kept, nothing lost, no hopeless wait."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import REGISTRY

from services.ctl.recorded_llm import RecordedLLM
from services.teacher.answers import Answer, CannotAnswer, EndpointRefuses, PassingFault
from services.teacher.budget import BudgetWaits, Unavailable
from services.teacher.client import OpenAITeacher
from services.teacher.panel import Limits, Panel, Question
from services.teacher.retries import CutShort, Interrupted, Policy, with_retries
from shared.bus.errors import Retryable
from shared.clock import FakeClock, SystemClock
from shared.contracts.events import Deferral, Input, Reason, Request, Tokens
from shared.contracts.tasks import Task, TeacherEndpoint

TASK = Task(name="support", labels=("refund", "other"))
KEY = "sk-very-secret-key"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAST = Policy(max_attempts=3, first_seconds=0.01, longest_seconds=0.02)


def teacher(base_url: str) -> OpenAITeacher:
    return OpenAITeacher(base_url=base_url, api_key=KEY, model="m", clock=SystemClock())


class TestRetries:
    def tried(self, faults: list[PassingFault], **changes: Any) -> tuple[Any, list[float], int]:
        """The result, the pauses and the number of calls."""
        clock = FakeClock()
        pauses: list[float] = []
        calls = 0

        def call(timeout: float) -> str:
            nonlocal calls
            calls += 1
            clock.sleep(changes.get("takes", 0.0))
            if faults:
                raise faults.pop(0)
            return "done"

        def wait(seconds: float) -> bool:
            pauses.append(seconds)
            clock.sleep(seconds)
            return bool(changes.get("stopping", False))

        try:
            result: Any = with_retries(
                call,
                policy=changes.get("policy", Policy(max_attempts=4)),
                deadline=changes.get("deadline", 100.0),
                timeout=10,
                clock=clock,
                chance=random.Random(1),
                wait=wait,
            )
        except (PassingFault, Interrupted) as error:
            result = error
        return result, pauses, calls

    def test_until_it_succeeds_within_growing_bounds(self) -> None:
        result, pauses, calls = self.tried([PassingFault("x")] * 3)
        assert (result, calls) == ("done", 4)
        assert all(0 <= pause <= bound for pause, bound in zip(pauses, (0.5, 1, 2), strict=True))

    def test_not_more_often_than_allowed(self) -> None:
        result, pauses, calls = self.tried([PassingFault("x")] * 9)
        assert isinstance(result, PassingFault)
        assert (len(pauses), calls) == (3, 4)

    def test_what_the_endpoint_asks_for_is_obeyed(self) -> None:
        _, pauses, _ = self.tried([PassingFault("x", retry_after=7)])
        assert 7 <= pauses[0] <= 7.5

    def test_a_wait_beyond_the_deadline_is_not_begun(self) -> None:
        result, pauses, calls = self.tried([PassingFault("x", retry_after=500)])
        assert isinstance(result, PassingFault)
        assert (pauses, calls) == ([], 1)

    def test_no_attempt_after_the_deadline(self) -> None:
        result, _, calls = self.tried([], deadline=0.0)
        assert isinstance(result, PassingFault)
        assert calls == 0

    def test_a_fault_of_a_call_without_its_whole_time_is_told_apart(self) -> None:
        for deadline, whole in ((100.0, True), (9.0, False), (0.0, False)):
            once = Policy(max_attempts=1)
            result, _, _ = self.tried([PassingFault("x")], deadline=deadline, policy=once)
            assert isinstance(result, PassingFault)
            assert isinstance(result, CutShort) is not whole

    def test_stopping_ends_the_wait(self) -> None:
        result, _, calls = self.tried([PassingFault("x")], stopping=True)
        assert isinstance(result, Interrupted)
        assert calls == 1


def question(
    number: int, text: Input = "money back", task: Task = TASK, offset: int = 0
) -> Question:
    request = Request(id=f"r{number}", task=task.name, input=text)
    deferral = Deferral(request=request, reason=Reason.PAUSED, deferred_at=NOW)
    return Question(deferral, task, at=("deferred", 0, offset))


@dataclass
class Counting:
    """Asks nobody; fails as told by text, and counts."""

    failing: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    retry_after: float | None = None
    calls: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    takes: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        with self.lock:
            self.calls.append(str(text))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self.takes)
        with self.lock:
            self.at_once -= 1
        if text in self.failing:
            raise PassingFault("down", retry_after=self.retry_after)
        if text in self.refusing:
            raise EndpointRefuses("403")
        if text == "never":
            raise CannotAnswer("refused")
        return Answer(f"label of {text}", "m", Tokens(input=1, output=1))


def panel(ask: Any, **changes: Any) -> Panel:
    limits = {"timeout": 5.0, "batch": 20.0, "patience": 600.0, "concurrency": 4}
    return Panel(
        ask,
        policy=changes.pop("policy", FAST),
        clock=changes.pop("clock", SystemClock()),
        wait=changes.pop("wait", threading.Event().wait),
        on_answer=changes.pop("on_answer", lambda: None),
        limits=Limits(**{**limits, **changes}),
        seed=1,
    )


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (BudgetWaits("used up"), "waits"),
        (Unavailable("used up"), "unavailable"),
        (CannotAnswer("no"), "failed"),
        (PassingFault("down"), "fault"),
        (EndpointRefuses("the key"), "fault"),
    ],
)
def test_what_a_budget_holds_back_is_no_fault_of_the_endpoint(
    error: Exception, result: str
) -> None:
    """TracerTeacherFails counts `fault` and `failed`: it was raised for each budget that waits."""
    task = Task(name=f"counted-{type(error).__name__.lower()}")

    def ask(*_: Any, **__: Any) -> Answer:
        raise error

    with suppress(Retryable):
        panel(ask, policy=Policy(max_attempts=1)).ask_all([question(1, task=task)])
    counted = {
        sample.labels["result"]: sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "tracer_teacher_calls_total" and sample.labels["task"] == task.name
    }
    assert counted == {result: 1}


def test_many_questions_at_once_but_not_too_many() -> None:
    ask = Counting(takes=0.02)
    made = panel(ask)
    questions = [question(n, f"text {n}") for n in range(20)]
    replies = made.ask_all(questions)
    assert [replies[item.key].answer.label for item in questions] == [  # type: ignore[union-attr]
        f"label of text {n}" for n in range(20)
    ]
    assert 2 <= ask.most_at_once <= 4
    made.close()


def test_a_passing_fault_keeps_the_answers_and_asks_only_for_the_rest() -> None:
    ask = Counting(failing={"text 1"})
    beats: list[int] = []
    made = panel(ask, on_answer=lambda: beats.append(1))
    questions = [question(n, f"text {n}") for n in range(3)]
    with pytest.raises(Retryable, match="1 of 3 not answered: down"):
        made.ask_all(questions)
    assert sorted(ask.calls) == ["text 0", "text 1", "text 1", "text 1", "text 2"]
    assert len(beats) == 2
    ask.calls.clear()
    ask.failing.clear()
    assert len(made.ask_all(questions)) == 3
    assert ask.calls == ["text 1"]
    assert len(made.ask_all(questions)) == 3, "a batch that could not be committed"
    assert ask.calls == ["text 1"]
    made.close()


def test_answers_are_signs_of_life_while_the_first_question_is_waited_for() -> None:
    beats, slow_may_end = threading.Semaphore(0), threading.Event()

    def ask(task: Task, text: Input, *, timeout: float) -> Answer:
        if text == "slow":
            slow_may_end.wait(10)
        return Answer("refund", "m")

    made = panel(ask, on_answer=beats.release)
    questions = [question(0, "slow"), *(question(n, f"text {n}") for n in range(1, 5))]
    asking = threading.Thread(target=made.ask_all, args=(questions,))
    asking.start()
    try:
        assert all(beats.acquire(timeout=5) for _ in range(4))
    finally:
        slow_may_end.set()
        asking.join(10)
        made.close()


def test_the_same_id_with_another_text_is_another_question() -> None:
    ask = Counting()
    made = panel(ask)
    one, other = question(1, "a"), question(1, "b")
    replies = made.ask_all([one, other])
    assert replies[one.key].answer != replies[other.key].answer
    made.close()


def test_permanent_failures_are_replies() -> None:
    made = panel(Counting())
    asked_for = question(1, "never")
    assert isinstance(made.ask_all([asked_for])[asked_for.key].answer, CannotAnswer)
    made.close()


def test_a_failure_is_the_record_s_and_not_the_request_s_for_ever() -> None:
    ask = Counting(failing={"later"})
    made = panel(ask)
    for _ in range(2):  # asked again for the rest of its batch, its failure is remembered
        with pytest.raises(Retryable):
            made.ask_all([question(1, "never", offset=7), question(2, "later", offset=8)])
    assert ask.calls.count("never") == 1
    ask.failing.clear()
    made.ask_all([question(1, "never", offset=7), question(2, "later", offset=8)])
    made.ask_all([question(1, "never", offset=7)])  # its commit has failed
    assert ask.calls.count("never") == 1
    made.ask_all([question(1, "never", offset=9)])
    assert ask.calls.count("never") == 2, "put back from the dead letters"
    made.ask_all([question(2, "later", offset=10)])
    assert ask.calls[-1] == "never", "an answer is one wherever its request comes from"
    made.close()


def test_a_text_that_alone_is_refused_is_given_up() -> None:
    clock = FakeClock()
    ask = Counting(refusing={"flagged"})
    made = panel(ask, clock=clock, patience=60.0)
    flagged, fine = question(1, "flagged"), question(2, "fine")
    for _ in range(2):
        with pytest.raises(Retryable, match="403"):
            made.ask_all([flagged, fine])
        clock.sleep(31)
    answer = made.ask_all([flagged, fine])[flagged.key].answer
    assert isinstance(answer, CannotAnswer)
    assert "given up after 62 s: 403" in str(answer)
    made.close()


def test_a_refused_key_holds_everything_however_long() -> None:
    clock = FakeClock()
    ask = Counting()
    made = panel(ask, clock=clock, patience=60.0)
    made.ask_all([question(1, "a")])
    ask.refusing |= {"a", "b"}
    for _ in range(6):
        clock.sleep(61)
        with pytest.raises(Retryable):
            made.ask_all([question(2, "b")])
    ask.refusing.clear()
    ask.failing.add("b")
    clock.sleep(30)
    with pytest.raises(Retryable, match="down"):  # its patience has begun anew
        made.ask_all([question(2, "b")])
    ask.failing.clear()
    [reply] = made.ask_all([question(2, "b")]).values()
    assert isinstance(reply.answer, Answer)
    made.close()


def test_one_hopeless_request_is_given_up_when_others_are_answered() -> None:
    clock = FakeClock()
    ask = Counting(failing={"cursed"})
    made = panel(ask, clock=clock, patience=60.0)
    cursed, fine = question(1, "cursed"), question(2, "fine")
    with pytest.raises(Retryable):
        made.ask_all([cursed, fine])
    clock.sleep(30)
    with pytest.raises(Retryable):
        made.ask_all([cursed, fine])
    clock.sleep(31)
    replies = made.ask_all([cursed, fine])
    answer = replies[cursed.key].answer
    assert isinstance(answer, CannotAnswer)
    assert "given up after 61 s" in str(answer)
    made.close()


def test_nothing_is_given_up_while_the_endpoint_is_down() -> None:
    clock = FakeClock()
    ask = Counting(failing={"a", "b"})
    made = panel(ask, clock=clock, patience=60.0)
    for _ in range(5):
        with pytest.raises(Retryable):
            made.ask_all([question(1, "a"), question(2, "b")])
        clock.sleep(600)
    made.close()


def test_an_outage_gives_up_nothing_that_began_after_an_answer() -> None:
    clock = FakeClock()
    ask = Counting(failing={"a"})
    made = panel(ask, clock=clock, patience=60.0)
    questions = [question(1, "a"), question(2, "b")]
    with pytest.raises(Retryable):  # b is answered, and then the endpoint goes away
        made.ask_all(questions)
    ask.failing.add("b")
    for _ in range(5):
        clock.sleep(61)
        with pytest.raises(Retryable):
            made.ask_all(questions)
    ask.failing.clear()
    assert all(isinstance(reply.answer, Answer) for reply in made.ask_all(questions).values())
    made.close()


def test_after_an_outage_patience_begins_anew() -> None:
    clock = FakeClock()
    ask = Counting(failing={"a"})
    made = panel(ask, clock=clock, patience=60.0)
    questions = [question(1, "a"), question(2, "b")]
    with pytest.raises(Retryable):
        made.ask_all(questions)
    ask.failing.add("b")
    clock.sleep(61)
    with pytest.raises(Retryable):
        made.ask_all(questions)
    ask.failing.remove("b")
    clock.sleep(30)
    with pytest.raises(Retryable):
        made.ask_all(questions)
    clock.sleep(31)
    assert isinstance(made.ask_all(questions)[questions[0].key].answer, CannotAnswer)
    assert ask.calls.count("b") == 5, "once for itself, three times in the outage, once after it"
    made.close()


def test_what_another_endpoint_answers_tells_nothing() -> None:
    clock = FakeClock()
    ask = Counting(failing={"a"})
    made = panel(ask, clock=clock, patience=60.0)
    other = Task(name="other", teacher=TeacherEndpoint(model="another"))
    for number in range(5):
        with pytest.raises(Retryable):
            made.ask_all([question(1, "a"), question(number, f"fine {number}", other)])
        clock.sleep(61)
    made.close()


@pytest.mark.parametrize(
    ("retry_after", "batch"), [(5.0, 20.0), (None, 0.0)], ids=["asks us to wait", "no time left"]
)
def test_waiting_is_no_failure_of_the_request(retry_after: float | None, batch: float) -> None:
    clock = FakeClock()
    ask = Counting(failing={"a"}, retry_after=retry_after)
    made = panel(ask, clock=clock, patience=60.0, batch=batch, policy=Policy(1))
    for number in range(5):
        with pytest.raises(Retryable):
            made.ask_all([question(9, "a"), question(number, f"fine {number}")])
        clock.sleep(61)
    made.close()


def test_stopping_while_waiting_leaves_the_batch_for_later() -> None:
    stop = threading.Event()
    stop.set()
    made = panel(Counting(failing={"a"}), wait=stop.wait)
    with pytest.raises(Retryable):
        made.ask_all([question(1, "a")])
    made.close()


def test_the_panel_on_a_server_that_fails_every_third_call(
    recorded: Callable[..., RecordedLLM],
) -> None:
    llm = recorded(fail_every=3)
    made = panel(teacher(llm.base_url), policy=Policy(6, 0.01, 0.05))
    questions = [question(n) for n in range(30)]
    replies = made.ask_all(questions)
    assert {reply.answer.label for reply in replies.values()} == {"Refund"}  # type: ignore[union-attr]
    assert 40 <= llm.calls <= 50, "thirty answers, and as many more calls as failed"
    made.close()


def test_a_hanging_call_costs_its_timeout_and_is_made_again(
    recorded: Callable[..., RecordedLLM],
) -> None:
    llm = recorded(hang_every=5)
    made = panel(teacher(llm.base_url), timeout=0.3)
    began = time.monotonic()
    assert len(made.ask_all([question(n) for n in range(10)])) == 10
    assert time.monotonic() - began < 5
    made.close()


def test_the_key_is_never_logged(
    recorded: Callable[..., RecordedLLM], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ask = teacher(recorded(api_key="another").base_url)
    with pytest.raises(EndpointRefuses) as raised:
        ask(TASK, "x", timeout=5)
    assert KEY not in caplog.text
    assert KEY not in str(raised.value)
