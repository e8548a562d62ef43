"""OTLP/HTTP on `/v1/traces`, as the OTLP specification 1.x describes it.

A call is answered 200 when the broker has every trace that its spans became: what was acknowledged
is not lost. Spans that are nobody's are accepted and dropped, spans that a mapping refuses are
counted in `partial_success` with the reasons. While the broker is away senders are told to come
again (503, `Retry-After`); what they send twice is dropped by its id.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from services.ingest.expanding import told
from services.ingest.handlers import Publish
from shared.bus.base import Record
from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.mapping import Format
from shared.http.access import caller_of
from shared.sources.catalogue import Sorted, sort
from shared.sources.reading import Reader
from shared.telemetry.metrics import SOURCE_CALLS

log = logging.getLogger(__name__)

PROTOBUF, JSON = "application/x-protobuf", "application/json"
# What OpenTelemetry's SDKs can send, as zlib's window sizes.
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_AGAIN_SECONDS = 5
_SAY_EVERY_SECONDS = 30.0
_MAX_REASONS = 3
_INVALID_ARGUMENT, _UNAVAILABLE, _EXHAUSTED = 3, 14, 8  # google.rpc.Code


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes of a body as it comes and unpacked, calls in work, seconds for the broker."""

    body: int
    unpacked: int
    calls: int
    seconds: float


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class OtlpDoor:
    """Takes spans while it is open. Runs in one event loop."""

    def __init__(
        self,
        readers: Mapping[Format, Sequence[Reader]],
        *,
        topic: str,
        limits: Limits,
        clock: Clock,
    ) -> None:
        """`topic`: where raw traces go."""
        self.limits = limits
        self._readers = readers
        self._topic = topic
        self._clock = clock
        self._publish: Publish | None = None
        self._inside = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()  # whose callers were told to come again
        self._say_again = clock.monotonic()

    def open(self, publish: Publish) -> None:
        self._publish = publish

    async def shut(self) -> None:
        """Take no more, and wait for what is on its way to the broker."""
        self._publish = None
        if self._sending:
            await asyncio.wait(self._sending, timeout=self.limits.seconds)

    async def traces(self, request: Request) -> Response:
        """POST /v1/traces."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            if kind not in (PROTOBUF, JSON):
                raise Refusal(415, _INVALID_ARGUMENT, f"send {PROTOBUF} or {JSON}")
            return await self._take(request, kind)
        except Refusal as refusal:
            return _refused(refusal, kind)

    async def _take(self, request: Request, kind: str) -> Response:
        publish = self._publish
        if publish is None:
            raise Refusal(503, _UNAVAILABLE, "ingest is not connected to its broker")
        if self._inside + len(self._late) >= self.limits.calls:
            raise Refusal(429, _EXHAUSTED, f"{self.limits.calls} calls are in work already")
        self._inside += 1
        try:
            return await self._work(request, kind, publish)
        finally:
            self._inside -= 1

    async def _work(self, request: Request, kind: str, publish: Publish) -> Response:
        try:
            async with asyncio.timeout(self.limits.seconds):
                body = await request.body()
        except ClientDisconnect as error:
            raise Refusal(400, _INVALID_ARGUMENT, "the body is not complete") from error
        except TimeoutError as error:
            raise Refusal(408, _INVALID_ARGUMENT, "the body did not come in time") from error
        body = unpacked(body, request.headers.get("content-encoding", ""), self.limits.unpacked)
        format = format_of(kind, body)
        caller = caller_of(request.scope)
        readers = [each for each in self._readers[format] if caller.may_use(each.task)]
        # In a thread: thousands of spans take longer than Kafka's heartbeats should wait.
        found = await asyncio.to_thread(sort, body, origin_of(body), format, readers)
        if found.unreadable is not None:
            raise Refusal(400, _INVALID_ARGUMENT, str(found.unreadable))
        await self._deliver(found, publish)
        self._count(found, format)
        return _accepted(found, kind)

    async def _deliver(self, found: Sorted, publish: Publish) -> None:
        """Raises Refusal when the broker does not take the traces in time."""
        records = [
            Record(self._topic, each.trace.id.encode(), encode(each.trace)) for each in found.taken
        ]
        if not records:
            return
        # A task of its own, that counts as work until the broker is through with it: to cancel it
        # would not take back what the producer holds.
        sending = asyncio.ensure_future(_send(publish, records))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        done, _ = await asyncio.wait({sending}, timeout=self.limits.seconds)
        if not done:
            self._late.add(sending)
            sending.add_done_callback(self._done_late)
            raise Refusal(503, _UNAVAILABLE, "the broker does not answer")
        error = sending.exception()
        if isinstance(error, Retryable):
            raise Refusal(503, _UNAVAILABLE, "the broker did not take the traces")
        if error is not None:
            raise error

    def _done_late(self, sending: asyncio.Task[None]) -> None:
        self._late.discard(sending)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            log.debug("given up by its caller, then failed: %s", error)

    def _count(self, found: Sorted, format: Format) -> None:
        numbers = {
            "taken": len(found.taken),
            "refused": len(found.lost),
            "skipped": len(found.skipped),
        }
        for result, number in numbers.items():
            SOURCE_CALLS.labels(format=format.value, result=result).inc(number)
        now = self._clock.monotonic()
        if found.lost and now >= self._say_again:
            self._say_again = now + _SAY_EVERY_SECONDS
            log.warning("the OTLP door refused %d spans: %s", len(found.lost), told(found.lost[0]))


async def _send(publish: Publish, records: Sequence[Record]) -> None:
    await publish(records)


def format_of(kind: str, body: bytes) -> Format:
    """What a body holds: spans, or what tracer-llm's OTLPSink posts in their place."""
    if kind == PROTOBUF:
        return Format.OTLP_PROTO
    if b'"resourceSpans"' not in body and b'"span_id"' in body:
        return Format.PEER
    return Format.OTLP_JSON


def origin_of(body: bytes) -> str:
    """Names a body for calls without ids: sent again it is the same one."""
    return f"otlp-{hashlib.sha256(body).hexdigest()[:16]}"


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its compression. Raises Refusal, before more than `limit` bytes are held."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise Refusal(
            415,
            _INVALID_ARGUMENT,
            f"Content-Encoding {encoding[:40]!r}: send gzip, deflate or none",
        )
    unpacker = zlib.decompressobj(_WINDOWS[encoding])
    try:
        data = unpacker.decompress(body, limit)
        if unpacker.unconsumed_tail and unpacker.decompress(unpacker.unconsumed_tail, 1):
            raise Refusal(413, _INVALID_ARGUMENT, f"the body unpacks to more than {limit} bytes")
    except zlib.error as error:
        raise Refusal(400, _INVALID_ARGUMENT, f"the body is not {encoding}") from error
    if not unpacker.eof:
        raise Refusal(400, _INVALID_ARGUMENT, f"the {encoding} body is cut short")
    if unpacker.unused_data:  # a second member, whose spans would be lost without a word
        raise Refusal(
            400,
            _INVALID_ARGUMENT,
            f"the {encoding} body goes on after its end: send one member",
        )
    return data


def _accepted(found: Sorted, kind: str) -> Response:
    """With `partial_success` where spans were refused that made no trace either."""
    made = {each.fragment for each in found.taken}
    refused = {each.fragment: each for each in found.lost if each.fragment not in made}
    message = "; ".join(told(each) for each in list(refused.values())[:_MAX_REASONS])
    if len(refused) > _MAX_REASONS:
        message += f"; and {len(refused) - _MAX_REASONS} more"
    if kind == JSON:
        partial = {"rejectedSpans": str(len(refused)), "errorMessage": message}
        return JSONResponse({"partialSuccess": partial} if refused else {})
    response = ExportTraceServiceResponse()
    if refused:
        response.partial_success.rejected_spans = len(refused)
        response.partial_success.error_message = message
    return Response(response.SerializeToString(), media_type=PROTOBUF)


def _refused(refusal: Refusal, kind: str) -> Response:
    """A google.rpc.Status in the encoding of the call."""
    headers = {"retry-after": str(_AGAIN_SECONDS)} if refusal.status in (429, 503) else {}
    message = str(refusal)
    if kind == PROTOBUF:
        said = message.encode()[:1_000]
        status = b"\x08" + bytes([refusal.code]) + b"\x12" + _varint(len(said)) + said
        return Response(status, refusal.status, headers, PROTOBUF)
    body = {"code": refusal.code, "message": message}
    return JSONResponse(body, refusal.status, headers)


def _varint(number: int) -> bytes:
    """As protobuf writes lengths below 2**14."""
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80, number >> 7])
