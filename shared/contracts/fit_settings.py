"""What of a task's configuration a fit depends on, as its manifest keeps it."""

from __future__ import annotations

from typing import Literal

import msgspec

from shared.contracts.tasks import Task


class FitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Fields as in `shared.contracts.tasks.Task`; `alpha` is the one asked for then, at run time or
    in the tasks file."""

    alpha: float
    delta: float
    labels: tuple[str, ...]
    evidence: Literal["crossfit", "holdout"]
    holdout_share: float
    next_sample: float
    label_floor: float | None
    horizon_days: int
    timezone: str
    max_rows: int = 100_000
    half_life_days: float | None = None
    refit: Literal["full", "incremental"] = "full"

    @classmethod
    def of(cls, task: Task) -> FitSettings:
        return cls(**{name: getattr(task, name) for name in cls.__struct_fields__})

    def task(self, name: str) -> Task:
        """A task that is fitted in the same way."""
        return Task(name=name, **msgspec.structs.asdict(self))
