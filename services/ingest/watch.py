"""Whether ingest is ready, how far it lags, and whether it still moves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Protocol

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust.types import TP

from services.ingest.stream import Pump
from shared.telemetry.health import Health
from shared.telemetry.metrics import CONSUMER_LAG

log = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0
_TIMEOUT_SECONDS = 10.0


class Consumer(Protocol):
    """The part of Faust's consumer that is watched."""

    def assignment(self) -> Collection[TP]: ...
    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]: ...
    async def position(self, tp: TP) -> int | None: ...
    def last_read(self, tp: TP) -> int | None:
        """Offset of the newest record handed out; None before the first."""


class Watch:
    """Looks every second, for as long as `run` runs.

    Alive means progress: it beats when there is nothing to do, and the pump beats with each
    batch; lag without batches is what a dead consumer looks like. Ready means member of the
    consumer group, and the last batch got through.
    """

    def __init__(self, pump: Pump, health: Health) -> None:
        self._pump = pump
        self._health = health
        self._joined = False

    async def assigned(self, partitions: Collection[TP]) -> None:
        """The group gave this instance its partitions; none is an answer too: it stands by."""
        names = [f"{topic}/{number}" for topic, number in sorted(partitions)]
        log.info("assigned: %s", ", ".join(names) or "nothing, standing by")
        self._joined = True
        # Another instance may have come further meanwhile; the next batches tell.
        self._pump.done.clear()

    async def revoked(self) -> None:
        self._joined = False

    async def run(self, consumer: Consumer) -> None:
        while True:
            await self.look(consumer)
            await asyncio.sleep(_EVERY_SECONDS)

    async def look(self, consumer: Consumer) -> None:
        """One look."""
        if not self._joined:
            self._health.not_ready("waiting for partitions")
            return
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                lag = await self._lag(consumer)
        except (KafkaError, OSError, TimeoutError) as error:
            self._health.not_ready(f"the broker does not answer: {type(error).__name__}")
            return
        CONSUMER_LAG.labels(service="ingest").set(lag)
        if lag == 0:
            self._health.beat()
        if self._pump.trouble:
            self._health.not_ready(self._pump.trouble)
        else:
            self._health.ready()

    async def _lag(self, consumer: Consumer) -> int:
        partitions = list(consumer.assignment())
        if not partitions:
            return 0
        ends = await consumer.highwaters(*partitions)
        lag = 0
        for tp in partitions:
            position = await consumer.position(tp) or 0
            done = self._pump.done.get(tp, position)
            end, last = ends.get(tp, 0), consumer.last_read(tp)
            # Behind the newest record there may be nothing but the marker of its transaction.
            if position < end or (last is not None and last >= done):
                lag += max(0, end - done)
        return lag
