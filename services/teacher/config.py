"""Settings of the teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from shared.settings import ServiceSettings


class TeacherSettings(ServiceSettings):
    """Each field is read from `TRACER_<FIELD>`, so `teacher_model` from `TRACER_TEACHER_MODEL`."""

    # Any OpenAI-compatible endpoint; one on this machine usually wants no key.
    teacher_base_url: str = Field(default="http://127.0.0.1:8000/v1", pattern=r"^https?://[^/]")
    teacher_api_key: SecretStr = SecretStr("none")
    teacher_model: str = "default"
    # None, an empty value, leaves the parameter out, for models that refuse it.
    teacher_temperature: float | None = Field(default=0.0, ge=0, le=2)
    teacher_max_tokens: int | None = Field(default=None, ge=1)

    # One whole call (up to twice that where bytes come and then no more), and how often a
    # passing fault is met with another one.
    teacher_timeout_seconds: float = Field(default=30.0, gt=0, le=600)
    teacher_max_attempts: int = Field(default=4, ge=1, le=20)
    teacher_concurrency: int = Field(default=8, ge=1, le=256)

    # A batch must end well within max.poll.interval.ms (five minutes).
    teacher_max_batch: int = Field(default=64, ge=1, le=1000)
    teacher_max_wait_seconds: float = Field(default=0.5, gt=0, le=60)
    teacher_batch_seconds: float = Field(default=120.0, gt=0, le=240)
    # How long one request may fail while others are answered before it is given up.
    teacher_patience_seconds: float = Field(default=600.0, gt=0)
    teacher_stall_seconds: float = Field(default=300.0, gt=0)

    # Prices by model (YAML), for tasks without a price of their own; where budgets are counted:
    # in each process by itself, or in Redis for all teachers together.
    teacher_prices: Path | None = None
    teacher_budget_store: Literal["memory", "redis"] = "memory"
    # To share the tasks among groups of teachers (each with its own TRACER_GROUP_SUFFIX), as JSON
    # lists: the only tasks of this one, and those that are another's.
    teacher_tasks: frozenset[str] | None = None
    teacher_not_tasks: frozenset[str] = frozenset()
