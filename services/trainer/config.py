"""The trainer's settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from shared.settings import ServiceSettings


class TrainerSettings(ServiceSettings):
    """`store` is a folder or an `s3://` URL; `lateness`, `idle` and `partition_idle` are seconds.

    A window closes `lateness` after its day's end in event time, or when its task has been idle
    for `idle` and the clock is past that point.
    """

    store: str = "data/windows"
    cache: Path = Path("data/cache")
    encoder: Path = Path("data/encoder")
    lateness: float = Field(default=3600.0, ge=0)
    idle: float = Field(default=300.0, gt=0)
    partition_idle: float = Field(default=30.0, gt=0)
    fit_jobs: int = Field(default=1, ge=1)
    encoder_threads: int | None = None
    max_batch: int = Field(default=5_000, ge=1)
