"""The router's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    """`max_wait` (seconds) is how long a micro-batch waits for its first request; `poll` how often
    the registry is asked for changes that its hints may have missed."""

    encoder: Path = Path("data/encoder")
    models: Path = Path("data/models")  # disk copy, to start without Redis
    threads: int | None = None
    max_batch: int = Field(default=256, ge=1)
    max_wait: float = Field(default=0.05, gt=0)
    poll: float = Field(default=1.0, gt=0)
    group_instance: str | None = None
