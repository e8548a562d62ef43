"""The trainer as a process."""

from __future__ import annotations

import sys

from services.trainer.app import build
from services.trainer.config import TrainerSettings
from shared.running import Surroundings, run_service


def main() -> int:
    return run_service("trainer", TrainerSettings, _run)


def _run(settings: TrainerSettings, around: Surroundings) -> None:
    trainer = build(settings, clock=around.clock, health=around.health)
    try:
        trainer.run(around.stop)
    finally:
        trainer.fits.close()
        trainer.source.close()
        trainer.publisher.close()


if __name__ == "__main__":
    sys.exit(main())
