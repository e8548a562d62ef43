"""OpenTelemetry spans along a request's way: its context travels in the records' headers.

A batch opens one span per message, a child of the context in that message's headers (W3C
traceparent), and hands on the messages with the span's context in its place. Handlers copy a
message's headers to the records that come of it, so the next service's span is a child of this
one. Spans hold places and counts, never texts.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form) is set: then headers pass as they
are, and a batch costs one comparison.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.bus.base import Headers, Message

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger(__name__)

_W3C = TraceContextTextMapPropagator()
_OURS = frozenset({"traceparent", "tracestate"})
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
R = TypeVar("R")


class _Tracing:
    """The process's provider; None: off."""

    provider: TracerProvider | None = None


class MissingExporter(ValueError):
    """Spans are wanted, but what sends them is not installed."""


def configure_tracing(service: str) -> Callable[[], None]:
    """Send spans where the environment says; the returned function sends what is left.

    The sampler and the exporter take OpenTelemetry's own variables (OTEL_TRACES_SAMPLER, …).
    Raises MissingExporter.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return _nothing
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExporter(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is not installed: install "
            "tracer-kafka[otel], or unset it"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": f"tracer-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    use(provider)
    log.info("spans are sent")
    return provider.shutdown


def use(provider: TracerProvider | None) -> None:
    """Make spans with `provider`; None: none."""
    _Tracing.provider = provider


def context_of(headers: Headers) -> Context:
    """The context that the headers carry; malformed ones carry none."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in _OURS:
            carrier.setdefault(name, value.decode("latin-1"))
    return _W3C.extract(carrier)


def with_context(headers: Headers, span: Span) -> Headers:
    """The headers with the span's context in place of the one they carry."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span))
    rest = tuple(header for header in headers if header[0] not in _OURS)
    return rest + tuple((name, value.encode("latin-1")) for name, value in carrier.items())


@contextmanager
def spans(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """A span for each message, for as long as the batch is in hand; what is raised is noted."""
    provider = _Tracing.provider
    if provider is None:
        yield list(messages)
        return
    tracer = provider.get_tracer("tracer")
    opened = [_open(tracer, message) for message in messages]
    try:
        # Log lines name the span they were said in: of a batch of one that is known.
        with (
            trace.use_span(opened[0], record_exception=False, set_status_on_exception=False)
            if (len(opened) == 1)
            else nullcontext()
        ):
            yield [
                replace(message, headers=with_context(message.headers, span))
                for message, span in zip(messages, opened, strict=True)
            ]
    except BaseException as error:
        for span in opened:
            # The kind alone: what it says may quote a text.
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        for span in opened:
            span.end()


def traced(handle: Callable[[list[Message]], R]) -> Callable[[list[Message]], R]:
    """`handle`, with a span for each message of a batch."""

    def handle_in_spans(messages: list[Message]) -> R:
        if _Tracing.provider is None:
            return handle(messages)
        with spans(messages) as followed:
            return handle(followed)

    return handle_in_spans


@contextmanager
def call(name: str, headers: Headers, attributes: dict[str, str]) -> Iterator[Span | None]:
    """A span of a call to another system, a child of the headers' context; None while off."""
    provider = _Tracing.provider
    if provider is None:
        yield None
        return
    with ExitStack() as stack:
        span = stack.enter_context(
            provider.get_tracer("tracer").start_as_current_span(
                name,
                context=context_of(headers),
                kind=SpanKind.CLIENT,
                attributes=attributes,
                record_exception=False,
                set_status_on_exception=False,
            )
        )
        try:
            yield span
        except BaseException as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


def _open(tracer: trace.Tracer, message: Message) -> Span:
    return tracer.start_span(
        f"process {message.topic}",
        context=context_of(message.headers),
        kind=SpanKind.CONSUMER,
        attributes={
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": message.topic,
            "messaging.destination.partition.id": str(message.partition),
            "messaging.kafka.offset": message.offset,
        },
    )


def _nothing() -> None:
    return
