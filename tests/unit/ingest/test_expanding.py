"""Records of source topics in ingest's handler: several traces a record, one dead letter a call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from services.ingest.expanding import Tally
from services.ingest.handlers import Rules, sort
from shared.bus.base import Message
from shared.bus.dead_letters import read_dead_letter, redrive
from shared.bus.errors import Fatal
from shared.bus.fates import DeadLetterLimit
from shared.clock import FakeClock
from shared.contracts.codec import decode
from shared.contracts.events import RawTrace, Trace
from shared.contracts.mapping import SourceMapping
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import taxonomies
from shared.contracts.topics import schemas_folder
from shared.rejecting import Rejecting, rejecting
from shared.sources.catalogue import readers_by_topic
from shared.telemetry import metrics

SPANS = schemas_folder() / "sources" / "otlp_proto"
NOW = datetime(2026, 3, 1, tzinfo=UTC)
TRACEPARENT = (("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),)


def rules(**mapping: object) -> Rules:
    source = {"format": "otlp_proto", "topic": "otlp_spans", **mapping}
    task = Task(
        name="support",
        labels=("delivery_status", "refund_request"),
        unknown_labels=msgspec.convert("dead_letter", type(Task(name="x").unknown_labels)),
        sources=(msgspec.convert(source, SourceMapping),),
    )
    return Rules(
        taxonomies=taxonomies({"support": task}),
        future_tolerance=timedelta(days=1),
        raw_topic="traces.raw",
        traces_topic="traces",
        sources=readers_by_topic([task]),
    )


def reject() -> Rejecting:
    return rejecting("ingest", "dead-letters", FakeClock(NOW))


def spans(path: Path, offset: int = 3) -> Message:
    return Message("otlp_spans", 1, offset, None, path.read_bytes(), TRACEPARENT, 0)


def test_several_traces_of_a_record_and_what_is_no_call_is_passed_over() -> None:
    tally = Tally()
    accepted, rejected = sort(
        [spans(SPANS / "current-attributes.binpb")],
        rules=rules(),
        reject=reject(),
        now=NOW,
        tally=tally,
    )
    assert rejected == []
    assert [decode(each.record.value, Trace).teacher for each in accepted] == [
        "delivery_status",
        "refund_request",
    ]
    assert {each.record.headers for each in accepted} == {TRACEPARENT}
    assert tally == {("otlp_proto", "taken"): 2, ("otlp_proto", "skipped"): 2}


def test_one_dead_letter_a_span_with_that_span_alone() -> None:
    tally = Tally()
    message = spans(SPANS / "refused.binpb")
    accepted, rejected = sort([message], rules=rules(), reject=reject(), now=NOW, tally=tally)
    assert accepted == []
    assert len(rejected) == tally["otlp_proto", "refused"] == 5
    for letter in rejected:
        kept = read_dead_letter(
            Message(letter.topic, 0, 0, letter.key, letter.value, letter.headers)
        )
        assert (kept.topic, kept.partition, kept.offset) == ("otlp_spans", 1, 3)
        assert kept.message.startswith("task support, call 0af7651916cd43dd8448eb211c80319c-")
        request = ExportTraceServiceRequest.FromString(letter.value)
        assert [len(s.spans) for r in request.resource_spans for s in r.scope_spans] == [1]
        # Driven back, it meets the same fate: nothing else was lost with it.
        again = redrive(Message(letter.topic, 0, 0, letter.key, letter.value, letter.headers))
        resent = Message(again.topic, 0, 9, again.key, again.value, again.headers)
        assert len(sort([resent], rules=rules(), reject=reject(), now=NOW)[1]) == 1


def test_each_dead_letter_is_counted_and_a_batch_tried_again_counts_none_twice() -> None:
    refused = rejecting("counted", "dead-letters", FakeClock(NOW), DeadLetterLimit(2))
    for _ in range(3):  # the broker did not take the first batches
        sort([spans(SPANS / "refused.binpb")], rules=rules(), reject=refused, now=NOW)
    fields = [
        metrics.DEAD_LETTERS.labels("counted", "otlp_spans", field)._value.get()
        for field in (*sorted(RawTrace.__struct_fields__), "other")
    ]
    assert sum(fields) == 5


LITELLM_CALL = {
    "call_type": "acompletion",
    "status": "success",
    "messages": [{"role": "user", "content": "where is my money?"}],
    "response": {"choices": [{"message": {"content": "refund_request"}, "finish_reason": "stop"}]},
}
FAILED = {**LITELLM_CALL, "status": "failure", "error_str": "503", "response": {}}
CUT = {"choices": [{"message": {"content": "refund"}, "finish_reason": "length"}]}
WRONG = {**LITELLM_CALL, "messages": [{"role": "system", "content": "no user"}]}


def calls(documents: Sequence[object], first: int = 0) -> list[Message]:
    return [
        Message("litellm", 0, first + i, None, msgspec.json.encode(each), (), 0)
        for i, each in enumerate(documents)
    ]


def test_in_a_row_are_records_not_the_calls_in_them() -> None:
    refused = rejecting("ingest", "dead-letters", FakeClock(NOW), DeadLetterLimit(2))
    held = rules(format="litellm", topic="litellm")
    for offset in (3, 4):
        _, rejected = sort(calls([[WRONG] * 5], offset), rules=held, reject=refused, now=NOW)
        assert len(rejected) == 5
    with pytest.raises(
        Fatal, match="more than 2 dead letters in a row; the last, offset 5 of litellm"
    ):
        sort(calls([[WRONG] * 5], first=5), rules=held, reject=refused, now=NOW)


@pytest.mark.parametrize(
    "call", [FAILED, {**LITELLM_CALL, "response": CUT}], ids=["failed", "cut short"]
)
def test_an_outage_of_a_model_does_not_end_ingest(call: object) -> None:
    """Each failed call is a dead letter, and none of them is a sign of a wrong reader."""
    refused = rejecting("ingest", "dead-letters", FakeClock(NOW), DeadLetterLimit(5))
    held = rules(format="litellm", topic="litellm")
    accepted, rejected = sort(calls([call] * 20), rules=held, reject=refused, now=NOW)
    assert (len(accepted), len(rejected)) == (0, 20)
    # What comes after it is judged as ever: five wrong ones may follow, six may not.
    sort(calls([WRONG] * 4, first=20), rules=held, reject=refused, now=NOW)
    with pytest.raises(Fatal, match="more than 5 dead letters in a row"):
        sort(calls([WRONG] * 2, first=24), rules=held, reject=refused, now=NOW)


def test_calls_of_no_task_show_that_the_reader_works() -> None:
    refused = rejecting("ingest", "dead-letters", FakeClock(NOW), DeadLetterLimit(5))
    held = rules(format="litellm", topic="litellm")
    embedding = {"call_type": "aembedding"}
    mixed = [*[WRONG] * 5, embedding] * 4
    accepted, rejected = sort(calls(mixed), rules=held, reject=refused, now=NOW)
    assert (len(accepted), len(rejected)) == (0, 20)


def test_what_a_mapping_takes_is_held_to_the_taxonomy_like_any_raw_trace() -> None:
    accepted, rejected = sort(
        [spans(SPANS / "openllmetry.binpb")], rules=rules(), reject=reject(), now=NOW
    )
    assert accepted == []
    [letter] = rejected
    headers = dict(letter.headers)
    assert headers["tracer.errors.field"] == b"teacher"
    assert b"charged_twice" in headers["__connect.errors.exception.message"]


def test_a_record_that_is_no_spans_is_one_dead_letter_as_it_was() -> None:
    for value in (b"\xffgarbage", b""):
        message = Message("otlp_spans", 0, 0, b"k", value, (), 0)
        accepted, [letter] = sort([message], rules=rules(), reject=reject(), now=NOW)
        assert accepted == []
        assert (letter.key, letter.value) == (b"k", value)
