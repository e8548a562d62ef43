"""Ingest: environment -> settings -> logs -> build -> run."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from services.ingest.app import build
from services.ingest.config import IngestSettings
from services.ingest.handlers import SERVICE
from services.ingest.otlp_door import Limits, OtlpDoor
from services.ingest.otlp_web import OtlpServer, make_app
from services.ingest.quiet import quieten
from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock, SystemClock
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.contracts.topics import Topic
from shared.invalid_settings import InvalidRedisUrl, told
from shared.sources.catalogue import door_readers
from shared.telemetry.health import Health, HealthServer
from shared.telemetry.log import configure_logging
from shared.telemetry.tracing import MissingExporter, configure_tracing

log = logging.getLogger(__name__)

_CHATTY = ("faust", "mode", "aiokafka")
_RESTART_SECONDS = 5.0


def main() -> int:
    """Run until SIGTERM or SIGINT. 0: stopped as told; 1: could not go on; 2: misconfigured."""
    try:
        settings = IngestSettings()
    except ValueError as error:  # pydantic's, and those of secrets in files
        print(f"{SERVICE}: {told(error)}", file=sys.stderr)  # there is no log level yet
        return 2
    configure_logging(SERVICE, settings.log_level)
    clock = SystemClock()
    quieten(_CHATTY, clock=clock)
    log.info("settings", extra={"settings": settings.describe()})
    try:
        tasks = load_tasks(settings.tasks)
        send_spans = configure_tracing(SERVICE)
    except (InvalidTasks, MissingExporter) as error:
        log.error("%s", error)
        return 2
    health = Health(clock, stall_seconds=settings.ingest_stall_seconds)
    try:
        server = HealthServer(health, settings.health_host, settings.health_port)
    except OSError as error:
        log.error("health port %d on %s: %s", settings.health_port, settings.health_host, error)
        return 2
    log.info("health on port %d", server.port)
    with tempfile.TemporaryDirectory(prefix="tracer-ingest-") as data:
        try:
            asyncio.run(_run(settings, tasks, clock, health, Path(data)))
        except InvalidTasks as error:
            log.error("%s", error)
            return 2
        except InvalidRedisUrl as error:
            log.error("TRACER_REDIS_URL: %s", error)
            return 2
        except Fatal as error:
            log.critical("%s", error, exc_info=error)
            return 1
        finally:
            server.close()
            send_spans()
    return 0


async def _run(
    settings: IngestSettings, tasks: dict[str, Task], clock: Clock, health: Health, data: Path
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    door, web = await _open_door(settings, tasks, clock)
    try:
        while not stop.is_set():
            try:
                await build(settings, tasks, clock=clock, health=health, data=data, door=door).run(
                    stop
                )
            except Retryable as error:
                log.warning("%s; trying again in %g s", error, _RESTART_SECONDS)
                health.not_ready(str(error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _RESTART_SECONDS)
    finally:
        if web is not None:
            await web.close()


async def _open_door(
    settings: IngestSettings, tasks: dict[str, Task], clock: Clock
) -> tuple[OtlpDoor | None, OtlpServer | None]:
    if settings.otlp_port is None:
        return None, None
    readers = door_readers(tasks.values())
    if not any(readers.values()):
        # No reason to stop: docker-compose.yml sets the port whether or not a task takes spans.
        log.warning(
            "no OTLP on port %d: no task of %s has a source of format otlp_proto or otlp_json; "
            "add `sources: [{format: otlp_proto}]` to one",
            settings.otlp_port, settings.tasks,
        )  # fmt: skip
        return None, None
    limits = Limits(
        body=settings.otlp_max_body,
        unpacked=settings.otlp_max_unpacked,
        calls=settings.otlp_max_calls,
        seconds=settings.otlp_timeout,
    )
    door = OtlpDoor(readers, topic=settings.topic(Topic.TRACES_RAW), limits=limits, clock=clock)
    app = make_app(door, tokens=settings.tokens(), rate=settings.otlp_rate, clock=clock)
    web = OtlpServer(app, settings.otlp_host, settings.otlp_port, grace=settings.otlp_timeout)
    web.start()
    log.info("OTLP on %s port %d", settings.otlp_host, web.port)
    return door, web


if __name__ == "__main__":
    sys.exit(main())
