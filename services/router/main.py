"""The router as a process."""

from __future__ import annotations

import sys

from services.router.app import build
from services.router.config import RouterSettings
from shared.running import Surroundings, run_service


def main() -> int:
    return run_service(
        "router", RouterSettings, _run, stall_seconds=lambda settings: settings.stall_seconds
    )


def _run(settings: RouterSettings, around: Surroundings) -> None:
    router = build(settings, clock=around.clock, health=around.health)
    try:
        router.run(around.stop)
    finally:
        router.close()


if __name__ == "__main__":
    sys.exit(main())
