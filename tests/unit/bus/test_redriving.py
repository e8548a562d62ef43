"""Dead letters in their topic: which are there, which were put back, and putting them back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from shared.bus.base import Message, Record
from shared.bus.dead_letters import CUT, dead_letter
from shared.bus.errors import InvalidMessage, Retryable
from shared.bus.memory import MemoryPublisher
from shared.bus.memory_broker import MemoryBroker
from shared.bus.redriving import (
    COUNT_HEADER,
    MARKER_BY,
    MARKER_HEADER,
    MOST_REDRIVES,
    Which,
    letters_of,
    plan,
    put_back,
    topics_taking_back,
    what_of_those_before,
)
from shared.contracts.mapping import SourceMapping
from shared.contracts.tasks import Task

AT = datetime(2026, 1, 5, 12, tzinfo=UTC)
EVERY = Which()
DEAD, RAW = "p-dead-letters", "p-traces.raw"
ORIGINAL = Message(RAW, 2, 7, b"k", b'{"task": "support"}', (("traceparent", b"00-1"),))


class Log:
    """A dead-letter topic of one partition, and what else was published; written to with
    transactions, but for what `refuses` says: records of this topic alone are not taken."""

    def __init__(self) -> None:
        self.dead: list[Message] = []
        self.records: list[Record] = []
        self.fails_after: int | None = None
        self.refuses: str | None = None

    def publish(self, records: Sequence[Record]) -> None:
        if self.fails_after is not None:
            if self.fails_after == 0:
                raise Retryable("broker away")
            self.fails_after -= 1
        for record in records:
            if record.topic == self.refuses:
                continue
            if record.topic == DEAD:
                at = len(self.dead)
                self.dead.append(Message(DEAD, 0, at, record.key, record.value, record.headers))
            else:
                self.records.append(record)
        if any(record.topic == self.refuses for record in records):
            raise Retryable(f"{self.refuses} takes none")

    def close(self) -> None: ...

    def die(self, message: Message = ORIGINAL, *, minutes: int = 0, **about: str) -> None:
        error = InvalidMessage(about.get("why", "no such label"), field="teacher")
        letter = dead_letter(
            message,
            service=about.get("service", "ingest"),
            error=error,
            at=AT + timedelta(minutes=minutes),
            topic=DEAD,
            stage=about.get("stage", "handle"),
        )
        self.publish([letter])

    def redrive(
        self, which: Which = EVERY, most: int = MOST_REDRIVES, *, transactions: bool = True
    ) -> int:
        letters = [s for s in letters_of(self.dead)[0] if which.matches(s)]
        made = plan(letters, topics=[RAW], most_redrives=most)
        return put_back(made.ready, self, transactions=transactions, by="maria", at=AT)


def test_a_letter_is_put_back_as_it_was_and_counted() -> None:
    log = Log()
    log.die()
    assert log.redrive() == 1
    (record,) = log.records
    assert (record.topic, record.key, record.value) == (RAW, b"k", ORIGINAL.value)
    assert record.headers == (("traceparent", b"00-1"), (COUNT_HEADER, b"1"))
    marker = dict(log.dead[1].headers)
    assert marker[MARKER_HEADER] == b"0:0"
    (stored,), strangers = letters_of(log.dead)
    assert (stored.redriven_by, strangers) == ("maria", 0)


@pytest.mark.parametrize("key", [b"k", None])
def test_a_marker_goes_to_the_partition_of_its_letter(key: bytes | None) -> None:
    broker = MemoryBroker()
    broker.create_topic(DEAD, 5)
    broker.create_topic(RAW)
    for offset in range(20):
        error = InvalidMessage("no such label")
        message = replace(ORIGINAL, key=key, offset=offset)
        broker.publish([dead_letter(message, service="s", error=error, at=AT, topic=DEAD)])
    letters, _ = letters_of(broker.messages(DEAD))
    put_back(letters, MemoryPublisher(broker), transactions=True, by="maria", at=AT)
    markers = [m for m in broker.messages(DEAD) if not m.value]
    assert len(markers) == 20
    for marker in markers:
        named = dict(marker.headers)[MARKER_HEADER].decode()
        assert named.partition(":")[0] == str(marker.partition)


def test_nothing_is_put_back_twice() -> None:
    log = Log()
    log.die()
    assert [log.redrive(), log.redrive(), log.redrive()] == [1, 0, 0]
    ((_, why),) = plan(letters_of(log.dead)[0], topics=[RAW]).refused
    assert why.startswith("put back by maria at 2026-01-05")


def test_some_places_alone_are_read_and_known_to_be_put_back() -> None:
    log = Log()
    for minutes in range(4):
        log.die(minutes=minutes)
    letters, _ = letters_of(log.dead)
    put_back(letters[1:2], log, transactions=True, by="maria", at=AT)
    some, _ = letters_of(log.dead, {letters[1].place, letters[3].place, "9:9"})
    assert [(s.place, s.redriven_by) for s in some] == [("0:1", "maria"), ("0:3", None)]


def test_what_dies_again_is_put_back_only_so_often() -> None:
    log = Log()
    log.die()
    for times in range(1, MOST_REDRIVES + 1):
        assert log.redrive() == 1
        again = log.records[-1]
        assert dict(again.headers)[COUNT_HEADER] == str(times).encode()
        log.die(Message(RAW, 2, 7 + times, again.key, again.value, again.headers))
    assert log.redrive() == 0
    *_, (last, why) = plan(letters_of(log.dead)[0], topics=[RAW]).refused
    assert last.redrives == MOST_REDRIVES
    assert why == "put back 3 times already, and it died again"
    assert log.redrive(most=MOST_REDRIVES + 1) == 1


def test_after_a_failure_the_rest_is_put_back_by_another_call() -> None:
    log = Log()
    for offset in range(250):
        log.die(replace(ORIGINAL, offset=offset, key=str(offset).encode()))
    log.fails_after = 1
    with pytest.raises(Retryable):
        log.redrive()
    log.fails_after = None
    assert log.redrive() == 150
    assert sorted(int(r.key or b"") for r in log.records) == list(range(250))


def test_without_transactions_no_letter_is_lost_while_its_topic_takes_none() -> None:
    log = Log()
    for offset in range(3):
        log.die(replace(ORIGINAL, offset=offset))
    log.refuses = RAW
    with pytest.raises(Retryable):
        log.redrive(transactions=False)
    log.refuses = None
    assert log.redrive(transactions=False) == 3
    assert len(log.records) == 3
    assert log.redrive(transactions=False) == 0


def test_without_transactions_what_was_not_marked_is_put_back_twice_at_most() -> None:
    """As is said then, and not with transactions."""
    log = Log()
    log.die()
    log.refuses = DEAD
    with pytest.raises(Retryable):
        log.redrive(transactions=False)
    log.refuses = None
    assert [log.redrive(transactions=False), log.redrive(transactions=False)] == [1, 0]
    assert len(log.records) == 2
    assert "up to 100" in what_of_those_before(transactions=False)
    assert "not put back twice" in what_of_those_before(transactions=True)


def test_with_transactions_originals_and_markers_are_one() -> None:
    log = Log()
    for offset in range(3):
        log.die(replace(ORIGINAL, offset=offset))
    log.fails_after = 1  # more than one publish would fail
    assert log.redrive() == 3


def test_only_topics_that_take_messages_back_get_any() -> None:
    log = Log()
    log.die(replace(ORIGINAL, topic="p-decisions"))
    log.die(replace(ORIGINAL, topic=DEAD))
    assert log.redrive() == 0
    assert log.records == []


def test_topics_of_other_systems_that_a_task_names_take_messages_back_without_a_prefix() -> None:
    sources = [{"format": "litellm", "topic": "litellm.logs"}, {"format": "jsonl"}]
    task = Task(name="support", sources=msgspec.convert(sources, tuple[SourceMapping, ...]))
    topics = topics_taking_back([task, Task(name="other")], "p-")
    assert topics == ["p-traces.raw", "p-traces", "p-requests", "p-deferred", "litellm.logs"]
    log = Log()
    log.die(replace(ORIGINAL, topic="litellm.logs"))
    assert len(plan(letters_of(log.dead)[0], topics=topics).ready) == 1
    ((_, why),) = plan(letters_of(log.dead)[0], topics=[RAW]).refused
    assert "TRACER_TASKS" in why


def test_a_letter_that_was_cut_is_refused_and_holds_up_no_other() -> None:
    log = Log()
    log.die(replace(ORIGINAL, value=b" " * 3_000_000))
    log.die()
    ((_, why),) = plan(letters_of(log.dead)[0], topics=[RAW]).refused
    assert f"the whole is on {RAW}, partition 2, offset 7" in why
    assert log.redrive() == 1


@pytest.mark.parametrize(
    ("which", "matched"),
    [
        (Which(), [0, 1, 2]),
        (Which(task="support"), [0, 2]),
        (Which(task="other"), [1]),
        (Which(service="teacher"), [1]),
        (Which(stage="decode"), [2]),
        (Which(reason="NO SUCH"), [0, 2]),
        (Which(reason="InvalidMessage"), [0, 1, 2]),
        (Which(topics=(RAW, "other")), [0, 2]),
        (Which(field="input"), []),
        (Which(since=AT + timedelta(minutes=1)), [1, 2]),
        (Which(until=AT + timedelta(minutes=1)), [0]),
        (Which(places=("0:1", "0:9")), [1]),
        (Which(task="support", since=AT + timedelta(minutes=2)), [2]),
    ],
)
def test_which_letters(which: Which, matched: list[int]) -> None:
    log = Log()
    log.die()
    deferral = json.dumps({"request": {"task": "other"}}).encode()
    log.die(
        Message("p-deferred", 0, 3, b"d", deferral), minutes=1, service="teacher", why="garbage"
    )
    log.die(minutes=2, stage="decode")
    letters, _ = letters_of(log.dead)
    assert [s.message.offset for s in letters if which.matches(s)] == matched


@pytest.mark.parametrize("value", [b"", b"\xff", b"[1]", b"7", b'{"task": 1}', b"[" * 100_000])
def test_a_task_nobody_can_read_is_none(value: bytes) -> None:
    log = Log()
    log.die(replace(ORIGINAL, value=value))
    assert letters_of(log.dead)[0][0].task is None


def test_records_that_are_no_letters_are_counted_and_hide_none() -> None:
    log = Log()
    log.publish([Record(DEAD, b"x", b"who knows")])
    log.die()
    letters, strangers = letters_of(log.dead)
    assert (len(letters), strangers) == (1, 1)


@pytest.mark.parametrize("value", [ORIGINAL.value, b""])
def test_a_header_from_outside_hides_no_letter_and_marks_none(value: bytes) -> None:
    log = Log()
    log.die()
    outside = ((MARKER_HEADER, b"0:0"), (MARKER_BY, b"nobody"), (CUT, b"1"))
    log.die(replace(ORIGINAL, value=value, headers=(*ORIGINAL.headers, *outside)))
    # One that was made before such headers were left out.
    bare, context = log.dead[0].headers[:1], log.dead[0].headers[1:]
    log.dead.append(Message(DEAD, 0, 2, b"k", value, (*bare, *outside[:2], *context)))
    letters, strangers = letters_of(log.dead)
    assert [(s.place, s.redriven_by) for s in letters] == [
        ("0:0", None),
        ("0:1", None),
        ("0:2", None),
    ]
    assert strangers == 0
    assert letters[1].letter.headers == ORIGINAL.headers
    assert log.redrive() == 3
    assert [s.redriven_by for s in letters_of(log.dead)[0]] == ["maria"] * 3


def test_a_marker_is_empty() -> None:
    log = Log()
    log.die()
    log.publish([Record(DEAD, b"k", b"not empty", ((MARKER_HEADER, b"0:0"),))])
    (stored,), strangers = letters_of(log.dead)
    assert (stored.redriven_by, strangers) == (None, 1)


@pytest.mark.parametrize("count", [b"", b"-1", b"many", b"\xff", b"9999999"])
def test_a_count_from_outside_is_no_trouble(count: bytes) -> None:
    log = Log()
    log.die(replace(ORIGINAL, headers=((COUNT_HEADER, count),)))
    assert letters_of(log.dead)[0][0].redrives == 0
    log.redrive()
    assert log.records[0].headers == ((COUNT_HEADER, b"1"),)
