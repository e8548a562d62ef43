"""What the router accepts travels to the teacher and back, whatever its size and depth."""

from __future__ import annotations

import msgspec
import pytest

from shared.bus.base import MAX_RECORD_BYTES, Message
from shared.bus.dead_letters import read_dead_letter
from shared.contracts.codec import MAX_EVENT_BYTES, MAX_ROUTED_BYTES, MAX_SENT_BYTES
from shared.contracts.depth import MAX_DEPTH
from shared.contracts.topics import Topic, load_topics
from tests.fuzzing.handlers import Handlers, as_read


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


def request(size: int, grows: int) -> bytes:
    """Of `size` bytes; written again it has `grows` more."""
    numbers = b",".join([b"1e15"] * (grows // 14))  # 1e15 becomes 1000000000000000.0
    start = b'{"id":"r","task":"support","input":"unlike anything","metadata":{"n":[%s],"s":"'
    start %= numbers
    end = b'"}}'
    return start + b"x" * (size - len(start) - len(end)) + end


@pytest.mark.parametrize("grows", range(0, 160_000, 10_000))
def test_a_request_becomes_a_trace_or_is_refused_at_once(handlers: Handlers, grows: int) -> None:
    records = handlers.hold(Topic.REQUESTS, request(MAX_SENT_BYTES, grows))
    if [record.topic for record in records] == [Topic.DEAD_LETTERS]:
        assert grows > 45_000
        letter = read_dead_letter(as_read(records[0]))
        assert letter.field == "metadata"
        assert str(MAX_ROUTED_BYTES) in letter.message
        return
    assert [record.topic for record in records] == [Topic.DEFERRED]
    taught = handlers.hold(Topic.DEFERRED, records[0].value)
    assert [record.topic for record in taught] == [Topic.DECISIONS, Topic.TRACES_RAW]
    (trace,) = handlers.hold(Topic.TRACES_RAW, taught[1].value)
    assert trace.topic == Topic.TRACES
    assert handlers.hold(Topic.TRACES, trace.value) == []


@pytest.mark.parametrize("numbers", range(6_000, 14_000, 500))
def test_a_raw_trace_becomes_a_trace_that_is_read_or_is_refused_at_once(
    handlers: Handlers, numbers: int
) -> None:
    raw = {"id": "r", "task": "support", "input": "a", "teacher": "billing"}
    raw["occurred_at"] = "2026-12-31T12:00:00Z"
    data = msgspec.json.encode({**raw, "metadata": {"s": "x" * 850_000, "n": "N"}})
    data = data.replace(b'"N"', b"[%s]" % b",".join([b"1e15"] * numbers))
    (record,) = handlers.hold(Topic.TRACES_RAW, data)
    if record.topic == Topic.TRACES:
        assert handlers.hold(Topic.TRACES, record.value) == []


def test_headers_that_no_trace_could_carry_are_named(handlers: Handlers) -> None:
    value = request(MAX_SENT_BYTES, 0)
    (letter,) = handlers.router([Message("requests", 0, 0, b"r", value, (("h", b"x" * 60_000),))])
    assert read_dead_letter(as_read(letter)).field == "headers"


def test_the_limits_leave_room_for_each_other() -> None:
    assert MAX_SENT_BYTES < MAX_ROUTED_BYTES < MAX_EVENT_BYTES < MAX_RECORD_BYTES
    assert all(spec.max_message_bytes > MAX_RECORD_BYTES for spec in load_topics().values())


def nested(start: str, depth: int) -> bytes:
    """`start`, and metadata whose objects are nested `depth` deep, itself one of them."""
    return start.encode() + b',"metadata":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


@pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, *range(985, 1_000)])
def test_metadata_of_any_depth_goes_all_the_way_or_is_refused_at_once(
    handlers: Handlers, depth: int
) -> None:
    """What a service could read but not write again, a level deeper, ended every one of a fleet."""
    start = '{"id":"r","task":"support","input":"unlike anything"'
    records = handlers.hold(Topic.REQUESTS, nested(start, depth))
    if depth > MAX_DEPTH:
        (letter,) = map(read_dead_letter, map(as_read, records))
        assert letter.field == ("metadata" if "nested" in letter.message else "")
        return
    (deferral,) = records
    taught = handlers.hold(Topic.DEFERRED, deferral.value)
    assert [record.topic for record in taught] == [Topic.DECISIONS, Topic.TRACES_RAW]
    (trace,) = handlers.hold(Topic.TRACES_RAW, taught[1].value)
    assert handlers.hold(Topic.TRACES, trace.value) == []


@pytest.mark.parametrize("topic", [Topic.TRACES_RAW, Topic.TRACES])
@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ('"tokens":{"input":9223372036854775808,"output":1}', "tokens"),
        ('"source":"audited","observation_probability":1e-200', "observation_probability"),
    ],
)
def test_amounts_that_no_window_could_hold_or_weigh_are_refused(
    handlers: Handlers, topic: Topic, extra: str, field: str
) -> None:
    """The first ended the trainer whenever the window closed, the second refused its every fit."""
    start = '{"id":"r","task":"support","input":"a","teacher":"billing",'
    data = f'{start}"occurred_at":"2026-12-31T12:00:00Z",{extra}}}'
    (letter,) = map(read_dead_letter, map(as_read, handlers.hold(topic, data.encode())))
    assert letter.field == field
