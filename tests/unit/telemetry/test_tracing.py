"""One trace from a request to its trace event, through the handlers of router and teacher."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from doubles import HashEncoder
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.router.handlers import Router, Topics
from services.teacher import handlers as teacher
from services.teacher.answers import Answer
from services.teacher.panel import Limits, Panel
from services.teacher.retries import Policy
from shared.bus.base import Headers, Message, Record
from shared.clock import SystemClock
from shared.contracts.codec import encode
from shared.contracts.events import Request, Tokens
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import Taxonomy
from shared.rejecting import rejecting
from shared.telemetry import tracing
from shared.telemetry.log import JsonFormatter

CLOCK = SystemClock()
TOPICS = ("deferred", "decisions", "traces.raw")
TASK = Task(name="support", labels=("refund", "other"))
PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
SECRET = "my card number is 4111"


@pytest.fixture
def exported() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


def message(record: Record) -> Message:
    return Message(record.topic, 0, 0, record.key, record.value, record.headers, 1_770_000_000_000)


def asked(headers: Headers = (PARENT,)) -> Message:
    request = Request(id="r", task="support", input=SECRET)
    return message(Record("requests", b"r", encode(request), headers))


def route(messages: list[Message]) -> list[Record]:
    router = Router(
        tasks={"support": TASK},
        serving=dict,
        encoder=HashEncoder(),
        clock=CLOCK,
        topics=Topics(decisions="decisions", deferred="deferred"),
        dead_letter=rejecting("router", "dead-letters", CLOCK),
    )
    return tracing.traced(router)(messages)


def teach(messages: list[Message]) -> list[Record]:
    def ask(task: Task, text: Any, *, timeout: float) -> Answer:
        return Answer("refund", "some-model-1", Tokens(input=12, output=3))

    panel = Panel(
        ask,
        policy=Policy(1),
        limits=Limits(timeout=5, batch=5, patience=5, concurrency=2),
        clock=CLOCK,
        wait=lambda seconds: False,
        on_answer=lambda: None,
    )
    rules = teacher.Rules(
        {"support": TASK}, {"support": Taxonomy(TASK)}, "deferred", "decisions", "traces.raw"
    )
    reject = rejecting("teacher", "dead-letters", CLOCK)

    def handle(batch: Sequence[Message]) -> list[Record]:
        return teacher.teach(batch, rules=rules, ask_all=panel.ask_all, reject=reject, clock=CLOCK)

    try:
        return tracing.traced(handle)(messages)
    finally:
        panel.close()


def test_from_request_to_trace_it_is_one_trace(exported: InMemorySpanExporter) -> None:
    (deferral,) = route([asked()])
    decision, raw = teach([message(deferral)])
    with tracing.spans([message(raw)]) as (followed,):
        assert followed.value == raw.value
    spans = exported.get_finished_spans()
    names = {span.name: span for span in spans}
    assert set(names) == {"process requests", "process deferred", "chat", "process traces.raw"}
    assert {f"{span.context.trace_id:032x}" for span in spans} == {
        "0af7651916cd43dd8448eb211c80319c"
    }
    # Each a child of the one before.
    for child, parent in (
        ("process deferred", "process requests"),
        ("chat", "process deferred"),
        ("process traces.raw", "process deferred"),
    ):
        assert names[child].parent.span_id == names[parent].context.span_id
    assert f"{names['process requests'].parent.span_id:016x}" == "b7ad6b7169203331"
    assert decision.headers == raw.headers
    chat = dict(names["chat"].attributes)
    assert chat == {
        "gen_ai.operation.name": "chat",
        "tracer.task": "support",
        "gen_ai.response.model": "some-model-1",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 3,
    }
    assert SECRET not in "".join(span.to_json() for span in spans)


def test_without_a_context_a_trace_begins(exported: InMemorySpanExporter) -> None:
    for broken in ((), (("traceparent", b"\xff"),), (("other", b"1"),)):
        (record,) = route([asked(broken)])
        (span,) = exported.get_finished_spans()
        assert span.parent is None
        assert f"{span.context.trace_id:032x}".encode() in dict(record.headers)["traceparent"]
        assert [h for h in record.headers if h[0] == "other"] == [
            h for h in broken if h[0] == "other"
        ]
        exported.clear()


def test_a_batch_that_fails_says_the_kind_and_no_text(exported: InMemorySpanExporter) -> None:
    def fail(messages: Sequence[Message]) -> None:
        raise RuntimeError(SECRET)

    with pytest.raises(RuntimeError):
        tracing.traced(fail)([asked()])
    (span,) = exported.get_finished_spans()
    assert span.status.description == "RuntimeError"
    assert SECRET not in span.to_json()


def test_off_everything_passes_as_it_is() -> None:
    given = [asked()]
    assert tracing.traced(lambda messages: messages)(given) is given
    (record,) = route(given)
    assert record.headers == (PARENT,)
    with tracing.call("chat", (PARENT,), {}) as span:
        assert span is None


def test_nothing_is_sent_unless_the_environment_says_where(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    tracing.configure_tracing("router")()
    assert tracing._Tracing.provider is None


# --- log lines know their span


def said_by(logger: logging.Logger) -> dict[str, Any]:
    """The line as it is written, formatted where it was said."""
    formatter, lines = JsonFormatter("router"), list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(formatter.format(record))  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        logger.warning("said", extra={"task": "support"})
    finally:
        logger.removeHandler(handler)
    (line,) = lines
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_said_over_one_message_names_its_span(
    exported: InMemorySpanExporter,
) -> None:
    lines: list[dict[str, Any]] = []
    tracing.traced(lambda _: lines.append(said_by(logging.getLogger("t"))))([asked()])
    (span,) = exported.get_finished_spans()
    context = span.get_span_context()
    assert lines[0]["trace_id"] == f"{context.trace_id:032x}" == PARENT[1].decode().split("-")[1]
    assert lines[0]["span_id"] == f"{context.span_id:016x}"
    assert lines[0]["task"] == "support"
    with tracing.call("chat", (PARENT,), {}) as asking:
        assert asking is not None
        assert said_by(logging.getLogger("t"))["span_id"] == (
            f"{asking.get_span_context().span_id:016x}"
        )


def test_a_line_over_several_messages_or_none_names_no_span(
    exported: InMemorySpanExporter,
) -> None:
    lines: list[dict[str, Any]] = []
    both = [asked(), asked()]
    tracing.traced(lambda _: lines.append(said_by(logging.getLogger("t"))))(both)
    lines.append(said_by(logging.getLogger("t")))
    for line in lines:
        assert not {"trace_id", "span_id"} & set(line)
    assert len(exported.get_finished_spans()) == 2
