"""A registry in this process's memory: for tests. The rules are in task_state.py."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime

from shared.clock import SystemClock
from shared.contracts.events import AnnouncementKind
from shared.contracts.report import Report
from shared.registry.base import (
    Active,
    Artifact,
    Hint,
    HistoryEntry,
    Mode,
    Pointers,
    RegistryUnavailable,
    StaleEpoch,
    State,
    StateChanged,
    Trial,
    TrippedVersion,
    UnknownVersion,
    checked_task,
    publishable,
)
from shared.registry.checks import (
    check_alpha,
    check_audits,
    check_start,
    check_trial,
    report_bytes,
    report_of,
)
from shared.registry.fit_note import FitNote
from shared.registry.task_state import TaskState
from shared.registry.trust import Trust


class MemoryRegistry:
    """Implements `Registry`; safe to share between threads.

    Set `available` to False to make every call raise RegistryUnavailable.
    """

    def __init__(self, *, keep_versions: int = 20, trust: Trust | None = None) -> None:
        self.available = True
        self._keep = keep_versions
        self._trust = trust or Trust()
        self._clock = SystemClock()
        self._tasks: dict[str, TaskState] = {}
        self._notes: dict[str, FitNote] = {}
        self._changed = threading.Condition()
        self._changes: list[str] = []  # the task of each, oldest first
        self._seen = threading.local()  # how many of them: each waiting thread gets every hint

    def acquire(self, task: str) -> int:
        with self._changed:
            state = self._state(task)
            state.fence += 1
            return state.fence

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        version, artifact = publishable(self._trust.signed(artifact))
        task = artifact.manifest.task
        with self._changed:
            state = self._fenced(task, fence)
            state.artifacts[version] = artifact
            if state.version != version and version not in state.tripped:
                state.supersede(AnnouncementKind.PUBLISHED, version, at, reason)
                state.prune(self._keep)
                self._hint(task)
            return state.active

    def start_trial(
        self, artifact: Artifact, *, mode: Mode, share: float, fence: int, at: datetime, reason: str
    ) -> Active:
        check_trial(mode, share)
        version, artifact = publishable(self._trust.signed(artifact))
        trial = Trial(version, mode, float(share))
        task = artifact.manifest.task
        with self._changed:
            state = self._fenced(task, fence)
            if version in state.tripped:
                raise TrippedVersion(f"{version} is tripped and cannot be tried again")
            state.artifacts[version] = artifact
            if version != state.version and trial != state.trial:
                state.record(AnnouncementKind(mode), version, at, reason)
                state.trial = trial
                state.prune(self._keep)
                self._hint(task)
            return state.active

    def promote(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._changed:
            state, trial = self._on_trial(task, version)
            entry = state.supersede(AnnouncementKind.PROMOTED, trial, at, reason, actor)
            self._hint(task)
            return entry

    def withdraw(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._changed:
            state, trial = self._on_trial(task, version)
            entry = state.record(AnnouncementKind.WITHDRAWN, trial, at, reason, actor)
            state.trial = None
            self._hint(task)
            return entry

    def set_state(
        self,
        task: str,
        state: State,
        *,
        version: str,
        was: State | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._changed:
            known = self._state(task)
            if known.version != version:
                raise UnknownVersion(f"{version} is no longer active for {task}")
            if known.state is state:
                return known.history[0]
            if known.state is State.TRIPPED:
                raise TrippedVersion(f"{version} is tripped; only another version ends that")
            if was not in (None, known.state):
                raise StateChanged(f"{version} is {known.state}, not {was}")
            entry = known.move(state, at, reason, actor)
            self._hint(task)
            return entry

    def set_alpha(
        self,
        task: str,
        alpha: float | None,
        *,
        epoch: int | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry | None:
        alpha = check_alpha(alpha)
        with self._changed:
            state = self._state(task)
            if epoch not in (None, state.epoch):
                raise StateChanged(f"{task} has changed: epoch {state.epoch}, not {epoch}")
            if alpha == state.alpha:
                return None
            entry = state.ask(alpha, at, reason, actor)
            self._hint(task)
            return entry

    def alpha(self, task: str) -> float | None:
        return self.active(task).alpha

    def record_audits(
        self, task: str, version: str, partition: int, audits: Sequence[tuple[int, bool]]
    ) -> int:
        check_audits(partition, audits)
        with self._changed:
            state = self._state(task)
            return state.append(version, partition, audits) if version in state.artifacts else 0

    def audits(self, task: str, version: str, start: int = 0) -> tuple[bool, ...]:
        check_start(start)
        with self._changed:
            return tuple(self._state(task).outcomes.get(version, ())[start:])

    def put_report(self, report: Report) -> None:
        data = report_bytes(report)
        with self._changed:
            state = self._state(report.task)
            if report.version is None:
                state.keep_unpublished(report.key, data)
            elif report.version in state.artifacts:
                state.reports[report.version] = data
            else:
                raise UnknownVersion(f"{report.task} has no version {report.version}")

    def report(self, task: str, key: str) -> Report | None:
        with self._changed:
            state = self._state(task)
            data = state.reports.get(key) or state.unpublished.get(key)
        return None if data is None else report_of(data, task, key)

    def reports(self, task: str) -> list[str]:
        with self._changed:
            state = self._state(task)
            return [*state.unpublished, *(v for v in state.artifacts if v in state.reports)]

    def active(self, task: str) -> Active:
        with self._changed:
            return self._state(task).active

    def pointers(self, tasks: Sequence[str]) -> Pointers:
        with self._changed:
            return {task: self._state(task).active for task in tasks}

    def load(self, task: str, version: str) -> Artifact:
        with self._changed:
            artifact = self._state(task).artifacts.get(version)
        if artifact is None:
            raise UnknownVersion(f"{task} has no version {version}")
        self._trust.check(artifact.manifest_bytes, artifact.signature, version)
        artifact.verify(version)
        return artifact

    def resign(self, task: str, version: str, *, unsigned: bool = False) -> None:
        if self._trust.signer is None:
            raise ValueError("there is no key to sign with: set TRACER_SIGNING_KEY_FILE")
        with self._changed:
            artifact = self._state(task).artifacts.get(version)
            if artifact is None:
                raise UnknownVersion(f"{task} has no version {version}")
            if not unsigned:
                self._trust.check(artifact.manifest_bytes, artifact.signature, version)
            artifact.verify(version)
            self._tasks[task].artifacts[version] = self._trust.signed(artifact)

    def versions(self, task: str) -> list[str]:
        with self._changed:
            return list(self._state(task).artifacts)

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        with self._changed:
            return self._state(task).history[: max(0, limit)]

    def note_fit(self, task: str, note: FitNote) -> None:
        with self._changed:
            self._state(task)  # a task's name, and the store at hand
            self._notes[task] = note

    def last_fit(self, task: str) -> FitNote | None:
        with self._changed:
            self._state(task)
            return self._notes.get(task)

    def rollback(
        self,
        task: str,
        *,
        to: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._changed:
            state = self._state(task)
            target = to or state.spare
            if target is None:
                raise UnknownVersion(f"{task} has no earlier version to return to")
            if target not in state.artifacts:
                raise UnknownVersion(f"{task} has no version {target}")
            if target in state.tripped:
                raise TrippedVersion(f"{target} is tripped and cannot come back")
            if target == state.version:
                return state.history[0]
            entry = state.roll_back(target, at, reason, actor)
            self._hint(task)
            return entry

    def retire(
        self, task: str, *, at: datetime, reason: str, actor: str | None = None
    ) -> HistoryEntry:
        with self._changed:
            state = self._state(task)
            if state.version is None:
                raise UnknownVersion(f"{task} has no active version")
            state.trial = None
            entry = state.activate(AnnouncementKind.RETIRED, None, at, reason, actor)
            self._hint(task)
            return entry

    def wait_for_change(self, timeout: float) -> Hint:
        deadline = self._clock.monotonic() + timeout
        with self._changed:
            self._check_available()
            seen: int | None = getattr(self._seen, "changes", None)
            while len(self._changes) == seen:
                left = deadline - self._clock.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return Hint()
            self._seen.changes = len(self._changes)
            if seen is None:
                return Hint(everything=True)
            return Hint(frozenset(self._changes[seen:]))

    def close(self) -> None:
        """Nothing to let go of."""

    def _state(self, task: str) -> TaskState:
        self._check_available()
        return self._tasks.setdefault(checked_task(task), TaskState())

    def _fenced(self, task: str, fence: int) -> TaskState:
        state = self._state(task)
        if fence != state.fence:
            raise StaleEpoch(f"fence {fence} is not the newest, {state.fence}")
        return state

    def _on_trial(self, task: str, version: str | None) -> tuple[TaskState, str]:
        """The task's state, and the version on trial, which is `version` if that is given."""
        state = self._state(task)
        if state.trial is None or version not in (None, state.trial.version):
            raise UnknownVersion(f"{task} has no {version or 'version'} on trial")
        return state, state.trial.version

    def _check_available(self) -> None:
        if not self.available:
            raise RegistryUnavailable("the memory registry was switched off")

    def _hint(self, task: str) -> None:
        self._changes.append(task)
        self._changed.notify_all()
