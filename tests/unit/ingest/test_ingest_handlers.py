"""Raw traces in, traces and dead letters out: nothing is lost, nothing is guessed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.ingest.handlers import Rules, accept, ingest, sort
from shared.bus.base import Message, Record
from shared.bus.dead_letters import redrive
from shared.bus.errors import InvalidMessage, Retryable
from shared.clock import FakeClock
from shared.contracts.codec import decode
from shared.contracts.dead_letters import CONTEXT_HEADERS
from shared.contracts.events import Opinion, RawTrace, Reason, Source, Tokens, Trace
from shared.contracts.tasks import Task, UnknownLabels
from shared.contracts.taxonomy import taxonomies
from shared.rejecting import rejecting
from shared.seen.base import seen_key
from shared.seen.memory import MemorySeen

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
BROKER_MS = round((NOW - timedelta(minutes=5)).timestamp() * 1000)
TASKS = {
    "support": Task(
        name="support",
        labels=("refund", "card_lost", "other"),
        unknown_labels=UnknownLabels.DEAD_LETTER,
    ),
    "lenient": Task(name="lenient", labels=("a", "other"), unknown_labels=UnknownLabels.OTHER),
    "free": Task(name="free"),
}
RULES = Rules(
    taxonomies=taxonomies(TASKS),
    future_tolerance=timedelta(days=1),
    raw_topic="traces.raw",
    traces_topic="traces",
)
REJECT = rejecting("ingest", "dead-letters", FakeClock(NOW))
GOOD: dict[str, Any] = {"id": "t1", "task": "support", "input": "hello", "teacher": "refund"}


def message(value: bytes, offset: int = 0, **fields: Any) -> Message:
    fields.setdefault("timestamp_ms", BROKER_MS)
    return Message("traces.raw", 0, offset, b"k", value, **fields)


def raw(**changes: Any) -> bytes:
    row = {**GOOD, **changes}
    return json.dumps({name: value for name, value in row.items() if value is not ...}).encode()


def trace_of(value: bytes, **fields: Any) -> Trace:
    return accept(message(value, **fields), rules=RULES, now=NOW).trace


BAD = {
    "nothing": (b"", ""),
    "no JSON": (b"garbage", ""),
    "half a document": (b'{"id": "t1", "task":', ""),
    "not UTF-8": (b'{"id": "\xff"}', ""),
    "an array": (b"[1, 2]", ""),
    "too deep": (b"[" * 5_000 + b"]" * 5_000, ""),
    "too large": (b" " * 1_000_001, ""),
    "no id": (raw(id=...), "id"),
    "empty id": (raw(id=""), "id"),
    "long id": (raw(id="x" * 257), "id"),
    "id a number": (raw(id=7), "id"),
    "no task": (raw(task=...), "task"),
    "unknown task": (raw(task="sales"), "task"),
    "task with a slash": (raw(task="a/b"), "task"),
    "no input": (raw(input=...), "input"),
    "blank input": (raw(input=" \n\t"), "input"),
    "empty input": (raw(input=""), "input"),
    "huge input": (raw(input="x" * 32_769), "input"),
    "half a character": (raw(input="\ud800"), ""),
    "half a pair": (raw(input=["one"]), "input"),
    "pair with a blank": (raw(input=["one", " "]), "input"),
    "no teacher": (raw(teacher=...), "teacher"),
    "null teacher": (raw(teacher=None), "teacher"),
    "blank teacher": (raw(teacher="  "), "teacher"),
    "unknown label": (raw(teacher="refnd"), "teacher"),
    "time without zone": (raw(occurred_at="2026-03-01T00:00:00"), "occurred_at"),
    "no time": (raw(occurred_at="soon"), "occurred_at"),
    "far future": (raw(occurred_at="2026-03-03T00:00:00Z"), "occurred_at"),
    "time out of range": (raw(occurred_at="0001-01-01T00:00:00+14:00"), "occurred_at"),
    "negative cost": (raw(cost=-1), "cost"),
    "negative tokens": (raw(tokens={"input": -1, "output": 0}), "tokens.input"),
    "no probability": (raw(observation_probability=0), "observation_probability"),
    "unknown source": (raw(source="guessed"), "source"),
    "unknown version": (raw(v=2), "v"),
}


@pytest.mark.parametrize(("value", "field"), BAD.values(), ids=BAD)
def test_a_bad_trace_becomes_a_dead_letter_naming_the_field(value: bytes, field: str) -> None:
    accepted, rejected = sort([message(value, offset=41)], rules=RULES, reject=REJECT, now=NOW)
    assert accepted == []
    (letter,) = rejected
    headers = dict(letter.headers)
    assert letter.topic == "dead-letters"
    assert (letter.key, letter.value) == (b"k", value)
    assert headers[CONTEXT_HEADERS["field"]].decode() == field
    assert headers[CONTEXT_HEADERS["message"]]
    assert headers[CONTEXT_HEADERS["offset"]] == b"41"
    assert headers[CONTEXT_HEADERS["service"]] == b"ingest"


def test_an_unknown_task_is_told_the_known_ones() -> None:
    with pytest.raises(InvalidMessage, match="'sales'; known tasks: free, lenient, support"):
        trace_of(raw(task="sales"))


def test_an_unknown_label_is_told_the_nearest_known_one() -> None:
    with pytest.raises(InvalidMessage, match=r"'refnd' is not one .* nearest .*'refund'"):
        trace_of(raw(teacher="refnd"))


def test_everything_of_a_raw_trace_is_kept() -> None:
    value = raw(
        teacher=" Card-Lost ",
        label="REFUND",
        model="gpt",
        tokens={"input": 3, "output": 1},
        cost=0.5,
        metadata={"a": [1, 123456789012345678901234567890]},
        source="deferred",
        observation_probability=0.25,
        deferral_reason="below_threshold",
        opinions=[{"version": "v1", "label": "refund", "handled": False}],
        drawn=True,
        audit_share=0.02,
        prompt="0f1e",
        occurred_at="2026-03-01T11:00:00+02:00",
        something_new=1,
    )
    assert trace_of(value) == Trace(
        id="t1",
        task="support",
        input="hello",
        teacher="card_lost",
        occurred_at=datetime(2026, 3, 1, 9, tzinfo=UTC),
        teacher_model="gpt",
        tokens=Tokens(input=3, output=1),
        cost=0.5,
        label="refund",
        metadata={"a": [1, 123456789012345678901234567890]},
        source=Source.DEFERRED,
        observation_probability=0.25,
        deferral_reason=Reason.BELOW_THRESHOLD,
        opinions=[Opinion(version="v1", label="refund", handled=False)],
        drawn=True,
        audit_share=0.02,
        prompt="0f1e",
    )


def test_every_field_of_a_raw_trace_has_its_place_in_the_trace() -> None:
    renamed = {"model": "teacher_model"}
    raw_fields = {renamed.get(name, name) for name in RawTrace.__struct_fields__}
    assert raw_fields == set(Trace.__struct_fields__)


def test_answers_that_are_no_label_are_counted_whatever_the_policy() -> None:
    """Otherwise nobody learns that half of the answers became `other`."""

    def count() -> float:
        labels = {"service": "ingest", "task": "lenient"}
        return REGISTRY.get_sample_value("tracer_unknown_labels_total", labels) or 0.0

    before = count()
    for teacher in ("a", "A", "other", "what", "why"):
        trace_of(raw(task="lenient", teacher=teacher))
    assert count() - before == 2


def test_labels_by_policy() -> None:
    assert trace_of(raw(task="lenient", teacher="what")).teacher == "other"
    assert trace_of(raw(task="free", teacher=" As Is")).teacher == " As Is"
    assert trace_of(raw(label="unheard of")).label == "unheard of"


def test_the_brokers_time_stands_in_for_a_missing_one() -> None:
    assert trace_of(raw()).occurred_at == NOW - timedelta(minutes=5)
    assert trace_of(raw(), timestamp_ms=-1).occurred_at == NOW


def test_what_is_put_back_without_a_time_belongs_to_the_day_it_first_came() -> None:
    sent = NOW - timedelta(days=9)
    first = message(raw(task="new"), timestamp_ms=round(sent.timestamp() * 1000))
    _, (letter,) = sort([first], rules=RULES, reject=REJECT, now=sent)
    back = redrive(Message(letter.topic, 0, 0, letter.key, letter.value, letter.headers))
    tasks = RULES.taxonomies | taxonomies({"new": Task(name="new")})
    again = message(back.value, headers=back.headers)
    trace = accept(again, rules=replace(RULES, taxonomies=tasks), now=NOW).trace
    assert trace.occurred_at == sent


@pytest.mark.parametrize("stamp", [BROKER_MS + 2 * 86_400_000, 2**62])
def test_a_brokers_time_in_the_future_is_refused(stamp: int) -> None:
    with pytest.raises(InvalidMessage) as raised:
        trace_of(raw(), timestamp_ms=stamp)
    assert raised.value.field == "occurred_at"


def test_within_the_tolerance_the_future_is_accepted() -> None:
    assert trace_of(raw(occurred_at="2026-03-02T11:59:00Z")).occurred_at > NOW


def test_headers_pass_through_and_the_id_is_the_key() -> None:
    headers = (("traceparent", b"00-aa-bb-01"), ("x", b""), ("x", b"2"))
    record = accept(message(raw(), headers=headers), rules=RULES, now=NOW).record
    assert record.headers == headers
    assert (record.topic, record.key) == ("traces", b"t1")
    assert decode(record.value, Trace).id == "t1"


def test_a_record_too_large_for_the_topic_is_a_dead_letter() -> None:
    headers = (("big", b"x" * 1_045_000),)
    with pytest.raises(InvalidMessage, match="of at most"):
        trace_of(raw(), headers=headers)


@given(st.binary(max_size=300))
def test_no_bytes_whatever_get_past_as_anything_but_a_reason(value: bytes) -> None:
    accepted, rejected = sort([message(value)], rules=RULES, reject=REJECT, now=NOW)
    assert len(accepted) + len(rejected) == 1


@given(
    st.dictionaries(
        st.sampled_from([*RawTrace.__struct_fields__, "unknown"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=3),
            max_leaves=5,
        ),
    )
)
def test_no_document_whatever_raises_anything_else(document: dict[str, Any]) -> None:
    value = msgspec.json.encode({**GOOD, **document})
    accepted, rejected = sort([message(value)], rules=RULES, reject=REJECT, now=NOW)
    for item in accepted:
        assert decode(item.record.value, Trace) == item.trace
    assert len(accepted) + len(rejected) == 1


class Broker:
    """Collects what is published; fails while told to."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.down = False

    async def __call__(self, records: Sequence[Record]) -> None:
        if self.down:
            raise Retryable("down")
        self.records += records


def batch(*values: bytes) -> list[Message]:
    return [message(value, offset=n) for n, value in enumerate(values)]


def test_a_batch_repeats_dropped_and_the_rest_in_order() -> None:
    async def check() -> None:
        broker, clock = Broker(), FakeClock(NOW)
        seen = MemorySeen(clock, horizon_seconds=60)

        async def feed(*values: bytes) -> list[tuple[str, bytes | None]]:
            broker.records.clear()
            await ingest(
                batch(*values), rules=RULES, seen=seen, publish=broker, reject=REJECT, clock=clock
            )
            return [(record.topic, record.key) for record in broker.records]

        first = await feed(raw(id="a"), b"junk", raw(id="b"), raw(id="a"))
        assert first == [("traces", b"a"), ("traces", b"b"), ("dead-letters", b"k")]
        assert await feed(raw(id="b"), raw(id="c")) == [("traces", b"c")]
        assert await feed(raw(id="b", task="free")) == [("traces", b"b")], "ids are per task"
        assert await feed(raw(id="b")) == []
        clock.sleep(61)
        assert await feed(raw(id="b")) == [("traces", b"b")], "past the horizon"

    asyncio.run(check())


def test_what_was_not_published_is_not_marked_as_seen() -> None:
    async def check() -> None:
        broker, clock = Broker(), FakeClock(NOW)
        seen = MemorySeen(clock, horizon_seconds=60)
        broker.down = True
        with pytest.raises(Retryable):
            await ingest(
                batch(raw()), rules=RULES, seen=seen, publish=broker, reject=REJECT, clock=clock
            )
        assert await seen.contains([seen_key("support", "t1")]) == [False]
        broker.down = False
        await ingest(
            batch(raw()), rules=RULES, seen=seen, publish=broker, reject=REJECT, clock=clock
        )
        assert [record.key for record in broker.records] == [b"t1"]
        assert await seen.contains([seen_key("support", "t1")]) == [True]

    asyncio.run(check())
