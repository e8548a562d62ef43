"""What a router keeps on disk, to start from when the registry is away.

A failure here costs a start without Redis and no more: it is logged, and serving goes on.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Protocol

from shared.registry.base import Active, Artifact, Registry, RegistryError, State

log = logging.getLogger(__name__)


class Copies(Protocol):
    """The last version of each task, with the pointer that named it."""

    def save(self, task: str, active: Active, artifact: Artifact) -> None: ...

    def load(self, task: str) -> tuple[Active, Artifact] | None: ...

    def forget(self, task: str) -> None: ...


@dataclass(frozen=True)
class Keeping:
    """The copies follow what is served."""

    copies: Copies
    registry: Registry

    def keep(self, task: str, active: Active, artifact: Artifact | None) -> None:
        """With its state: a version that was tripped must not answer after a restart.

        artifact: None where what is kept may be it."""
        try:
            if artifact is None:
                kept = self.copies.load(task)
                artifact = kept[1] if kept and kept[0].version == active.version else None
            if artifact is None and active.version is not None:
                artifact = self.registry.load(task, active.version)
            if artifact is not None:
                self.copies.save(task, active, artifact)
        except (OSError, RegistryError) as error:
            log.warning("no disk copy of %s: %s", active.version, error, extra={"task": task})

    def hold(self, task: str, version: str, state: State, alpha: float | None) -> None:
        """The copy of `version`, which stays, obeys the pointer of one that cannot be loaded. That
        one's trip is kept as a pause, which is as silent: a trip of its own would be for ever."""
        try:
            copy = self.copies.load(task)
            if copy is None or copy[0].version != version:
                return
            kept, artifact = copy
            if kept.state is State.TRIPPED:
                state = State.TRIPPED
            elif state is State.TRIPPED:
                state = State.PAUSED
            self.copies.save(task, replace(kept, state=state, alpha=alpha), artifact)
        except (OSError, RegistryError) as error:
            log.warning("the disk copy is held to nothing: %s", error, extra={"task": task})

    def forget(self, task: str) -> None:
        """What is active no more is not served after a restart either."""
        try:
            self.copies.forget(task)
        except OSError as error:
            log.warning("the disk copy stays: %s", error, extra={"task": task})
