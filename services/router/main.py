"""Environment -> settings -> build -> run."""

from __future__ import annotations

import logging
import sys
import threading

from pydantic import ValidationError

from services.router.app import build
from services.router.config import RouterSettings
from shared.bus.runner import stop_on_signals
from shared.clock import SystemClock
from shared.telemetry.health import Health, HealthServer
from shared.telemetry.log import configure_logging


def main() -> None:
    try:
        settings = RouterSettings()
    except ValidationError as error:
        sys.exit(f"router: {error}")
    configure_logging("router", settings.log_level)
    logging.getLogger(__name__).info("settings", extra={"settings": settings.describe()})
    stop = threading.Event()
    stop_on_signals(stop)
    clock = SystemClock()
    health = Health(clock, stall_seconds=settings.stall_seconds)
    server = HealthServer(health, settings.health_host, settings.health_port)
    router = build(settings, clock=clock, health=health)
    try:
        router.run(stop)
    finally:
        router.close()
        server.close()


if __name__ == "__main__":
    main()
