"""Deferrals in, decisions and traces out; with the real client, endpoint and loop at the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr
from test_teacher_client import Scripted
from test_teacher_providers import answered, client

from services.ctl.recorded_llm import RecordedLLM
from services.teacher.answers import Answer, CannotAnswer
from services.teacher.app import Teacher
from services.teacher.client import OpenAITeacher
from services.teacher.config import TeacherSettings
from services.teacher.handlers import Rules, teach
from services.teacher.panel import Limits, Panel, Question, Reply
from services.teacher.retries import Policy
from shared.bus.base import Message, Record
from shared.bus.errors import Retryable
from shared.bus.memory import Crash, CrashPoint, MemoryPipe
from shared.bus.memory_broker import MemoryBroker
from shared.clock import FakeClock, SystemClock
from shared.contracts.codec import decode, encode
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.events import (
    Decision,
    Deferral,
    Opinion,
    Outcome,
    RawTrace,
    Reason,
    Request,
    Source,
    Tokens,
)
from shared.contracts.prompting import prompt_digest, read_answer
from shared.contracts.tasks import Price, Task, UnknownLabels
from shared.contracts.taxonomy import taxonomies
from shared.contracts.teaching import Provider, TeacherEndpoint
from shared.rejecting import rejecting
from shared.telemetry.health import Health
from shared.telemetry.metrics import UNKNOWN_LABELS

NOW = datetime(2026, 3, 1, tzinfo=UTC)
THEN = datetime(2026, 2, 28, 23, tzinfo=UTC)
HEADERS = (("traceparent", b"00-aa-bb-01"),)
TASKS = {
    "support": Task(
        name="support",
        labels=("refund", "other"),
        unknown_labels=UnknownLabels.DEAD_LETTER,
        price=Price(per_call=0.5, per_million_input_tokens=2.0, per_million_output_tokens=4.0),
    ),
    "lenient": Task(name="lenient", labels=("refund", "other"), unknown_labels=UnknownLabels.OTHER),
    "free": Task(name="free", price=Price(per_call=0.01)),
    "bytoken": Task(name="bytoken", price=Price(per_million_input_tokens=1.0)),
}
RULES = Rules(
    tasks=TASKS,
    taxonomies=taxonomies(TASKS),
    deferred_topic="deferred",
    decisions_topic="decisions",
    raw_topic="traces.raw",
)
REJECT = rejecting("teacher", "dead-letters", FakeClock(NOW))
TOKENS = Tokens(input=100_000, output=10)
OPINIONS = [Opinion(version="v1", label="refund", handled=True)]


def deferral(text: Any = "money back", number: int = 1, **changes: Any) -> Deferral:
    request: dict[str, Any] = {
        "id": f"r{number}",
        "task": "support",
        "input": text,
        "occurred_at": THEN,
        "metadata": {"channel": "web"},
    }
    request |= changes.pop("request", {})
    fields: dict[str, Any] = {
        "reason": Reason.BELOW_THRESHOLD,
        "deferred_at": NOW,
        "accept_score": 0.5,
        "threshold": 0.9,
        "version": "v1",
        "timings": {"encode": 1.0},
    }
    return Deferral(request=Request(**request), **{**fields, **changes})


def message(event: Deferral | bytes, offset: int = 0) -> Message:
    value = event if isinstance(event, bytes) else encode(event)
    return Message("deferred", 0, offset, b"k", value, HEADERS, 1)


def taught(
    event: Deferral | bytes, answer: Answer | CannotAnswer | None = None
) -> dict[str, Record]:
    """The records by topic."""

    def ask_all(questions: Sequence[Question]) -> dict[Any, Reply]:
        given = answer or Answer("Refund", "model-x", TOKENS)
        return {question.key: Reply(given, 0.25) for question in questions}

    records = teach(
        [message(event)], rules=RULES, ask_all=ask_all, reject=REJECT, clock=FakeClock(NOW)
    )
    by_topic = {record.topic: record for record in records}
    assert len(by_topic) == len(records)
    return by_topic


def test_a_deferred_request_gets_its_decision_and_becomes_a_trace() -> None:
    records = taught(deferral(observation_probability=1.0))
    assert set(records) == {"decisions", "traces.raw"}
    assert {record.key for record in records.values()} == {b"r1"}
    assert {record.headers for record in records.values()} == {HEADERS}
    assert decode(records["decisions"].value, Decision) == Decision(
        request_id="r1",
        task="support",
        outcome=Outcome.DEFERRED,
        reason=Reason.BELOW_THRESHOLD,
        decided_at=NOW,
        label="refund",
        accept_score=0.5,
        threshold=0.9,
        version="v1",
        occurred_at=THEN,
        teacher_model="model-x",
        timings={"encode": 1.0, "teacher": 250.0},
        metadata={"channel": "web"},
    )
    assert decode(records["traces.raw"].value, RawTrace) == RawTrace(
        id="r1",
        task="support",
        input="money back",
        teacher="refund",
        occurred_at=THEN,
        model="model-x",
        tokens=TOKENS,
        cost=pytest.approx(0.5 + 0.2 + 0.00004),
        metadata={"channel": "web"},
        source=Source.DEFERRED,
        deferral_reason=Reason.BELOW_THRESHOLD,
        version="v1",
        prompt=prompt_digest(RULES.tasks["support"]),
    )


def test_an_audited_request_becomes_a_trace_only() -> None:
    event = deferral(
        outcome=Outcome.AUDITED,
        reason=Reason.CERTIFIED,
        observation_probability=0.05,
        label="refund",
        opinions=OPINIONS,
        drawn=True,
        audit_share=0.05,
        request={"occurred_at": None},
    )
    records = taught(event)
    assert set(records) == {"traces.raw"}
    trace = decode(records["traces.raw"].value, RawTrace)
    assert trace.source is Source.AUDITED
    assert trace.observation_probability == 0.05
    assert trace.deferral_reason is None
    assert trace.occurred_at == NOW
    assert trace.opinions == OPINIONS
    assert (trace.drawn, trace.audit_share) == (True, 0.05)


@pytest.mark.parametrize(
    ("task", "tokens", "cost"),
    [
        ("free", TOKENS, 0.01),
        ("free", None, 0.01),
        ("bytoken", TOKENS, 0.1),
        ("bytoken", None, None),
        ("lenient", TOKENS, None),
    ],
)
def test_the_cost_by_the_tasks_price(task: str, tokens: Tokens | None, cost: float | None) -> None:
    records = taught(deferral(request={"task": task}), Answer("refund", "m", tokens))
    assert decode(records["traces.raw"].value, RawTrace).cost == cost


def failed(event: Deferral, answer: Answer | CannotAnswer | None = None) -> tuple[str, DeadLetter]:
    """The decision's error and the dead letter, which says as much at least."""
    records = taught(event, answer)
    assert set(records) == {"decisions", "dead-letters"}
    decision = decode(records["decisions"].value, Decision)
    assert decision.label is None
    assert decision.outcome is Outcome.DEFERRED
    letter = records["dead-letters"]
    assert letter.value == encode(event)
    read = DeadLetter.from_headers(letter.headers, key=letter.key, value=letter.value)
    assert (read.service, read.topic) == ("teacher", "deferred")
    assert decision.error is not None
    assert read.message.startswith(decision.error)
    return decision.error, read


def test_what_can_never_be_answered_gets_a_decision_that_says_why() -> None:
    refusal = CannotAnswer("the model refused", words="no card 4111", field="request.input")
    why, letter = failed(deferral(), refusal)
    assert why == "the model refused", "decisions are free of texts"
    assert letter.message == "the model refused: no card 4111"
    assert letter.field == "request.input"
    why, letter = failed(deferral(request={"task": "sales"}))
    assert "sales" in why
    assert letter.field == "request.task"


def test_answers_that_are_no_label_are_counted_whatever_the_policy() -> None:
    counted = UNKNOWN_LABELS.labels("teacher", "lenient")._value
    before = counted.get()
    for words in ("refund", "Refnd", "REFUND"):
        taught(deferral(request={"task": "lenient"}), Answer(words, "m", None))
    assert counted.get() - before == 1


def test_an_answer_outside_the_taxonomy_by_policy() -> None:
    answer = Answer("Refnd", "m", None)
    why, letter = failed(deferral(), answer)
    assert why == "the answer is not a label of the task"
    assert "'Refnd'" in letter.message
    assert "'refund'" in letter.message
    assert letter.field == "label"
    for task, label in [("lenient", "other"), ("free", "Refnd")]:
        records = taught(deferral(request={"task": task}), answer)
        assert decode(records["decisions"].value, Decision).label == label
        assert decode(records["traces.raw"].value, RawTrace).teacher == label


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ("U.S.", "U.S."), (' "U.S." \n', "U.S."), ("u.s.", "U.S."), ("C*", "C*"), ("C.", "C"),
        ("**C**", "C"), ("Label: x", "Label: x"), ("<think>C</think>U.S.", "U.S."),
        ("answer: other.", "other"), ("no label", "no label"),
    ],
)  # fmt: skip
def test_labels_that_look_like_wrapping_are_found(words: str, label: str) -> None:
    task = Task(name="odd", labels=("U.S.", "C*", "C", "Label: x", "other"))
    rules = replace(RULES, tasks={"odd": task}, taxonomies=taxonomies({"odd": task}))

    def ask_all(questions: Sequence[Question]) -> dict[Any, Reply]:
        answer = Answer(read_answer(words), "m", words=words)
        return {question.key: Reply(answer, 0.0) for question in questions}

    odd = message(deferral(request={"task": "odd"}))
    [record, _] = teach([odd], rules=rules, ask_all=ask_all, reject=REJECT, clock=FakeClock(NOW))
    assert decode(record.value, Decision).label == label


def test_words_are_no_label_of_a_task_without_labels() -> None:
    answer = Answer("Refund", "m", words=' "Refund." ')
    records = taught(deferral(request={"task": "free"}), answer)
    assert decode(records["decisions"].value, Decision).label == "Refund"


def test_an_essay_is_not_a_label() -> None:
    why, _ = failed(deferral(request={"task": "free"}), Answer("x" * 300, "m", None))
    assert "300 characters" in why


def test_an_audit_that_fails_changes_no_decision() -> None:
    records = taught(deferral(outcome=Outcome.AUDITED), CannotAnswer("no"))
    assert set(records) == {"dead-letters"}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", ""),
        (b"junk", ""),
        (b"{}", "request"),
        (encode(deferral()).replace(b"below_threshold", b"a_whim"), "reason"),
    ],
)
def test_what_is_no_deferral_is_a_dead_letter(value: bytes, field: str) -> None:
    (letter,) = taught(value).values()
    assert letter.topic == "dead-letters"
    read = DeadLetter.from_headers(letter.headers, key=letter.key, value=letter.value)
    assert read.field == field
    assert read.message


def test_headers_that_no_record_could_carry_make_one_dead_letter() -> None:
    blank = replace(message(deferral()), headers=(("blank", b" " * 3_000_000),))
    (letter,) = teach(
        [blank], rules=RULES, ask_all=lambda _: {}, reject=REJECT, clock=FakeClock(NOW)
    )
    assert letter.topic == "dead-letters"
    assert letter.size < 2_097_152


@pytest.mark.parametrize("task", ["support", "structured"])
@pytest.mark.parametrize("provider", list(Provider))
def test_no_words_of_the_endpoint_reach_a_decision(provider: Provider, task: str) -> None:
    secret = "card 4111111111111111"
    tasks = {
        "support": TASKS["support"],
        "structured": msgspec.structs.replace(
            TASKS["support"], name="structured", teacher=TeacherEndpoint(model="m")
        ),
    }
    rules = replace(RULES, tasks=tasks, taxonomies=taxonomies(tasks))
    refused = {"choices": [{"message": {"refusal": f"not {secret}"}}]}
    for status, document, why in [
        (200, answered(provider, f"It has {secret}"), "the answer is not a label of the task"),
        (200, answered(provider, "", secret), "the answer is empty"),
        (200, refused if provider is not Provider.ANTHROPIC else
            answered(provider, secret, "refusal"), "the model refused"),
        (422, {"error": {"message": f"input: {secret}"}}, "the endpoint answered 422"),
    ]:  # fmt: skip
        clock = SystemClock()
        with Scripted([(status, {}, json.dumps(document).encode())]) as url:
            panel = Panel(
                client(provider, url.removesuffix("/v1")),
                policy=Policy(1),
                limits=Limits(timeout=5.0, batch=20.0, patience=600.0, concurrency=1),
                clock=clock,
                wait=lambda _: False,
                on_answer=lambda: None,
            )
            asked = message(deferral(secret, request={"task": task}))
            [decision, _letter] = teach(
                [asked], rules=rules, ask_all=panel.ask_all, reject=REJECT, clock=clock
            )
            panel.close()
        assert decode(decision.value, Decision).error == why
        assert b"4111" not in decision.value


class Running:
    """A teacher on the memory bus, with the real client, panel and loop."""

    def __init__(self, llm: RecordedLLM, broker: MemoryBroker, **settings: Any) -> None:
        self.stop = threading.Event()
        self.health = Health(SystemClock())
        self.pipe = MemoryPipe(broker, group="teacher", topics=["deferred"])
        clock = SystemClock()
        client = OpenAITeacher(base_url=llm.base_url, api_key="none", model="m", clock=clock)
        panel = Panel(
            client,
            policy=Policy(settings.pop("attempts", 6), 0.01, 0.02),
            limits=Limits(
                timeout=settings.pop("timeout", 5.0), batch=20.0, patience=600.0, concurrency=8
            ),
            clock=clock,
            wait=self.stop.wait,
            on_answer=self.health.beat,
        )
        made = TeacherSettings(teacher_max_wait_seconds=0.05, **settings)
        self.teacher = Teacher(made, client, panel, RULES, REJECT, self.pipe, self.health, clock)
        self.thread = threading.Thread(target=self.run)
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.teacher.run(self.stop)
        except Crash as error:
            self.error = error

    def until(self, condition: Callable[[], bool]) -> None:
        self.thread.start()
        waiting = threading.Event()
        for _ in range(600):
            if condition() or not self.thread.is_alive():
                break
            waiting.wait(0.02)
        self.stop.set()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self.teacher.panel.close()
        if self.error is None:
            self.pipe.close()


def test_what_cannot_be_answered_is_asked_once_a_record() -> None:
    """Not again after a commit that failed, but when it is put back from the dead letters."""
    asked = 0

    def ask(task: Task, text: Any, *, timeout: float) -> Answer:
        nonlocal asked
        asked += 1
        raise CannotAnswer("no")

    clock = SystemClock()
    panel = Panel(
        ask,
        policy=Policy(1),
        limits=Limits(timeout=5.0, batch=20.0, patience=600.0, concurrency=1),
        clock=clock,
        wait=lambda _: False,
        on_answer=lambda: None,
    )
    for offset, calls in ((3, 1), (3, 1), (8, 2)):
        again = message(deferral(), offset=offset)
        teach([again], rules=RULES, ask_all=panel.ask_all, reject=REJECT, clock=clock)
        assert asked == calls
    panel.close()


def broker_with(n: int) -> MemoryBroker:
    broker = MemoryBroker()
    for topic in ("deferred", "decisions", "traces.raw", "dead-letters"):
        broker.create_topic(topic)
    broker.publish(
        Record("deferred", f"r{number}".encode(), encode(deferral(number=number)), HEADERS)
        for number in range(n)
    )
    return broker


def decided(broker: MemoryBroker) -> list[str]:
    return [decode(m.value, Decision).request_id for m in broker.messages("decisions")]


@pytest.mark.parametrize(
    "behaviour",
    [
        {},
        {"fail_every": 3, "fail_status": 500},
        {"hang_every": 20},
    ],
    ids=["well", "500s", "hangs"],
)
def test_end_to_end_every_deferral_is_decided_once(
    recorded: Callable[..., RecordedLLM], behaviour: dict[str, Any]
) -> None:
    n = 60
    broker = broker_with(n)
    running = Running(recorded(**behaviour), broker, timeout=0.5, teacher_max_batch=16)
    running.until(lambda: len(broker.messages("decisions")) >= n)
    assert sorted(decided(broker)) == sorted(f"r{number}" for number in range(n))
    assert len(broker.messages("traces.raw")) == n
    assert broker.messages("dead-letters") == []
    assert {decode(m.value, Decision).label for m in broker.messages("decisions")} == {"refund"}


def test_answers_are_kept_while_the_rest_of_the_batch_is_turned_away(
    recorded: Callable[..., RecordedLLM],
) -> None:
    broker = broker_with(3)
    llm = recorded(fail_every=2, fail_status=429)  # with Retry-After: 1
    Running(llm, broker, attempts=1).until(lambda: len(decided(broker)) == 3)
    assert sorted(decided(broker)) == ["r0", "r1", "r2"]
    assert llm.calls <= 6, "what was answered is not asked again"


def test_a_crash_between_answer_and_commit_loses_nothing(
    recorded: Callable[..., RecordedLLM],
) -> None:
    broker = broker_with(5)
    llm = recorded()
    first = Running(llm, broker)
    first.pipe.crash_next_commit(CrashPoint.BEFORE_PUBLISH)
    first.until(lambda: False)
    assert first.error is not None
    assert decided(broker) == []
    Running(llm, broker).until(lambda: len(decided(broker)) == 5)
    assert sorted(decided(broker)) == [f"r{number}" for number in range(5)]


def test_nothing_is_read_before_the_endpoint_lets_us_in(
    recorded: Callable[..., RecordedLLM],
) -> None:
    broker = broker_with(1)
    running = Running(recorded(api_key="another"), broker)
    running.until(lambda: "401" in running.health.readiness()[1])
    ready, why = running.health.readiness()
    assert not ready
    assert "refuses the API key (401)" in why
    assert decided(broker) == []


def test_a_passing_fault_that_lasts_is_retryable() -> None:
    def ask_all(questions: Sequence[Question]) -> dict[Any, Reply]:
        raise Retryable("1 of 1 not answered")

    with pytest.raises(Retryable):
        teach(
            [message(deferral())], rules=RULES, ask_all=ask_all, reject=REJECT, clock=FakeClock(NOW)
        )


def test_settings_are_safe_to_print() -> None:
    settings = TeacherSettings(teacher_api_key=SecretStr("sk-secret"))
    assert "sk-secret" not in repr(settings)
    assert "sk-secret" not in str(settings.describe())
