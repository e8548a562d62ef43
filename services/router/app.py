"""The router, wired: `build` picks the adapters, `RouterService.run` turns the loop."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.router.announcing import PATIENCE, Announcer
from services.router.config import RouterSettings
from services.router.handlers import Router, Topics
from services.router.heartbeat import Heartbeat
from services.router.loading import Loading
from services.router.models import Models
from services.router.remembering import Remembered
from shared.bus.base import Pipe
from shared.bus.kafka import KafkaPublisher, open_pipe
from shared.bus.runner import run_pipe
from shared.clock import Clock
from shared.contracts.tasks import load_tasks
from shared.contracts.topics import Topic
from shared.encoder.base import Encoder
from shared.redaction.load import check_redactors
from shared.registry.base import RegistryError
from shared.registry.disk import DiskCopy
from shared.registry.fleet import connect_fleet
from shared.registry.redis import connect
from shared.rejecting import rejecting
from shared.telemetry import metrics
from shared.telemetry.health import Health
from shared.telemetry.tracing import traced

if TYPE_CHECKING:
    from services.router.door_service import DoorService

log = logging.getLogger(__name__)

# A thousand long texts take a core minutes, in which the loop neither shows that it lives nor hands
# over partitions: so many bytes of requests are a batch, too.
POLL_BYTES = 256 * 1024


@dataclass
class RouterService:
    """The pipe's loop in this thread; the registry's follower and the door in others."""

    pipe: Pipe
    router: Router
    models: Models
    health: Health
    clock: Clock
    settings: RouterSettings
    door: DoorService | None = None
    heartbeat: Heartbeat | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set. Raises Fatal when the consumer or the door cannot go on."""
        self.health.require(ready=self.models.unknown)
        self.models.start_from_copies()
        try:
            self.models.refresh()
        except RegistryError as error:
            log.warning("starting without the registry: %s", error)
        follower = threading.Thread(
            target=self.models.follow, args=(stop, self.settings.poll), name="models", daemon=True
        )
        follower.start()
        if self.heartbeat is not None:
            threading.Thread(
                target=self.heartbeat.run, args=(stop,), name="heartbeat", daemon=True
            ).start()
        if self.door is not None:
            self.health.require(alive=self.door.stuck)
            self.door.start(stop)
            log.info("door open", extra={"port": self.door.port})
        run_pipe(
            self.pipe,
            traced(self.router),
            stop=stop,
            health=self.health,
            clock=self.clock,
            max_batch=self.settings.max_batch,
            max_wait=self.settings.max_wait,
            on_retry=lambda _: metrics.RETRIES.labels("router").inc(),
            on_lag=self._lag,
            on_batch=metrics.BATCH_SECONDS.observe,
        )
        if self.door is not None and self.door.failure is not None:
            raise self.door.failure

    def _lag(self, messages: int) -> None:
        metrics.CONSUMER_LAG.labels("router").set(messages)
        if self.heartbeat is not None:
            self.heartbeat.lag(messages)

    def close(self) -> None:
        """Calls in work are finished first."""
        if self.door is not None:
            self.door.close()
        self.pipe.close()
        self.models.registry.close()


def build(
    settings: RouterSettings, encoder: Encoder, *, threads: int, clock: Clock, health: Health
) -> RouterService:
    """Everything else the router needs, from its settings. `threads`: of the stages."""
    tasks = load_tasks(settings.tasks)
    check_redactors(tasks.values())
    trust = settings.trust()
    trust.warn_if_blind()
    models = Models(
        tasks=sorted(tasks),
        registry=connect(settings.redis_url.get_secret_value(), trust=trust),
        copies=DiskCopy(settings.models, trust),
        loading=Loading(
            encoder,
            threads,
            remembered=Remembered(round(settings.cache_mb * 1e6)),
            max_age_days=settings.max_version_age_days,
            clock=clock,
        ),
        rejected=Announcer(
            lambda: _publisher(settings, PATIENCE),
            topic=settings.topic(Topic.MODELS),
            instance=settings.instance,
            clock=clock,
        ).rejected,
    )
    heartbeat = Heartbeat(
        connect_fleet(settings.redis_url.get_secret_value()),
        instance=settings.instance,
        host=os.uname().nodename,
        mode=settings.delivery,
        tasks=sorted(tasks),
        serving=models.snapshot,
        clock=clock,
    )
    reject = rejecting("router", settings.topic(Topic.DEAD_LETTERS), clock)
    router = Router(
        tasks=tasks,
        serving=models.snapshot,
        encoder=encoder,
        clock=clock,
        topics=Topics(
            decisions=settings.topic(Topic.DECISIONS), deferred=settings.topic(Topic.DEFERRED)
        ),
        dead_letter=reject,
        accepted=reject.accepted,
        worked=heartbeat.worked,
    )
    door = _open_door(settings, router, clock) if settings.door_port else None
    pipe = open_pipe(
        bootstrap=settings.bootstrap_servers,
        group=settings.group("router"),
        topics=[settings.topic(Topic.REQUESTS)],
        delivery=settings.delivery,
        transactional_id=f"{settings.group('router')}-{settings.instance}",
        instance_id=settings.group_instance,
        client_config=settings.kafka,
        poll_bytes=POLL_BYTES,
    )
    return RouterService(pipe, router, models, health, clock, settings, door, heartbeat)


def _open_door(settings: RouterSettings, router: Router, clock: Clock) -> DoorService:
    """Its publisher is its own: the pipe's writes in the pipe's transactions. Raises Fatal."""
    # Here, so that a router without a door loads no web server: a tenth of its imports.
    from services.router.door_service import PUBLISHING, DoorService

    publisher = _publisher(settings, PUBLISHING * settings.door_timeout)
    return DoorService(settings, router, publisher, clock)


def _publisher(settings: RouterSettings, patience: float) -> KafkaPublisher:
    """Gives a message up after `patience` seconds."""
    limit = {"message.timeout.ms": int(1000 * patience)}
    return KafkaPublisher(
        bootstrap=settings.bootstrap_servers, client_config={**settings.kafka, **limit}
    )
