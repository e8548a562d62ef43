"""A registry in this process's memory: for tests, and the plain statement of the rules."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

from shared.clock import SystemClock
from shared.contracts.events import AnnouncementKind
from shared.registry.base import (
    Active,
    Artifact,
    HistoryEntry,
    RegistryUnavailable,
    StaleEpoch,
    UnknownVersion,
    checked_task,
    publishable,
)


@dataclass(slots=True)
class _Task:
    fence: int = 0
    epoch: int = 0
    version: str | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)  # oldest first
    trail: list[str] = field(default_factory=list)  # active before the current one, newest first
    history: list[HistoryEntry] = field(default_factory=list)  # newest first

    @property
    def active(self) -> Active:
        return Active(self.version, self.epoch)

    def change(
        self, kind: AnnouncementKind, version: str | None, at: datetime, reason: str
    ) -> HistoryEntry:
        self.epoch += 1
        entry = HistoryEntry(kind, version, self.version, self.epoch, at, reason)
        self.version = version
        self.history.insert(0, entry)
        return entry

    def prune(self, keep: int) -> None:
        kept = {self.version, *self.trail[:1]}
        spare = [version for version in self.artifacts if version not in kept]
        for version in spare[: max(0, len(self.artifacts) - keep)]:
            del self.artifacts[version]
            if version in self.trail:
                self.trail.remove(version)


class MemoryRegistry:
    """Implements `Registry`; safe to share between threads.

    Set `available` to False to make every call raise RegistryUnavailable.
    """

    def __init__(self, *, keep_versions: int = 20) -> None:
        self.available = True
        self._keep = keep_versions
        self._clock = SystemClock()
        self._tasks: dict[str, _Task] = {}
        self._changed = threading.Condition()
        self._changes = 1
        self._seen = threading.local()  # each waiting thread gets every hint

    def acquire(self, task: str) -> int:
        with self._changed:
            state = self._state(task)
            state.fence += 1
            return state.fence

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        version, artifact = publishable(artifact)
        with self._changed:
            state = self._state(artifact.manifest.task)
            if fence != state.fence:
                raise StaleEpoch(f"fence {fence} is not the newest, {state.fence}")
            state.artifacts[version] = artifact
            if state.version != version:
                if version in state.trail:
                    state.trail.remove(version)
                if state.version is not None:
                    state.trail.insert(0, state.version)
                state.change(AnnouncementKind.PUBLISHED, version, at, reason)
                state.prune(self._keep)
                self._hint()
            return state.active

    def active(self, task: str) -> Active:
        with self._changed:
            return self._state(task).active

    def load(self, task: str, version: str) -> Artifact:
        with self._changed:
            artifact = self._state(task).artifacts.get(version)
        if artifact is None:
            raise UnknownVersion(f"{task} has no version {version}")
        artifact.verify(version)
        return artifact

    def versions(self, task: str) -> list[str]:
        with self._changed:
            return list(self._state(task).artifacts)

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        with self._changed:
            return self._state(task).history[: max(0, limit)]

    def rollback(self, task: str, *, to: str | None, at: datetime, reason: str) -> HistoryEntry:
        with self._changed:
            state = self._state(task)
            if to is None:
                if not state.trail:
                    raise UnknownVersion(f"{task} has no earlier version to return to")
                to = state.trail[0]
            elif to not in state.artifacts:
                raise UnknownVersion(f"{task} has no version {to}")
            elif to == state.version:
                return state.history[0]
            if to in state.trail:
                del state.trail[: state.trail.index(to) + 1]
            elif state.version is not None:
                state.trail.insert(0, state.version)
            entry = state.change(AnnouncementKind.ROLLED_BACK, to, at, reason)
            self._hint()
            return entry

    def retire(self, task: str, *, at: datetime, reason: str) -> HistoryEntry:
        with self._changed:
            state = self._state(task)
            if state.version is None:
                raise UnknownVersion(f"{task} has no active version")
            entry = state.change(AnnouncementKind.RETIRED, None, at, reason)
            self._hint()
            return entry

    def wait_for_change(self, timeout: float) -> bool:
        deadline = self._clock.monotonic() + timeout
        with self._changed:
            self._check_available()
            while self._changes == getattr(self._seen, "changes", 0):
                left = deadline - self._clock.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return False
            self._seen.changes = self._changes
            return True

    def close(self) -> None:
        """Nothing to let go of."""

    def _state(self, task: str) -> _Task:
        self._check_available()
        return self._tasks.setdefault(checked_task(task), _Task())

    def _check_available(self) -> None:
        if not self.available:
            raise RegistryUnavailable("the memory registry was switched off")

    def _hint(self) -> None:
        self._changes += 1
        self._changed.notify_all()
