"""Every service's handler, ready to be given any bytes; what must hold whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from doubles import HashEncoder
from surrogates import LABELS, make_surrogate

from services.ingest.handlers import Rules as IngestRules
from services.ingest.handlers import sort
from services.router.calls import Problem, Unusable, read_call
from services.router.handlers import Router, Topics
from services.router.serving import Serving
from services.router.surrogate import load_version
from services.teacher.answers import Answer
from services.teacher.handlers import Rules as TeacherRules
from services.teacher.handlers import teach
from services.teacher.panel import Reply
from services.trainer.handlers import Collector
from shared.bus.base import MAX_RECORD_BYTES, Message, Record
from shared.bus.dead_letters import read_dead_letter, redrive
from shared.clock import FakeClock
from shared.contracts.events import Tokens
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import Taxonomy
from shared.contracts.topics import Topic
from shared.core.window import WindowBook
from shared.rejecting import rejecting

NOW = datetime(2027, 1, 1, tzinfo=UTC)
TASKS = {name: Task(name=name, labels=LABELS) for name in ("support", "intents")}


@dataclass
class Handlers:
    """One of each; `results` gives what became of a message, by the topic it is read from."""

    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        encoder = HashEncoder()
        version = load_version("v", make_surrogate(encoder), encoder, threads=1)
        self.router = Router(
            tasks=TASKS,
            serving=lambda: dict.fromkeys(TASKS, Serving(version)),
            encoder=encoder,
            clock=self.clock,
            topics=Topics(decisions=Topic.DECISIONS, deferred=Topic.DEFERRED),
            dead_letter=rejecting("router", Topic.DEAD_LETTERS, self.clock),
        )
        taxonomies = {name: Taxonomy(task) for name, task in TASKS.items()}
        self.ingest = IngestRules(
            taxonomies=taxonomies,
            future_tolerance=timedelta(days=1),
            raw_topic=Topic.TRACES_RAW,
            traces_topic=Topic.TRACES,
        )
        self.teacher = TeacherRules(
            tasks=TASKS,
            taxonomies=taxonomies,
            deferred_topic=Topic.DEFERRED,
            decisions_topic=Topic.DECISIONS,
            raw_topic=Topic.TRACES_RAW,
        )
        self.results: dict[Topic, Callable[[Message], list[Record]]] = {
            Topic.TRACES_RAW: self._ingest,
            Topic.TRACES: self._collect,
            Topic.REQUESTS: lambda message: self.router([message]),
            Topic.DEFERRED: self._teach,
        }

    def hold(self, topic: Topic, value: bytes) -> list[Record]:
        """Handles it, and checks what must hold; returns the records it became.

        Either it was used, or there is one dead letter that says why, holds it unchanged, and can
        be sent again. Nothing it becomes is larger than a broker takes.
        """
        message = Message(topic.value, 0, 7, b"key", value, (("h", b"\xff"),), 1)
        records = self.results[topic](message)
        letters = [record for record in records if record.topic == Topic.DEAD_LETTERS]
        assert len(letters) <= 1
        for record in letters:
            letter = read_dead_letter(as_read(record))
            assert letter.message.strip()
            assert "Traceback" not in letter.message
            assert "\n" not in letter.message
            assert redrive(as_read(record)).value == value
        for record in records:
            if record.topic != Topic.DEAD_LETTERS:
                assert record.size <= MAX_RECORD_BYTES
                json.loads(record.value)
        return records

    def call(self, body: bytes) -> None:
        """The same of a call of the door: requests, or problems that say what to send."""
        try:
            made = read_call(body, self.router.check)
        except Unusable as error:
            _says_why(error.problem)
            return
        json.loads(made.answer([b"{}"] * len(made.requests)))

    def _ingest(self, message: Message) -> list[Record]:
        accepted, rejected = sort(
            [message],
            rules=self.ingest,
            reject=rejecting("ingest", Topic.DEAD_LETTERS, self.clock),
            now=NOW,
        )
        assert len(accepted) + len(rejected) == 1
        assert all(len(item.key) == 16 for item in accepted)
        return [*(item.record for item in accepted), *rejected]

    def _collect(self, message: Message) -> list[Record]:
        collector = Collector(
            tasks=TASKS,
            store=_NoStore(),
            windows=WindowBook(timedelta(0), timedelta(seconds=1), timedelta(seconds=1)),
            clock=self.clock,
            dead_letter=rejecting("trainer", Topic.DEAD_LETTERS, self.clock),
        )
        collector.add([message], [0])
        self.clock.sleep(2)
        list(collector.close_due())
        return collector.rejected

    def _teach(self, message: Message) -> list[Record]:
        def ask_all(questions: Any) -> Any:
            answer = Answer(LABELS[0], "m", Tokens(input=10, output=2))
            return {question.key: Reply(answer, 0.1) for question in questions}

        return teach(
            [message],
            rules=self.teacher,
            ask_all=ask_all,
            reject=rejecting("teacher", Topic.DEAD_LETTERS, self.clock),
            clock=self.clock,
        )


class _NoStore:
    def write(self, task: str, day: Any, traces: Any, offsets: Any = None) -> int:
        return len(list(traces))


def _says_why(problem: Problem) -> None:
    assert problem.message
    assert problem.fix


def as_read(record: Record) -> Message:
    return Message(record.topic, 0, 0, record.key, record.value, record.headers)
