"""The console as a process."""

from __future__ import annotations

import sys

from services.console.app import build
from services.console.config import ConsoleSettings
from shared.running import Surroundings, run_service


def main() -> int:
    return run_service(
        "console", ConsoleSettings, _run, stall_seconds=lambda settings: settings.stall_seconds
    )


def _run(settings: ConsoleSettings, around: Surroundings) -> None:
    console = build(settings, clock=around.clock, health=around.health)
    try:
        console.run(around.stop)
    finally:
        console.close()


if __name__ == "__main__":
    sys.exit(main())
