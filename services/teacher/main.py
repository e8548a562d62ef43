"""The teacher as a process."""

from __future__ import annotations

import logging
import sys

from services.teacher.app import build
from services.teacher.config import TeacherSettings
from services.teacher.handlers import SERVICE
from shared.contracts.tasks import load_tasks
from shared.running import Surroundings, run_service

_CHATTY = ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "anthropic")


def main() -> int:
    return run_service(
        SERVICE,
        TeacherSettings,
        _run,
        stall_seconds=lambda settings: settings.teacher_stall_seconds,
    )


def _run(settings: TeacherSettings, around: Surroundings) -> None:
    for name in _CHATTY:
        # They log every call, and at DEBUG its headers, among them the key.
        logging.getLogger(name).setLevel(logging.WARNING)
    tasks = load_tasks(settings.tasks)
    teacher = build(
        settings, tasks, stop=around.stop, clock=around.clock, health=around.health
    )  # fmt: skip
    try:
        teacher.run(around.stop)
    finally:
        teacher.close()


if __name__ == "__main__":
    sys.exit(main())
