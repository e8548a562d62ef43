"""The teacher: environment -> settings -> logs -> build -> run."""

from __future__ import annotations

import logging
import sys
import threading

from services.teacher.app import build
from services.teacher.config import TeacherSettings
from services.teacher.handlers import SERVICE
from shared.bus.errors import Fatal
from shared.bus.runner import stop_on_signals
from shared.clock import SystemClock
from shared.contracts.tasks import InvalidTasks, Task, load_tasks
from shared.telemetry.health import Health, HealthServer
from shared.telemetry.log import configure_logging

log = logging.getLogger(__name__)

_CHATTY = ("httpx", "httpx2", "httpcore", "httpcore2", "openai")


def main() -> int:
    """Run until SIGTERM or SIGINT. 0: stopped as told; 1: could not go on; 2: misconfigured."""
    settings = TeacherSettings()
    configure_logging(SERVICE, settings.log_level)
    for name in _CHATTY:
        # They log every call, and at DEBUG its headers, among them the key.
        logging.getLogger(name).setLevel(logging.WARNING)
    log.info("settings", extra={"settings": settings.describe()})
    try:
        tasks = load_tasks(settings.tasks)
    except InvalidTasks as error:
        log.error("%s", error)
        return 2
    try:
        _run(settings, tasks)
    except Fatal as error:
        log.critical("%s", error, exc_info=error)
        return 1
    return 0


def _run(settings: TeacherSettings, tasks: dict[str, Task]) -> None:
    clock = SystemClock()
    health = Health(clock, stall_seconds=settings.teacher_stall_seconds)
    server = HealthServer(health, settings.health_host, settings.health_port)
    log.info("health on port %d", server.port)
    stop = threading.Event()
    stop_on_signals(stop)
    try:
        teacher = build(settings, tasks, stop=stop, clock=clock, health=health)
        try:
            teacher.run(stop)
        finally:
            teacher.close()
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
