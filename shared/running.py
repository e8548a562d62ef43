"""A service as a process: environment -> settings -> logs -> health -> run, and how it ends."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from shared.bus.errors import Fatal
from shared.bus.runner import stop_on_signals
from shared.clock import Clock, SystemClock
from shared.contracts.tasks import InvalidTasks
from shared.encoder.errors import EncoderError
from shared.invalid_settings import InvalidRedisUrl, told
from shared.redaction.load import InvalidRedactor
from shared.settings import ServiceSettings
from shared.telemetry.health import Health, HealthServer
from shared.telemetry.log import configure_logging
from shared.telemetry.tracing import MissingExporter, configure_tracing

log = logging.getLogger(__name__)

STOPPED, CANNOT_GO_ON, MISCONFIGURED = 0, 1, 2
S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True)
class Surroundings:
    """What every service runs in. `stop` is set by SIGTERM or SIGINT."""

    stop: threading.Event
    clock: Clock
    health: Health


def run_service(
    name: str,
    settings_of: Callable[[], S],
    run: Callable[[S, Surroundings], None],
    *,
    stall_seconds: Callable[[S], float] = lambda _: 60.0,
) -> int:
    """Run until SIGTERM or SIGINT; the exit code says how it ended.

    0: stopped as told. 1: could not go on. 2: misconfigured; a line says which setting or field.
    """
    try:
        settings = settings_of()
    except ValueError as error:  # pydantic's, and those of secrets in files
        print(f"{name}: {told(error)}", file=sys.stderr)  # there is no log level yet
        return MISCONFIGURED
    configure_logging(name, settings.log_level)
    log.info("settings", extra={"settings": settings.describe()})
    try:
        send_spans = configure_tracing(name)
    except MissingExporter as error:
        log.error("%s", error)
        return MISCONFIGURED
    stop, clock = threading.Event(), SystemClock()
    stop_on_signals(stop)
    health = Health(clock, stall_seconds=stall_seconds(settings))
    try:
        server = HealthServer(health, settings.health_host, settings.health_port)
    except OSError as error:
        log.error("health port %d on %s: %s", settings.health_port, settings.health_host, error)
        return MISCONFIGURED
    log.info("health on port %d", server.port)
    try:
        run(settings, Surroundings(stop, clock, health))
    except (InvalidTasks, InvalidRedactor) as error:
        log.error("%s", error)
        return MISCONFIGURED
    except EncoderError as error:
        log.error("TRACER_ENCODER: %s; `tracerctl encoder export --out FOLDER` makes one", error)
        return MISCONFIGURED
    except InvalidRedisUrl as error:
        log.error("TRACER_REDIS_URL: %s", error)
        return MISCONFIGURED
    except Fatal as error:
        log.critical("%s", error, exc_info=error)
        return CANNOT_GO_ON
    finally:
        server.close()
        send_spans()
    return STOPPED
