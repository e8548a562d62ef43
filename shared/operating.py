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


@dataclass(frozen=True, slots=True)
class Done:
    """`changed`: False when the task was that way already, since `entry`."""

    entry: HistoryEntry | None
    changed: bool


# Makes the change at that time. Raises what the registry raises: UnknownVersion, TrippedVersion,
# StateChanged.
Act = Callable[[Registry, datetime], Done]


class NotAnnounced(Exception):
    """The registry has changed already, but `models` does not say so; `done` is the change."""

    def __init__(self, done: Done, why: Exception) -> None:
        super().__init__(f"done in the registry, but not announced on `models`: {why}")
        self.done = done


class Change(Protocol):
    """One kind of change; `version` is the one meant, where the change needs or allows one."""

    def __call__(self, task: str, version: str | None, reason: str, actor: str | None) -> Act: ...


def rollback(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """Activate `version`, or the one that was active before."""
    return _at(lambda r, at: r.rollback(task, to=version, at=at, reason=reason, actor=actor))


def retire(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """Leave the task without an active version, if that is `version` where it is given."""
    return _at(lambda r, at: r.retire(task, version=version, at=at, reason=reason, actor=actor))


def promote(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """Activate the version on trial, if it is `version` where that is given."""
    return _at(lambda r, at: r.promote(task, version=version, at=at, reason=reason, actor=actor))


def withdraw(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """End the trial, if it is of `version` where that is given."""
    return _at(lambda r, at: r.withdraw(task, version=version, at=at, reason=reason, actor=actor))


def pause(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """Stop the active version's answers, if it is `version` where that is given."""
    return _move(task, version, State.PAUSED, None, reason, actor)


def resume(task: str, version: str | None, reason: str, actor: str | None) -> Act:
    """Let the active version answer again, if it is paused."""
    return _move(task, version, State.SERVING, State.PAUSED, reason, actor)


def ask_alpha(
    task: str, alpha: float | None, epoch: int | None, reason: str, actor: str | None
) -> Act:
    """Ask for another α (None: the tasks file's), if the task is still at `epoch`."""

    def act(registry: Registry, at: datetime) -> Done:
        entry = registry.set_alpha(task, alpha, epoch=epoch, at=at, reason=reason, actor=actor)
        return Done(entry, changed=entry is not None)

    return act


CHANGES: dict[str, Change] = {
    "pause": pause,
    "resume": resume,
    "promote": promote,
    "withdraw": withdraw,
    "rollback": rollback,
    "retire": retire,
}


def operate(registry: Registry, announce: Announce, clock: Clock, task: str, act: Act) -> Done:
    """Do it and announce it. Raises NotAnnounced, and what `act` raises."""
    done = act(registry, clock.now())
    if done.changed and done.entry:
        try:
            announce(announcement_of(task, done.entry))
        except (Retryable, Fatal) as error:
            raise NotAnnounced(done, error) from error
    return done


def announcement_of(task: str, entry: HistoryEntry) -> ModelAnnouncement:
    return ModelAnnouncement(
        kind=AnnouncementKind(entry.kind),
        task=task,
        announced_at=entry.at,
        reason=entry.reason,
        version=entry.version,
        previous_version=entry.previous,
        epoch=entry.epoch,
        actor=entry.actor,
        alpha=entry.alpha,
    )


def _at(change: Callable[[Registry, datetime], HistoryEntry]) -> Act:
    def act(registry: Registry, at: datetime) -> Done:
        entry = change(registry, at)
        return Done(entry, changed=entry.at == at)  # an older one: nothing had to change

    return act


def _move(
    task: str, version: str | None, state: State, was: State | None, reason: str, actor: str | None
) -> Act:
    def change(registry: Registry, at: datetime) -> HistoryEntry:
        meant = version or registry.active(task).version
        if meant is None:
            raise UnknownVersion(f"{task} has no active version")
        return registry.set_state(
            task, state, version=meant, was=was, at=at, reason=reason, actor=actor
        )

    return _at(change)
