"""A registry in this process's memory: for tests. The rules are in task_state.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from shared.clock import SystemClock
from shared.contracts.report import Report
from shared.registry.artifact import publishable
from shared.registry.base import (
    Active,
    Artifact,
    Hint,
    HistoryEntry,
    Mode,
    Pointers,
    RegistryUnavailable,
    State,
    Trial,
)
from shared.registry.checks import (
    check_alpha,
    check_audits,
    check_start,
    check_trial,
    checked_task,
    report_bytes,
    report_of,
)
from shared.registry.fit_note import FitNote
from shared.registry.task_state import Cause, TaskState
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
        self._changed = threading.Condition()
        self._changes: list[str] = []  # the task of each, oldest first
        self._seen = threading.local()  # how many of them: each waiting thread gets every hint

    def acquire(self, task: str) -> int:
        with self._held(task) as state:
            state.fence += 1
            return state.fence

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        version, artifact = publishable(self._trust.signed(artifact))
        with self._held(artifact.manifest.task) as state:
            state.publish(version, artifact, fence=fence, cause=Cause(at, reason))
            return state.active

    def start_trial(
        self, artifact: Artifact, *, mode: Mode, share: float, fence: int, at: datetime, reason: str
    ) -> Active:
        check_trial(mode, share)
        version, artifact = publishable(self._trust.signed(artifact))
        trial = Trial(version, mode, float(share))
        with self._held(artifact.manifest.task) as state:
            state.try_out(trial, artifact, fence=fence, cause=Cause(at, reason))
            return state.active

    def promote(
        self,
        task: str,
        *,
        version: str | None = None,
        epoch: int | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._held(task) as state:
            return state.promote(version, epoch=epoch, cause=Cause(at, reason, actor))

    def withdraw(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._held(task) as state:
            return state.withdraw(version, Cause(at, reason, actor))

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
        with self._held(task) as known:
            return known.move(state, version=version, was=was, cause=Cause(at, reason, actor))

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
        with self._held(task) as state:
            return state.ask(alpha, epoch=epoch, cause=Cause(at, reason, actor))

    def rollback(
        self,
        task: str,
        *,
        to: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._held(task) as state:
            return state.roll_back(to, Cause(at, reason, actor))

    def retire(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        with self._held(task) as state:
            return state.retire(version, Cause(at, reason, actor))

    def record_audits(
        self, task: str, version: str, partition: int, audits: Sequence[tuple[int, bool]]
    ) -> int:
        check_audits(partition, audits)
        with self._held(task) as state:
            return state.append(version, partition, audits)

    def audits(self, task: str, version: str, start: int = 0) -> tuple[bool, ...]:
        check_start(start)
        with self._held(task) as state:
            return tuple(state.outcomes.get(version, ())[start:])

    def put_report(self, report: Report) -> None:
        data = report_bytes(report)
        with self._held(report.task) as state:
            state.keep_report(report.version, report.key, data)

    def report(self, task: str, key: str) -> Report | None:
        with self._held(task) as state:
            data = state.reports.get(key) or state.unpublished.get(key)
        return None if data is None else report_of(data, task, key)

    def reports(self, task: str) -> list[str]:
        with self._held(task) as state:
            return [*state.unpublished, *(v for v in state.artifacts if v in state.reports)]

    def active(self, task: str) -> Active:
        with self._held(task) as state:
            return state.active

    def alpha(self, task: str) -> float | None:
        return self.active(task).alpha

    def pointers(self, tasks: Sequence[str]) -> Pointers:
        found = {}
        for task in tasks:
            with self._held(task) as state:
                found[task] = state.active
        return found

    def load(self, task: str, version: str) -> Artifact:
        with self._held(task) as state:
            artifact = state.stored(version)
        self._trust.check(artifact.manifest_bytes, artifact.signature, version)
        artifact.verify(version)
        return artifact

    def resign(self, task: str, version: str, *, unsigned: bool = False) -> None:
        if self._trust.signer is None:
            raise ValueError("there is no key to sign with: set TRACER_SIGNING_KEY_FILE")
        with self._held(task) as state:
            artifact = state.stored(version)
            if not unsigned:
                self._trust.check(artifact.manifest_bytes, artifact.signature, version)
            artifact.verify(version)
            state.artifacts[version] = self._trust.signed(artifact)

    def versions(self, task: str) -> list[str]:
        with self._held(task) as state:
            return list(state.artifacts)

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        with self._held(task) as state:
            return state.history[: max(0, limit)]

    def note_fit(self, task: str, note: FitNote) -> None:
        with self._held(task) as state:
            state.note = note

    def last_fit(self, task: str) -> FitNote | None:
        with self._held(task) as state:
            return state.note

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

    @contextmanager
    def _held(self, task: str) -> Iterator[TaskState]:
        """The task's state, nobody else's meanwhile; a change gives a hint."""
        with self._changed:
            self._check_available()
            state = self._tasks.setdefault(checked_task(task), TaskState(task, self._keep))
            epoch = state.epoch
            yield state
            if state.epoch != epoch:
                self._changes.append(task)
                self._changed.notify_all()

    def _check_available(self) -> None:
        if not self.available:
            raise RegistryUnavailable("the memory registry was switched off")
