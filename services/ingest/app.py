"""Ingest's composition root: settings in, a Faust app ready to run out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust import App, Stream, StreamT
from faust.transport.consumer import Consumer
from faust.types import TP

from services.ingest.committed import read_committed
from services.ingest.config import IngestSettings
from services.ingest.handlers import SERVICE, Publish, Rules, ingest
from services.ingest.otlp_door import OtlpDoor
from services.ingest.security import credentials
from services.ingest.stream import FaustPublisher, Pump
from services.ingest.watch import Consumer as Watched
from services.ingest.watch import Watch
from shared.bus.base import Message
from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock
from shared.contracts.tasks import Task
from shared.contracts.taxonomy import taxonomies
from shared.contracts.topics import Topic
from shared.rejecting import rejecting
from shared.seen.base import Seen
from shared.seen.fallback import FallbackSeen
from shared.seen.memory import MemorySeen
from shared.seen.redis import RedisSeen
from shared.sources.catalogue import readers_by_topic
from shared.telemetry.health import Health

log = logging.getLogger(__name__)

# A dead letter holds the largest message of `traces.raw` and says why (schemas/topics).
_MAX_REQUEST_BYTES = 2_097_152


class Ingest:
    """A Faust app with one agent on `traces.raw` and the source topics; made and run in one event
    loop."""

    def __init__(
        self,
        app: App,
        pump: Pump,
        watch: Watch,
        *,
        seen: Seen,
        topics: Collection[str],
        publish: Publish,
        door: OtlpDoor | None,
    ) -> None:
        self._app = app
        self._pump = pump
        self._watch = watch
        self._seen = seen
        self._door = door
        self._publish = publish
        self._failure: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        # acks=False: offsets are committed by the pump alone, see stream.py.
        source = app.topic(
            *topics, key_type=bytes, value_type=bytes, key_serializer="raw",
            value_serializer="raw", acks=False, allow_empty=True,
        )  # fmt: skip
        app.agent(source, name=SERVICE, concurrency=1)(self._agent)
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        app.on_partitions_revoked.connect(self._revoked, weak=False)

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, then to the end of the batch in hand.

        Raises Retryable when the broker can't be reached at the start: build and run again.
        Raises Fatal when it cannot go on.
        """
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self._start()
            if self._door is not None:
                self._door.open(self._publish)
            tasks = [
                asyncio.create_task(self._watch.run(cast(Watched, self._app.consumer))),
                asyncio.create_task(self._app.wait_until_stopped()),
                asyncio.create_task(stop.wait()),
            ]
            await asyncio.wait((*tasks, self._failure), return_when=asyncio.FIRST_COMPLETED)
            self._raise_failure(tasks[0])
        finally:
            if self._door is not None:
                await self._door.shut()
            await self._pump.stop()
            for task in tasks:
                task.cancel()
            with suppress(asyncio.CancelledError):
                await self._app.stop()
            await self._seen.close()

    async def _start(self) -> None:
        try:
            await self._app.start()
        except (KafkaError, OSError) as error:
            raise Retryable(f"Kafka cannot be reached: {error}") from error

    def _raise_failure(self, watching: asyncio.Task[None]) -> None:
        reason = self._app.crash_reason
        if self._failure.done():
            reason = self._failure.result()
        elif watching.done():
            reason = watching.exception()
        if reason is not None:
            raise Fatal(f"ingest cannot go on: {reason!r}") from reason

    async def _agent(self, stream: StreamT[bytes]) -> None:
        try:
            await self._pump.run(cast(Stream[bytes], stream), self._commit)
        except Exception as error:
            # Faust would restart the agent behind the batch that failed: stop instead.
            if not self._failure.done():
                self._failure.set_result(error)
            raise

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # The one place that reaches below Faust's public API: Consumer.commit() takes no offsets.
        consumer = cast(Consumer, self._app.consumer)
        return await consumer._commit(offsets)

    async def _assigned(self, _app: Any, /, *arguments: Any, **_: Any) -> None:
        await self._watch.assigned(arguments[0])

    async def _revoked(self, _app: Any, /, *_: Any, **__: Any) -> None:
        await self._watch.revoked()


def build(
    settings: IngestSettings,
    tasks: Mapping[str, Task],
    *,
    clock: Clock,
    health: Health,
    data: Path,
    door: OtlpDoor | None = None,
) -> Ingest:
    """Wire ingest; to be called in the event loop it will run in. Faust keeps files in `data`.

    `door` is open while ingest can publish what it is sent.

    Raises Fatal for security settings that Faust cannot keep, InvalidTasks for a mapping whose
    paths cannot be compiled.
    """
    sources = readers_by_topic(tasks.values())
    app = read_committed(_faust_app(settings, data))
    seen = _seen(settings, clock)
    publish = FaustPublisher(app)
    rules = Rules(
        taxonomies=taxonomies(tasks),
        future_tolerance=settings.ingest_future_tolerance,
        raw_topic=settings.topic(Topic.TRACES_RAW),
        traces_topic=settings.topic(Topic.TRACES),
        sources=sources,
    )
    reject = rejecting(SERVICE, settings.topic(Topic.DEAD_LETTERS), clock)

    async def handle(messages: Sequence[Message]) -> None:
        await ingest(messages, rules=rules, seen=seen, publish=publish, reject=reject, clock=clock)

    pump = Pump(
        handle,
        batch_size=settings.ingest_batch_size,
        batch_seconds=settings.ingest_batch_seconds,
        health=health,
    )
    watch = Watch(pump, health)
    return Ingest(
        app, pump, watch, seen=seen, topics=[rules.raw_topic, *sources], door=door, publish=publish
    )


def _seen(settings: IngestSettings, clock: Clock) -> Seen:
    horizon = settings.ingest_repeat_horizon.total_seconds()
    return FallbackSeen(
        RedisSeen(
            settings.redis_url.get_secret_value(),
            prefix=f"{settings.topic_prefix}tracer:seen:",
            horizon_seconds=horizon,
        ),
        MemorySeen(clock, horizon_seconds=horizon, max_keys=settings.ingest_memory_keys),
        clock=clock,
    )


def _faust_app(settings: IngestSettings, data: Path) -> App:
    return App(
        settings.group(SERVICE),
        broker=[f"kafka://{server.strip()}" for server in settings.bootstrap_servers.split(",")],
        broker_client_id=settings.instance,
        broker_credentials=credentials(settings.kafka),
        broker_session_timeout=settings.ingest_session_timeout_seconds,
        broker_heartbeat_interval=settings.ingest_session_timeout_seconds / 15,
        broker_request_timeout=max(
            settings.ingest_request_timeout_seconds, settings.ingest_session_timeout_seconds
        ),
        consumer_auto_offset_reset="earliest",
        producer_acks=-1,
        producer_linger=0.005,
        producer_max_request_size=_MAX_REQUEST_BYTES,
        producer_request_timeout=settings.ingest_request_timeout_seconds,
        stream_buffer_maxsize=settings.ingest_buffer_records,
        stream_recovery_delay=0.0,
        # Topics are made by whoever administers the broker (`make topics`), never by a consumer.
        topic_allow_declare=False,
        topic_disable_leader=True,
        reply_create_topic=False,
        web_enabled=False,
        store="memory://",
        datadir=str(data),
        autodiscover=False,
        loop=asyncio.get_running_loop(),
    )
