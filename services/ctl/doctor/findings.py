"""What a look at one thing found, and what to do about it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from shared.settings import ServiceSettings


class Service(StrEnum):
    """As schemas/topics names those that read and write."""

    INGEST = "ingest"
    TRAINER = "trainer"
    ROUTER = "router"
    TEACHER = "teacher"
    CONSOLE = "console"


class State(StrEnum):
    """FAILED: services will not run, or will lose something. WARNING: they run, with a loss of
    safety that someone should know of. SKIPPED: nobody could look."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """`check` is `thing.aspect`; `found` says what is there; `fix` what to do, where it
    is not well.

    Raises ValueError for trouble without a fix.
    """

    check: str
    state: State
    found: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.state in (State.WARNING, State.FAILED) and not self.fix:
            raise ValueError(f"{self.check} is {self.state}, but names no fix")


class DoctorSettings(ServiceSettings):
    """The common settings, and those of single services that this looks at."""

    encoder: Path = Path("data/encoder")
    signing_key: SecretStr | None = None
    teacher_budget_store: Literal["memory", "redis"] = "memory"


@dataclass(frozen=True)
class Patient:
    """`services`: those that are to run as this user, with this environment.

    `probe`: whether a topic may be made and deleted. `patience`, in seconds: how long a server may
    take for an answer. `skew`: the difference of two clocks, in seconds, that is no trouble yet.
    """

    settings: DoctorSettings
    services: tuple[Service, ...] = tuple(Service)
    probe: bool = False
    patience: float = 10.0
    skew: float = 1.0
    me: str = field(default_factory=lambda: f"{os.uname().nodename}-{os.getpid()}")


def ok(check: str, found: str) -> Finding:
    return Finding(check, State.OK, found)


def warning(check: str, found: str, fix: str) -> Finding:
    return Finding(check, State.WARNING, found, fix)


def failed(check: str, found: str, fix: str) -> Finding:
    return Finding(check, State.FAILED, found, fix)


def skipped(check: str, found: str) -> Finding:
    return Finding(check, State.SKIPPED, found)


def clock(check: str, ahead: float, uncertain: float, patient: Patient, whose: str) -> Finding:
    """`ahead`: seconds that the other clock is ahead of ours, give or take `uncertain`."""
    found = f"{whose}'s clock is {ahead:+.2f} s from this machine's (±{uncertain:.2f} s)"
    if abs(ahead) - uncertain <= patient.skew:
        return ok(check, found)
    fix = "run a time service (chrony, systemd-timesyncd) on both: windows close by event time"
    return failed(check, found, fix)
