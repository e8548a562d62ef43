"""Notices active pointers that no registry of ours would have moved so.

The pointer is not signed: every trainer and operator moves it. What a router has seen of it can
still be held against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from shared.registry.base import Active, State


@dataclass
class PointerWatch:
    """What one router has seen of one task: the newest epoch, and the versions that tripped."""

    _epoch: int = 0
    _tripped: set[str] = field(default_factory=set)

    def refusal(self, active: Active) -> str | None:
        """Why it must not be followed, None when it may be: a trip is for ever."""
        serves = [active.trial.version] if active.trial else []
        if active.version is not None and active.state is not State.TRIPPED:
            serves.append(active.version)
        for version in serves:
            if version in self._tripped:
                return f"{version} was tripped, which is for ever: restored or forged?"
        return None

    def doubt(self, active: Active) -> str | None:
        """What is odd about it, though it is followed."""
        if 0 < active.epoch < self._epoch:
            return (
                f"the epoch went back from {self._epoch} to {active.epoch}: the registry was lost, "
                "restored or forged; compare with the announcements on `models`"
            )
        return None

    def note(self, active: Active) -> None:
        """It is followed."""
        self._epoch = active.epoch
        if active.version is not None and active.state is State.TRIPPED:
            self._tripped.add(active.version)
