"""Every example goes through the handler that reads its topic, as a service would call it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate

from services.ctl.demo.traffic import Traffic
from services.ingest.handlers import Rules as IngestRules
from services.ingest.handlers import accept
from services.router.handlers import Router, Topics
from services.router.serving import Serving
from services.router.surrogate import load_version
from services.teacher.answers import Answer
from services.teacher.handlers import Rules as TeacherRules
from services.teacher.handlers import teach
from services.teacher.panel import Reply
from services.trainer.handlers import Collector
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter, redrive
from shared.bus.errors import InvalidMessage
from shared.clock import FakeClock
from shared.contracts.codec import decode
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.events import (
    Decision,
    Deferral,
    ModelAnnouncement,
    RawTrace,
    Reason,
    Tokens,
    Trace,
)
from shared.contracts.tasks import Task, load_tasks
from shared.contracts.taxonomy import Taxonomy
from shared.contracts.topics import Topic
from shared.core.window import WindowBook
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from tests.contract.schema_tools import validator_of
from tests.contract.test_examples import examples_of

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2027, 1, 1, tzinfo=UTC)
EXAMPLE_TASKS = load_tasks(ROOT / "config" / "tasks.yaml")

REJECT = rejecting("teacher", Topic.DEAD_LETTERS, FakeClock(NOW))


def read(topic: Topic, path: Path) -> Message:
    stamp = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1000)
    return Message(topic.value, 0, 0, b"key", path.read_bytes(), (), stamp)


def tasks_for(message: Message) -> dict[str, Task]:
    """The example tasks, and the example's own where it names another."""
    raw = json.loads(message.value)
    name = raw.get("task") or raw["request"]["task"]
    return EXAMPLE_TASKS if name in EXAMPLE_TASKS else {**EXAMPLE_TASKS, name: Task(name=name)}


def refuse(message: Message, error: InvalidMessage) -> Record:
    raise AssertionError(f"refused: {error.field}: {error}")


@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.TRACES_RAW))
def test_ingest_accepts_it(topic: Topic, path: Path) -> None:
    message = read(topic, path)
    rules = IngestRules(
        taxonomies={n: Taxonomy(t) for n, t in tasks_for(message).items()},
        future_tolerance=timedelta(days=1),
        raw_topic=topic,
        traces_topic=Topic.TRACES,
    )
    accepted = accept(message, rules=rules, now=NOW)
    assert accepted.trace.id == json.loads(message.value)["id"]
    assert accepted.record.topic == Topic.TRACES
    validator_of(Topic.TRACES).validate(json.loads(accepted.record.value))


@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.TRACES))
def test_the_trainer_stores_it(topic: Topic, path: Path, tmp_path: Path) -> None:
    message = read(topic, path)
    store = WindowStore(str(tmp_path))
    clock = FakeClock(NOW)
    collector = Collector(
        tasks=tasks_for(message),
        store=store,
        windows=WindowBook(timedelta(0), timedelta(seconds=1), timedelta(seconds=1)),
        clock=clock,
        dead_letter=refuse,
    )
    collector.add([message], [0])
    clock.sleep(2)
    (key,) = list(collector.close_due())
    trace = decode(message.value, Trace)
    (row,) = store.read(key.task, [key.day]).to_pylist()
    assert row["id"] == trace.id
    assert row["teacher"] == trace.teacher
    assert row["occurred_at"] == trace.occurred_at
    assert row["observation_probability"] == trace.observation_probability


@pytest.mark.parametrize("active", [True, False], ids=["with a version", "without one"])
@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.REQUESTS))
def test_the_router_decides_it(topic: Topic, path: Path, active: bool) -> None:
    message = read(topic, path)
    encoder = HashEncoder()
    tasks = tasks_for(message)
    version = load_version("v", make_surrogate(encoder), encoder, threads=1)
    router = Router(
        tasks=tasks,
        serving=lambda: dict.fromkeys(tasks, Serving(version)) if active else {},
        encoder=encoder,
        clock=FakeClock(NOW),
        topics=Topics(decisions=Topic.DECISIONS, deferred=Topic.DEFERRED),
        dead_letter=refuse,
    )
    record, *audit = router([message])
    for each in (record, *audit):
        validator_of(Topic(each.topic)).validate(json.loads(each.value))
    if record.topic == Topic.DEFERRED:
        reason = decode(record.value, Deferral).reason
        assert (reason is Reason.NO_ACTIVE_VERSION) is not active
    else:
        assert decode(record.value, Decision).version == "v"


@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.DEFERRED))
def test_the_teacher_answers_it(topic: Topic, path: Path) -> None:
    message = read(topic, path)
    tasks = tasks_for(message)
    task = tasks[decode(message.value, Deferral).request.task]
    label = task.labels[0] if task.labels else "billing"
    rules = TeacherRules(
        tasks=tasks,
        taxonomies={n: Taxonomy(t) for n, t in tasks.items()},
        deferred_topic=topic,
        decisions_topic=Topic.DECISIONS,
        raw_topic=Topic.TRACES_RAW,
    )

    def ask_all(questions: Any) -> Any:
        answer = Answer(label, "m", Tokens(input=10, output=2))
        return {question.key: Reply(answer, 0.1) for question in questions}

    records = teach([message], rules=rules, ask_all=ask_all, reject=REJECT, clock=FakeClock(NOW))
    for record in records:
        validator_of(Topic(record.topic)).validate(json.loads(record.value))
    raw = [decode(r.value, RawTrace) for r in records if r.topic == Topic.TRACES_RAW]
    assert [trace.teacher for trace in raw] == [label]


@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.DECISIONS, Topic.MODELS))
def test_the_observer_counts_it(topic: Topic, path: Path) -> None:
    message = read(topic, path)

    class Source:
        def poll(self, max_messages: int, timeout: float) -> list[Message]:
            return [message]

    traffic = Traffic(None, Source(), "", FakeClock(NOW), lambda: None)  # type: ignore[arg-type]
    if topic is Topic.DECISIONS:
        request_id = json.loads(message.value)["request_id"]
        (decision,) = traffic.wait_for_decisions([request_id], 1.0)
        assert decision == decode(message.value, Decision)
    else:
        traffic.wait_until(lambda: bool(traffic.announcements), 1.0, "the announcement")
        assert traffic.announcements[0] == decode(message.value, ModelAnnouncement)


@pytest.mark.parametrize(("topic", "path"), examples_of(Topic.DEAD_LETTERS))
def test_it_goes_back_to_where_it_came_from(topic: Topic, path: Path) -> None:
    letter = decode(path.read_bytes(), DeadLetter)
    original = Message(letter.topic, letter.partition, letter.offset, letter.key, letter.value)
    record = dead_letter(
        original,
        service=letter.service,
        error=InvalidMessage(letter.message, field=letter.field or ""),
        at=letter.at,
        topic=topic,
    )
    again = redrive(Message(topic, 0, 0, record.key, record.value, record.headers))
    assert (again.topic, again.key, again.value) == (letter.topic, letter.key, letter.value)
