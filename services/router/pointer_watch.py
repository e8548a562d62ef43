"""Notices active pointers that no registry of ours would have moved so.

The pointer is not signed: every trainer and operator moves it. What a router has seen of it can
still be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date

from shared.contracts.manifest import window_of
from shared.registry.base import Active, State


@dataclass
class PointerWatch:
    """What one router has seen: the newest epoch of each task, and the versions that tripped."""

    _epochs: dict[str, int] = field(default_factory=dict)
    _tripped: set[tuple[str, str]] = field(default_factory=set)

    def refusal(self, task: str, active: Active) -> str | None:
        """Why it must not be followed, None when it may be: a trip is for ever."""
        serves = [active.trial.version] if active.trial else []
        if active.version is not None and active.state is not State.TRIPPED:
            serves.append(active.version)
        for version in serves:
            if (task, version) in self._tripped:
                return f"{version} was tripped, which is for ever: restored or forged?"
        return None

    def doubt(self, task: str, active: Active) -> str | None:
        """What is odd about it, though it is followed."""
        seen = self._epochs.get(task, 0)
        if 0 < active.epoch < seen:
            return (
                f"the epoch went back from {seen} to {active.epoch}: the registry was lost, "
                "restored or forged; compare with the announcements on `models`"
            )
        return None

    def note(self, task: str, active: Active) -> None:
        """It is followed."""
        self._epochs[task] = active.epoch
        if active.version is not None and active.state is State.TRIPPED:
            self._tripped.add((task, active.version))


def too_old(version: str, today: date, most_days: int) -> str | None:
    """Why a version must not be loaded any more, None when it may be. Its name begins with its
    window's day, which its signature covers: an old version that somebody kept stays old."""
    try:
        days = (today - date.fromisoformat(window_of(version))).days
    except ValueError:
        return f"{version} is not named after a day, so nobody knows how old it is"
    if days <= most_days:
        return None
    return (
        f"the window of {version} was {days} days ago, and TRACER_MAX_VERSION_AGE_DAYS allows "
        f"{most_days}"
    )
