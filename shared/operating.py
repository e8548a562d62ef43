"""Changes by hand, as `tracerctl` and the console make them: in the registry, then on `models`.

What is that way already is neither changed nor announced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.registry.base import HistoryEntry, Registry, State, UnknownVersion

Announce = Callable[[ModelAnnouncement], None]
Act = Callable[[Registry, datetime], HistoryEntry]


class NotAnnounced(Exception):
    """The registry has changed already, but `models` does not say so; `done` is the change."""

    def __init__(self, done: Done, why: Exception) -> None:
        super().__init__(f"done in the registry, but not announced on `models`: {why}")
        self.done = done


@dataclass(frozen=True, slots=True)
class Done:
    """`changed`: False when the task was that way already, since `entry`."""

    entry: HistoryEntry
    changed: bool


class Change(Protocol):
    """One kind of change; `version` is the one meant, where the change needs or allows one.

    Raises what the registry raises: UnknownVersion, TrippedVersion, StateChanged.
    """

    def __call__(self, task: str, version: str | None, reason: str) -> Act: ...


def rollback(task: str, version: str | None, reason: str) -> Act:
    """Activate `version`, or the one that was active before."""
    return lambda registry, at: registry.rollback(task, to=version, at=at, reason=reason)


def retire(task: str, version: str | None, reason: str) -> Act:
    """Leave the task without an active version."""
    return lambda registry, at: registry.retire(task, at=at, reason=reason)


def promote(task: str, version: str | None, reason: str) -> Act:
    """Activate the version on trial, if it is `version` where that is given."""
    return lambda registry, at: registry.promote(task, version=version, at=at, reason=reason)


def withdraw(task: str, version: str | None, reason: str) -> Act:
    """End the trial, if it is of `version` where that is given."""
    return lambda registry, at: registry.withdraw(task, version=version, at=at, reason=reason)


def pause(task: str, version: str | None, reason: str) -> Act:
    """Stop the active version's answers, if it is `version` where that is given."""
    return _move(task, version, State.PAUSED, None, reason)


def resume(task: str, version: str | None, reason: str) -> Act:
    """Let the active version answer again, if it is paused."""
    return _move(task, version, State.SERVING, State.PAUSED, reason)


CHANGES: dict[str, Change] = {
    "pause": pause,
    "resume": resume,
    "promote": promote,
    "withdraw": withdraw,
    "rollback": rollback,
    "retire": retire,
}


def operate(
    registry: Registry, announce: Announce, clock: Clock, task: str, actor: str | None, act: Act
) -> Done:
    """Do it and announce it with who asked. Raises NotAnnounced, and what `act` raises."""
    at = clock.now()
    entry = act(registry, at)
    done = Done(entry, changed=entry.at == at)  # an older entry: nothing had to change
    if done.changed:
        try:
            announce(announcement_of(task, entry, actor))
        except (Retryable, Fatal) as error:
            raise NotAnnounced(done, error) from error
    return done


def announcement_of(task: str, entry: HistoryEntry, actor: str | None) -> ModelAnnouncement:
    return ModelAnnouncement(
        kind=AnnouncementKind(entry.kind),
        task=task,
        announced_at=entry.at,
        reason=entry.reason,
        version=entry.version,
        previous_version=entry.previous,
        epoch=entry.epoch,
        actor=actor,
    )


def _move(task: str, version: str | None, state: State, was: State | None, reason: str) -> Act:
    def act(registry: Registry, at: datetime) -> HistoryEntry:
        meant = version or registry.active(task).version
        if meant is None:
            raise UnknownVersion(f"{task} has no active version")
        return registry.set_state(task, state, version=meant, was=was, at=at, reason=reason)

    return act
