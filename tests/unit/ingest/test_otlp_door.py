"""The OTLP door over real HTTP, and with the exporter of the real SDK."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from services.ingest.config import IngestSettings
from services.ingest.otlp_door import PROTOBUF, Limits, OtlpDoor
from services.ingest.otlp_web import OtlpServer, make_app
from shared.bus.base import Record
from shared.bus.errors import Retryable
from shared.clock import SystemClock
from shared.contracts.codec import decode
from shared.contracts.events import RawTrace
from shared.contracts.mapping import Format, SourceMapping
from shared.contracts.tasks import Task
from shared.contracts.topics import schemas_folder
from shared.http.tokens import Tokens, read_tokens
from shared.sources.catalogue import door_readers

EXAMPLES = schemas_folder() / "sources"
GOOD = (EXAMPLES / "otlp_proto" / "current-attributes.binpb").read_bytes()
BAD = (EXAMPLES / "otlp_proto" / "refused.binpb").read_bytes()
PROTO = {"content-type": PROTOBUF}
TASKS = [
    Task(
        name="support",
        sources=(SourceMapping(format=Format.OTLP_PROTO), SourceMapping(format=Format.PEER)),
    )
]


@dataclass
class Broker:
    """Takes records, or does what `trouble` says."""

    records: list[Record] = field(default_factory=list)
    trouble: Callable[[], Any] | None = None
    release: asyncio.Event = field(default_factory=asyncio.Event)
    loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.get_event_loop

    async def __call__(self, records: Sequence[Record]) -> None:
        if self.trouble is not None:
            await self.trouble()
        self.records += records

    @property
    def traces(self) -> list[RawTrace]:
        return [decode(record.value, RawTrace) for record in self.records]


@dataclass
class Served:
    url: str
    broker: Broker
    door: OtlpDoor

    def post(self, body: bytes, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url, content=body, headers=PROTO | names, timeout=20)


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """serve(tokens=…, **limits) starts a door in an event loop of its own thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[OtlpServer] = []

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(20)

    def make(tokens: Tokens | None = None, open_: bool = True, **limits: Any) -> Served:
        async def start() -> Served:
            given = {"body": 100_000, "unpacked": 200_000, "calls": 2, "seconds": 0.5, **limits}
            clock = SystemClock()
            door = OtlpDoor(
                door_readers(TASKS), topic="traces.raw", limits=Limits(**given), clock=clock
            )
            broker = Broker(loop=lambda: loop)
            if open_:
                door.open(broker)
            app = make_app(door, tokens=tokens or Tokens(), rate=1_000.0, clock=clock)
            servers.append(OtlpServer(app, "127.0.0.1", 0, grace=1.0))
            servers[-1].start()
            return Served(f"http://127.0.0.1:{servers[-1].port}/v1/traces", broker, door)

        served: Served = run(start())
        return served

    yield make
    for server in servers:
        run(server.close())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


@pytest.mark.parametrize("compression", Compression)
def test_the_sdk_s_exporter_can_point_at_it(serve: Serve, compression: Compression) -> None:
    served = serve()
    exporter = OTLPSpanExporter(endpoint=served.url, compression=compression)
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    messages = [{"role": "user", "parts": [{"type": "text", "content": "where is it"}]}]
    answer = [{"role": "assistant", "parts": [{"type": "text", "content": "delivery_status"}]}]
    with provider.get_tracer("app").start_as_current_span("chat m") as span:
        span.set_attribute("gen_ai.operation.name", "chat")
        span.set_attribute("gen_ai.request.model", "m")
        span.set_attribute("gen_ai.input.messages", json.dumps(messages))
        span.set_attribute("gen_ai.output.messages", json.dumps(answer))
    provider.shutdown()
    [trace] = served.broker.traces
    assert (trace.input, trace.teacher, trace.model) == ("where is it", "delivery_status", "m")
    assert trace.metadata is not None
    assert trace.metadata["service"] == "shop"
    assert served.broker.records[0].topic == "traces.raw"


def test_both_encodings_say_the_same(serve: Serve) -> None:
    served = serve()
    answer = served.post(GOOD)
    assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(answer.content) == ExportTraceServiceResponse()
    body = (EXAMPLES / "otlp_json" / "current-attributes.json").read_bytes()
    answer = served.post(body, content_type="application/json; charset=utf-8")
    assert (answer.status_code, answer.json()) == (200, {})
    first, second = served.broker.traces[:2], served.broker.traces[2:]
    assert first == second
    assert len(first) == 2


def test_refused_spans_are_a_partial_success_with_the_reasons(serve: Serve) -> None:
    served = serve()
    both = ExportTraceServiceRequest.FromString(GOOD)
    both.MergeFrom(ExportTraceServiceRequest.FromString(BAD))
    answer = served.post(both.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert (answer.status_code, partial.rejected_spans) == (200, 5)
    assert "cut short" in partial.error_message
    assert "and 2 more" in partial.error_message
    assert len(served.broker.records) == 2
    body = (EXAMPLES / "otlp_json" / "refused.json").read_bytes()
    partial = served.post(body, content_type="application/json").json()["partialSuccess"]
    assert partial["rejectedSpans"] == "5"


def test_what_tracer_llm_posts_is_taken_as_it_is(serve: Serve) -> None:
    served = serve()
    body = (EXAMPLES / "peer" / "watch-otlp-sink.json").read_bytes()
    assert served.post(body, content_type="application/json").status_code == 200
    assert [trace.teacher for trace in served.broker.traces] == ["delivery_status"]


def test_calls_without_ids_are_repeats_only_of_themselves(serve: Serve) -> None:
    served = serve()

    def span(text: str) -> bytes:
        attributes = {"gen_ai.prompt": text, "gen_ai.completion": "other"}
        return json.dumps([{"span_id": None, "attributes": attributes}]).encode()

    for text in ("one", "two", "one"):
        assert served.post(span(text), content_type="application/json").status_code == 200
    first, second, again = (trace.id for trace in served.broker.traces)
    assert first == again
    assert first != second


def test_an_empty_request_is_fine(serve: Serve) -> None:
    served = serve()
    assert served.post(b"").status_code == 200
    assert served.post(b"{}", content_type="application/json").json() == {}


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"\xffgarbage", {}, 400, b"not an ExportTraceServiceRequest"),
        (b"{", {"content_type": "application/json"}, 400, b"not valid JSON"),
        (b"[]", {"content_type": "application/json"}, 400, b"not an ExportTraceServiceRequest"),
        (GOOD, {"content_type": "text/plain"}, 415, b"application/x-protobuf"),
        (GOOD, {"content_encoding": "br"}, 415, b"send gzip, deflate or none"),
        (GOOD, {"content_encoding": "gzip"}, 400, b"not gzip"),
        (gzip.compress(GOOD)[:-9], {"content_encoding": "gzip"}, 400, b"cut short"),
        (gzip.compress(GOOD) * 2, {"content_encoding": "gzip"}, 400, b"send one member"),
        (gzip.compress(GOOD) + b"x", {"content_encoding": "gzip"}, 400, b"send one member"),
        (b"x" * 100_001, {}, 413, b"more than 100000 bytes"),
        (gzip.compress(b"x" * 300_000), {"content_encoding": "gzip"}, 413, b"unpacks to more"),
    ],
)
def test_what_cannot_be_taken_says_so(
    serve: Serve, body: bytes, headers: dict[str, str], status: int, says: bytes
) -> None:
    served = serve()
    answer = served.post(body, **headers)
    assert answer.status_code == status
    assert says in answer.content
    assert "retry-after" not in answer.headers, "to send the same again would be in vain"
    assert served.broker.records == []
    assert httpx.get(served.url).status_code == 405


def test_while_the_broker_is_away_senders_are_told_to_come_again(serve: Serve) -> None:
    served = serve(open_=False)
    answer = served.post(GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert b"\x12\x25ingest is not connected to its broker" in answer.content

    async def away() -> None:
        raise Retryable("no broker")

    served = serve()
    served.broker.trouble = away
    assert served.post(GOOD).status_code == 503
    served.broker.trouble = None
    assert served.post(GOOD).status_code == 200
    assert len(served.broker.records) == 2


def test_a_broker_that_hangs_costs_a_bounded_number_of_calls(serve: Serve) -> None:
    served = serve(seconds=0.2)
    served.broker.trouble = served.broker.release.wait
    assert [served.post(GOOD).status_code for _ in range(3)] == [503, 503, 429]
    served.broker.loop().call_soon_threadsafe(served.broker.release.set)
    deadline = time.monotonic() + 5
    while served.post(GOOD).status_code != 200:
        assert time.monotonic() < deadline, "the slots come back when the broker does"


def test_a_sender_that_does_not_finish_loses_its_slot(serve: Serve) -> None:
    served = serve(seconds=0.2, calls=1)
    host, port = served.url.removeprefix("http://").removesuffix("/v1/traces").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        head = f"POST /v1/traces HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\n"
        slow.sendall(f"{head}Content-Type: {PROTOBUF}\r\n\r\nx".encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert served.post(GOOD).status_code == 200


def test_tokens_and_their_tasks(serve: Serve) -> None:
    given = (
        '[{"name": "all", "token": "a-long-token-for-all"},'
        ' {"name": "other", "token": "a-long-token-for-other", "tasks": ["other"]}]'
    )
    served = serve(tokens=read_tokens(given, "TRACER_OTLP_TOKENS"))
    assert served.post(GOOD).status_code == 401
    assert served.post(GOOD, authorization="Bearer a-long-token-for-other").status_code == 200
    assert served.broker.records == [], "no task of theirs"
    assert served.post(GOOD, authorization="Bearer a-long-token-for-all").status_code == 200
    assert len(served.broker.records) == 2


def test_settings_refuse_an_open_door(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"TRACER_OTLP_HOST=0\.0\.0\.0 can be reached by others"):
        IngestSettings(otlp_host="0.0.0.0", otlp_port=4318)
    monkeypatch.setenv("TRACER_OTLP_TOKEN", "a-long-enough-token")
    settings = IngestSettings(otlp_host="0.0.0.0", otlp_port=4318)
    assert "a-long-enough-token" not in repr(settings) + json.dumps(settings.describe())
