"""One task in memory, and the rules of its changes as plainly as they can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from shared.contracts.events import AnnouncementKind
from shared.registry.base import (
    MAX_UNPUBLISHED_REPORTS,
    Active,
    Artifact,
    HistoryEntry,
    StaleEpoch,
    State,
    StateChanged,
    Trial,
    TrippedVersion,
    UnknownVersion,
)
from shared.registry.fit_note import FitNote


class Cause(NamedTuple):
    """What a history entry says of a change besides what changed."""

    at: datetime
    reason: str
    actor: str | None = None


@dataclass(slots=True)
class TaskState:
    """`keep`: how many versions. `trail`: those active before the current one, newest first.
    `marks`: the highest offset recorded, by version and partition. What each change raises: see
    `Registry`."""

    task: str
    keep: int
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
    note: FitNote | None = None

    @property
    def active(self) -> Active:
        return Active(self.version, self.epoch, self.state, self.trial, self.alpha)

    def stored(self, version: str) -> Artifact:
        if version not in self.artifacts:
            raise UnknownVersion(f"{self.task} has no version {version}")
        return self.artifacts[version]

    def publish(self, version: str, artifact: Artifact, *, fence: int, cause: Cause) -> None:
        self._check_fence(fence)
        self.artifacts[version] = artifact
        if version != self.version and version not in self.tripped:
            self._supersede(AnnouncementKind.PUBLISHED, version, cause)
            self._prune()

    def try_out(self, trial: Trial, artifact: Artifact, *, fence: int, cause: Cause) -> None:
        self._check_fence(fence)
        if trial.version in self.tripped:
            raise TrippedVersion(f"{trial.version} is tripped and cannot be tried again")
        self.artifacts[trial.version] = artifact
        if trial.version != self.version and trial != self.trial:
            self._record(AnnouncementKind(trial.mode), trial.version, cause)
            self.trial = trial
            self._prune()

    def promote(self, version: str | None, *, epoch: int | None, cause: Cause) -> HistoryEntry:
        promoted = self._on_trial(version)
        self._check_epoch(epoch)
        return self._supersede(AnnouncementKind.PROMOTED, promoted, cause)

    def withdraw(self, version: str | None, cause: Cause) -> HistoryEntry:
        ended = self._on_trial(version)
        if not cause.actor:  # by evidence: what tripped on trial does not answer later either
            self.tripped.add(ended)
        entry = self._record(AnnouncementKind.WITHDRAWN, ended, cause)
        self.trial = None
        return entry

    def move(self, to: State, *, version: str, was: State | None, cause: Cause) -> HistoryEntry:
        """Change the active version's state."""
        if version != self.version:
            raise UnknownVersion(f"{version} is no longer active for {self.task}")
        if self.state is to:
            return self.history[0]
        if self.state is State.TRIPPED:
            raise TrippedVersion(f"{version} is tripped; only another version ends that")
        if was not in (None, self.state):
            raise StateChanged(f"{version} is {self.state}, not {was}")
        if to is State.TRIPPED:
            self.tripped.add(version)
        entry = self._record(_kind_of_move(self.state, to), version, cause)
        self.state = to
        return entry

    def ask(self, alpha: float | None, *, epoch: int | None, cause: Cause) -> HistoryEntry | None:
        """Ask for another α."""
        self._check_epoch(epoch)
        if alpha == self.alpha:
            return None
        self.alpha = alpha
        return self._record(AnnouncementKind.ALPHA, self.version, cause, alpha)

    def roll_back(self, to: str | None, cause: Cause) -> HistoryEntry:
        to = to or self._spare
        if to is None:
            raise UnknownVersion(f"{self.task} has no earlier version to return to")
        self.stored(to)
        if to in self.tripped:
            raise TrippedVersion(f"{to} is tripped and cannot come back")
        if to == self.version:
            return self.history[0]
        if to in self.trail:
            del self.trail[: self.trail.index(to) + 1]
        elif self.version is not None:
            self.trail.insert(0, self.version)
        if self.trial is not None and self.trial.version == to:
            self.trial = None
        return self._activate(AnnouncementKind.ROLLED_BACK, to, cause)

    def retire(self, version: str | None, cause: Cause) -> HistoryEntry:
        if self.version is None or version not in (None, self.version):
            raise UnknownVersion(f"{self.task} has no active {version or 'version'}")
        self.trial = None
        return self._activate(AnnouncementKind.RETIRED, None, cause)

    def append(self, version: str, partition: int, audits: Sequence[tuple[int, bool]]) -> int:
        """Add the outcomes behind the partition's mark; how many there are now."""
        if version not in self.artifacts:
            return 0
        mark = self.marks.get((version, partition), -1)
        outcomes = self.outcomes.setdefault(version, [])
        outcomes.extend(agrees for offset, agrees in audits if offset > mark)
        if audits:
            self.marks[version, partition] = max(mark, audits[-1][0])
        return len(outcomes)

    def keep_report(self, version: str | None, key: str, report: bytes) -> None:
        """Of unpublished fits as the newest; the oldest beyond the limit are forgotten."""
        if version is not None:
            self.stored(version)
            self.reports[version] = report
            return
        self.unpublished.pop(key, None)
        self.unpublished[key] = report
        for oldest in list(self.unpublished)[:-MAX_UNPUBLISHED_REPORTS]:
            del self.unpublished[oldest]

    @property
    def _spare(self) -> str | None:
        """The version a rollback would return to."""
        return next((version for version in self.trail if version not in self.tripped), None)

    def _check_epoch(self, epoch: int | None) -> None:
        if epoch not in (None, self.epoch):
            raise StateChanged(f"{self.task} has changed: epoch {self.epoch}, not {epoch}")

    def _check_fence(self, fence: int) -> None:
        if fence != self.fence:
            raise StaleEpoch(f"fence {fence} is not the newest, {self.fence}")

    def _on_trial(self, version: str | None) -> str:
        """The version on trial, which is `version` if that is given."""
        if self.trial is None or version not in (None, self.trial.version):
            raise UnknownVersion(f"{self.task} has no {version or 'version'} on trial")
        return self.trial.version

    def _supersede(self, kind: AnnouncementKind, version: str, cause: Cause) -> HistoryEntry:
        """Activate a version that a rollback takes back; a trial ends."""
        if version in self.trail:
            self.trail.remove(version)
        if self.version is not None:
            self.trail.insert(0, self.version)
        self.trial = None
        return self._activate(kind, version, cause)

    def _activate(self, kind: AnnouncementKind, version: str | None, cause: Cause) -> HistoryEntry:
        entry = self._record(kind, version, cause)
        self.version = version
        self.state = State.SERVING
        return entry

    def _record(
        self, kind: AnnouncementKind, version: str | None, cause: Cause, alpha: float | None = None
    ) -> HistoryEntry:
        """Count a change and write it down; before the active version changes, if it does."""
        self.epoch += 1
        entry = HistoryEntry(kind, version, self.version, self.epoch, *cause, alpha)
        self.history.insert(0, entry)
        return entry

    def _prune(self) -> None:
        """Delete the oldest versions beyond those to keep, but none in use or in reserve."""
        kept = {self.version, self._spare, self.trial.version if self.trial else None}
        others = [version for version in self.artifacts if version not in kept]
        for version in others[: max(0, len(self.artifacts) - self.keep)]:
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
