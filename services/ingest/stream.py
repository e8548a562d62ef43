"""Faust's side of ingest: batches in, acknowledged records out, then offsets.

Faust's own acknowledgements are not used: it acknowledges what it skips during a rebalance
(`Stream.__aiter__`) and what `take` held when its consumer failed, and so may commit what was
never handled. The topic is declared without acks, and the offsets of a batch are committed here,
after its outputs were acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, cast

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust import App, EventT, Stream
from faust.exceptions import ProducerSendError
from faust.types import TP

from shared.bus.base import Message, Record
from shared.bus.errors import Retryable
from shared.telemetry.health import Health
from shared.telemetry.metrics import RETRIES

log = logging.getLogger(__name__)

Handle = Callable[[Sequence[Message]], Awaitable[None]]
Offsets = dict[TP, int]
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 15.0


class Commit(Protocol):
    async def __call__(self, offsets: Offsets) -> bool: ...


def to_message(event: EventT[Any]) -> Message:
    """The record behind a Faust event; a tombstone has the value b""."""
    record = event.message
    # aiokafka hands out pairs, whatever else Faust allows; a value may be null.
    headers = cast("Sequence[tuple[str, bytes | None]]", record.headers or ())
    return Message(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        value=record.value or b"",
        headers=tuple((name, value or b"") for name, value in headers),
        timestamp_ms=round((record.timestamp or 0.0) * 1000),
    )


class FaustPublisher:
    """Sends records through the app's producer and waits for every acknowledgement."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, records: Sequence[Record]) -> None:
        """Raises Retryable when the broker took not all of them; some may have arrived."""
        try:
            pending = [await self._send(record) for record in records]
            results = await asyncio.gather(*pending, return_exceptions=True)
        except (ProducerSendError, KafkaError, OSError) as error:
            raise Retryable(f"cannot publish: {error}") from error
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise Retryable(
                f"{len(failures)} of {len(records)} records were not taken: {failures[0]!r}"
            ) from failures[0]

    async def _send(self, record: Record) -> Awaitable[Any]:
        sent: Awaitable[Any] = await self._app.producer.send(
            record.topic,
            record.key,
            record.value,
            record.partition,
            None,
            list(record.headers),
        )
        return sent


class Pump:
    """Hands batches of the stream to `handle` and commits their offsets, one batch at a time.

    `trouble` says why the batch in hand does not get through; `done` are the next offsets to
    read, as committed here.
    """

    def __init__(
        self, handle: Handle, *, batch_size: int, batch_seconds: float, health: Health
    ) -> None:
        self._handle = handle
        self._batch_size = batch_size
        self._batch_seconds = batch_seconds
        self._health = health
        self._turn = asyncio.Lock()
        self._stopping = asyncio.Event()
        self.trouble: str | None = None
        self.done: Offsets = {}

    async def run(self, stream: Stream[Any], commit: Commit) -> None:
        """Until stopped; returns between two batches."""
        # What noack_take() restores when it ends, with messages still buffered that nobody handled.
        stream.enable_acks = False
        batches = stream.noack_take(self._batch_size, within=self._batch_seconds)
        async for events in batches:
            async with self._turn:
                if self._stopping.is_set():
                    return
                await self._take_turn([to_message(event) for event in events], commit)

    async def stop(self) -> None:
        """Let the batch in hand finish and take no other; it is read again if it cannot finish."""
        self._stopping.set()
        async with self._turn:
            pass

    async def _take_turn(self, messages: Sequence[Message], commit: Commit) -> None:
        if not await self._handle_until_done(messages):
            return
        offsets: Offsets = {}
        for message in messages:
            tp = TP(message.topic, message.partition)
            offsets[tp] = max(offsets.get(tp, 0), message.offset + 1)
        # False: the partitions have moved on, and whoever has them now reads the batch again.
        if await commit(offsets):
            self.done.update(offsets)
        self._health.beat()

    async def _handle_until_done(self, messages: Sequence[Message]) -> bool:
        """False when told to stop before the batch got through."""
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                await self._handle(messages)
            except Retryable as error:
                self.trouble = str(error)
                log.warning("batch of %d again in %.1f s: %s", len(messages), backoff, error)
                RETRIES.labels(service="ingest").inc()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), backoff)
                if self._stopping.is_set():
                    return False
                backoff = min(2 * backoff, _LONGEST_BACKOFF_SECONDS)
            else:
                self.trouble = None
                return True
