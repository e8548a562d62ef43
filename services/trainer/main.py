"""Environment -> settings -> build -> run."""

from __future__ import annotations

import logging
import threading

from services.trainer.app import build
from services.trainer.config import TrainerSettings
from shared.bus.runner import stop_on_signals
from shared.clock import SystemClock
from shared.telemetry.health import Health, HealthServer
from shared.telemetry.log import configure_logging


def main() -> None:
    settings = TrainerSettings()
    configure_logging("trainer", settings.log_level)
    logging.getLogger(__name__).info("settings", extra={"settings": settings.describe()})
    stop = threading.Event()
    stop_on_signals(stop)
    clock = SystemClock()
    health = Health(clock)
    server = HealthServer(health, settings.health_host, settings.health_port)
    trainer = build(settings, clock=clock, health=health)
    try:
        trainer.run(stop)
    finally:
        trainer.source.close()
        trainer.publisher.close()
        server.close()


if __name__ == "__main__":
    main()
