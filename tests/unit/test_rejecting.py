"""Nothing but dead letters stops a consumer, with the cause; in every service."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doubles import HashEncoder

from services.ingest.handlers import Rules as IngestRules
from services.ingest.handlers import ingest
from services.router.handlers import Router, Topics
from services.teacher.handlers import Rules as TeacherRules
from services.teacher.handlers import teach
from services.trainer.handlers import Collector
from shared.bus.base import Message, Record
from shared.bus.errors import Fatal
from shared.bus.fates import DeadLetterLimit
from shared.clock import FakeClock
from shared.contracts.codec import encode
from shared.contracts.events import RawTrace, Request, Trace
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import taxonomies
from shared.core.window import WindowBook
from shared.rejecting import Rejecting, rejecting
from shared.seen.memory import MemorySeen
from shared.store.parquet import WindowStore
from shared.telemetry import metrics

NOW = datetime(2026, 1, 5, tzinfo=UTC)
CLOCK = FakeClock(NOW)
TASKS = {"support": Task(name="support")}
MOST = 5

Handle = Callable[[Sequence[Message]], object]


def a_router(reject: Rejecting, folder: Path) -> Handle:
    return Router(
        tasks=TASKS, serving=dict, encoder=HashEncoder(), clock=CLOCK,
        topics=Topics("decisions", "deferred"), dead_letter=reject, accepted=reject.accepted,
    )  # fmt: skip


def a_trainer(reject: Rejecting, folder: Path) -> Handle:
    windows = WindowBook(
        lateness=timedelta(hours=1), idle=timedelta(minutes=5),
        partition_idle=timedelta(seconds=30), zones={},
    )  # fmt: skip
    collector = Collector(
        tasks=TASKS, store=WindowStore(str(folder)), windows=windows, clock=CLOCK,
        dead_letter=reject, accepted=reject.accepted,
    )  # fmt: skip
    return lambda messages: collector.add(messages, [0])


def an_ingest(reject: Rejecting, folder: Path) -> Handle:
    rules = IngestRules(
        taxonomies=taxonomies(TASKS), future_tolerance=timedelta(days=1), raw_topic="in",
        traces_topic="traces",
    )  # fmt: skip
    seen = MemorySeen(CLOCK, horizon_seconds=60, max_keys=100)

    async def publish(records: Sequence[Record]) -> None: ...

    def handle(messages: Sequence[Message]) -> None:
        asyncio.run(
            ingest(messages, rules=rules, seen=seen, publish=publish, reject=reject, clock=CLOCK)
        )

    return handle


def a_teacher(reject: Rejecting, folder: Path) -> Handle:
    rules = TeacherRules(
        tasks=TASKS, taxonomies=taxonomies(TASKS), deferred_topic="in",
        decisions_topic="decisions", raw_topic="traces.raw",
    )  # fmt: skip

    def handle(messages: Sequence[Message]) -> None:
        teach(messages, rules=rules, ask_all=lambda questions: {}, reject=reject, clock=CLOCK)

    return handle


GOOD = {
    a_router: encode(Request(id="r", task="support", input="hello")),
    a_trainer: encode(Trace(id="t", task="support", input="hello", teacher="a", occurred_at=NOW)),
    an_ingest: encode(RawTrace(id="t", task="support", input="hello", teacher="a")),
}


def messages(values: Sequence[bytes], first: int = 0) -> list[Message]:
    return [Message("in", 0, first + i, b"k", value) for i, value in enumerate(values)]


@pytest.mark.parametrize("service", [a_router, a_trainer, an_ingest, a_teacher])
def test_too_many_in_a_row_stop_the_consumer_and_name_the_cause(
    service: Callable[[Rejecting, Path], Handle], tmp_path: Path
) -> None:
    reject = rejecting("service", "dead-letters", CLOCK, DeadLetterLimit(MOST))
    handle = service(reject, tmp_path)
    handle(messages([b"{}"] * MOST))
    with pytest.raises(Fatal, match=r"more than 5 dead letters in a row; the last, offset 5 of in"):
        handle(messages([b"{}"], first=MOST))


@pytest.mark.parametrize("service", list(GOOD))
def test_a_good_message_between_them_lets_it_go_on(
    service: Callable[[Rejecting, Path], Handle], tmp_path: Path
) -> None:
    reject = rejecting("service", "dead-letters", CLOCK, DeadLetterLimit(MOST))
    handle = service(reject, tmp_path)
    values = [*[b"{}"] * MOST, GOOD[service]]
    for first in range(0, 60, len(values)):
        handle(messages(values, first=first))


def test_what_comes_through_the_door_says_nothing_of_the_topic(tmp_path: Path) -> None:
    reject = rejecting("service", "dead-letters", CLOCK, DeadLetterLimit(MOST))
    handle = a_router(reject, tmp_path)
    handle(messages([b"{}"] * MOST))
    handle([Message("door", -1, -1, b"k", GOOD[a_router])])
    with pytest.raises(Fatal):
        handle(messages([b"{}"], first=MOST))


def test_a_batch_tried_again_counts_its_dead_letters_once() -> None:
    counted = metrics.DEAD_LETTERS.labels("again", "in", "id")._value.get
    reject = rejecting("again", "dead-letters", CLOCK, DeadLetterLimit(MOST))
    handle = a_router(reject, Path())
    before = counted()
    for _ in range(4):
        handle(messages([b"{}"] * 3))
    assert counted() - before == 3
