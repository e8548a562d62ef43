"""One task in memory, and the rules of its changes as plainly as they can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared.contracts.events import AnnouncementKind
from shared.registry.base import (
    MAX_UNPUBLISHED_REPORTS,
    Active,
    Artifact,
    HistoryEntry,
    State,
    Trial,
)


@dataclass(slots=True)
class TaskState:
    """`trail`: versions active before the current one, newest first. `marks`: the highest offset
    recorded, by version and partition."""

    fence: int = 0
    epoch: int = 0
    version: str | None = None
    state: State = State.SERVING
    trial: Trial | None = None
    alpha: float | None = None
    artifacts: dict[str, Artifact] = field(default_factory=dict)  # oldest first
    trail: list[str] = field(default_factory=list)
    tripped: set[str] = field(default_factory=set)
    history: list[HistoryEntry] = field(default_factory=list)  # newest first
    outcomes: dict[str, list[bool]] = field(default_factory=dict)
    marks: dict[tuple[str, int], int] = field(default_factory=dict)
    reports: dict[str, bytes] = field(default_factory=dict)  # of versions
    unpublished: dict[str, bytes] = field(default_factory=dict)  # reports, oldest put first

    @property
    def active(self) -> Active:
        return Active(self.version, self.epoch, self.state, self.trial, self.alpha)

    @property
    def spare(self) -> str | None:
        """The version a rollback would return to."""
        return next((version for version in self.trail if version not in self.tripped), None)

    def record(
        self,
        kind: AnnouncementKind,
        version: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
        alpha: float | None = None,
    ) -> HistoryEntry:
        """Count a change and write it down; before the active version changes, if it does."""
        self.epoch += 1
        entry = HistoryEntry(kind, version, self.version, self.epoch, at, reason, actor, alpha)
        self.history.insert(0, entry)
        return entry

    def activate(
        self,
        kind: AnnouncementKind,
        version: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        entry = self.record(kind, version, at, reason, actor)
        self.version = version
        self.state = State.SERVING
        return entry

    def supersede(
        self,
        kind: AnnouncementKind,
        version: str,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        """Activate a version that a rollback takes back; a trial ends."""
        if version in self.trail:
            self.trail.remove(version)
        if self.version is not None:
            self.trail.insert(0, self.version)
        self.trial = None
        return self.activate(kind, version, at, reason, actor)

    def roll_back(
        self, to: str, at: datetime, reason: str, actor: str | None = None
    ) -> HistoryEntry:
        if to in self.trail:
            del self.trail[: self.trail.index(to) + 1]
        elif self.version is not None:
            self.trail.insert(0, self.version)
        if self.trial is not None and self.trial.version == to:
            self.trial = None
        return self.activate(AnnouncementKind.ROLLED_BACK, to, at, reason, actor)

    def move(
        self, state: State, at: datetime, reason: str, actor: str | None = None
    ) -> HistoryEntry:
        """Change the active version's state to another one."""
        if state is State.TRIPPED and self.version is not None:
            self.tripped.add(self.version)
        entry = self.record(_kind_of_move(self.state, state), self.version, at, reason, actor)
        self.state = state
        return entry

    def ask(
        self, alpha: float | None, at: datetime, reason: str, actor: str | None
    ) -> HistoryEntry:
        """Ask for another α."""
        self.alpha = alpha
        return self.record(AnnouncementKind.ALPHA, self.version, at, reason, actor, alpha)

    def append(self, version: str, partition: int, audits: Sequence[tuple[int, bool]]) -> int:
        """Add the outcomes behind the partition's mark; how many there are now."""
        mark = self.marks.get((version, partition), -1)
        outcomes = self.outcomes.setdefault(version, [])
        outcomes.extend(agrees for offset, agrees in audits if offset > mark)
        if audits:
            self.marks[version, partition] = max(mark, audits[-1][0])
        return len(outcomes)

    def keep_unpublished(self, key: str, report: bytes) -> None:
        """As the newest; the oldest beyond the limit are forgotten."""
        self.unpublished.pop(key, None)
        self.unpublished[key] = report
        for oldest in list(self.unpublished)[:-MAX_UNPUBLISHED_REPORTS]:
            del self.unpublished[oldest]

    def prune(self, keep: int) -> None:
        """Delete the oldest versions beyond `keep`, but none in use or in reserve."""
        kept = {self.version, self.spare, self.trial.version if self.trial else None}
        others = [version for version in self.artifacts if version not in kept]
        for version in others[: max(0, len(self.artifacts) - keep)]:
            del self.artifacts[version]
            if version in self.trail:
                self.trail.remove(version)
            self.tripped.discard(version)
            self.outcomes.pop(version, None)
            self.reports.pop(version, None)
            self.marks = {key: mark for key, mark in self.marks.items() if key[0] != version}


def _kind_of_move(before: State, after: State) -> AnnouncementKind:
    if after is not State.SERVING:
        return AnnouncementKind(after.value)
    return AnnouncementKind.RESUMED if before is State.PAUSED else AnnouncementKind.CLEARED
