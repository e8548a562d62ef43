"""The registry: versions of each task, the active one, the one on trial, their audits, and what
happened to them.

The port, and the words it is written in, which are defined next door and imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from shared.contracts.report import Report
from shared.registry.artifact import MAX_ARTIFACT_BYTES, MAX_MANIFEST_BYTES, Artifact
from shared.registry.errors import (
    ArtifactTooLarge,
    CorruptArtifact,
    CorruptReport,
    RegistryError,
    RegistryUnavailable,
    ReportTooLarge,
    StaleEpoch,
    StateChanged,
    TrippedVersion,
    UnknownVersion,
)
from shared.registry.fit_note import FitNote
from shared.registry.pointer import (
    Active,
    Hint,
    HistoryEntry,
    Mode,
    Pointers,
    State,
    Trial,
)

__all__ = [
    "MAX_ARTIFACT_BYTES",
    "MAX_AUDITS_PER_CALL",
    "MAX_MANIFEST_BYTES",
    "MAX_UNPUBLISHED_REPORTS",
    "Active",
    "Artifact",
    "ArtifactTooLarge",
    "CorruptArtifact",
    "CorruptReport",
    "Hint",
    "HistoryEntry",
    "Mode",
    "Pointers",
    "Registry",
    "RegistryError",
    "RegistryUnavailable",
    "ReportTooLarge",
    "StaleEpoch",
    "State",
    "StateChanged",
    "Trial",
    "TrippedVersion",
    "UnknownVersion",
]

MAX_AUDITS_PER_CALL = 10_000
MAX_UNPUBLISHED_REPORTS = 10


class Registry(Protocol):
    """Every method raises RegistryUnavailable when the store is away."""

    def acquire(self, task: str) -> int:
        """Become the one trainer of `task`: a new fence, larger than all before it."""
        ...

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        """Store and activate in one step.

        The version serves, and a trial ends. Publishing the active version again changes nothing
        but repairs its bytes; so does publishing a tripped one, which stays tripped: what is
        returned then names another version, or is TRIPPED. Publishing another stored one activates
        it. The oldest versions beyond the registry's limit are deleted, but never the active one,
        the one on trial, or the one `rollback` would return to.

        Raises StaleEpoch when `fence` is not the newest one acquired, ArtifactTooLarge, and
        CorruptArtifact when manifest and blobs do not belong together.
        """
        ...

    def start_trial(
        self, artifact: Artifact, *, mode: Mode, share: float, fence: int, at: datetime, reason: str
    ) -> Active:
        """Store, without activating, and put on trial, in place of an earlier trial.

        The active version, and the same trial again, change nothing but have their bytes repaired.

        Raises TrippedVersion, ValueError for another `mode` or a `share` outside 0 to 1, and what
        `publish` raises.
        """
        ...

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
        """The version on trial becomes the active one and serves, as with `publish`.

        Raises UnknownVersion when none is on trial, or not `version` where that is given, and
        StateChanged when the task's epoch is not `epoch`: somebody has paused it, say.
        """
        ...

    def withdraw(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        """End the trial without promotion.

        Without an `actor` a rule on its audits has ended it: the version is tripped from then on.
        One that an operator withdraws may come back. Raises UnknownVersion as `promote` does.
        """
        ...

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
        """Change the state of the active version.

        In that state already, nothing changes and the newest entry is returned. Every move is
        allowed but those out of TRIPPED, which only another version ends. The kind in the history:
        `tripped`, `probation`, `paused`; back to SERVING `cleared` from probation and `resumed`
        from a pause.

        `was`: only from this state. A rule that clears a probation gives it, so that it cannot undo
        a pause it has not seen yet.

        Raises UnknownVersion when `version` is no longer active, TrippedVersion when it is tripped,
        StateChanged when it is not in the state `was`.
        """
        ...

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
        """Ask for another α than the tasks file's, from now on and for every version; None goes
        back to the tasks file. Versions, state and trial stay as they are.

        Whoever serves a version defers what it would answer while its certificate is for less than
        is asked. `alpha` is rounded to six decimals. Asked for already: nothing changes, and None
        is returned.

        `epoch`: only if the pointer still has it, for who has decided by what it showed.

        Raises ValueError for an `alpha` outside (0, 1), StateChanged for another epoch.
        """
        ...

    def alpha(self, task: str) -> float | None:
        """What `set_alpha` asked for last, None where the tasks file holds."""
        ...

    def record_audits(
        self, task: str, version: str, partition: int, audits: Sequence[tuple[int, bool]]
    ) -> int:
        """Append outcomes, (offset, agrees), of one partition to those of the version.

        Outcomes at or below the highest offset recorded before of this version and partition are
        ignored: a redelivery counts nothing twice. Kept as long as the version is stored; of one
        that is not, nothing is recorded. No change in the sense of epoch, history or hints.

        Returns how many outcomes the version has now, which no audits at all ask for. Raises
        ValueError for more than MAX_AUDITS_PER_CALL, or offsets that do not grow.
        """
        ...

    def audits(self, task: str, version: str, start: int = 0) -> tuple[bool, ...]:
        """Outcomes of the version in the order of recording, from position `start` on."""
        ...

    def put_report(self, report: Report) -> None:
        """Keep a report under its `key`, in place of an earlier one.

        That of a version is kept as long as the version is stored; of unpublished fits the newest
        MAX_UNPUBLISHED_REPORTS put are. No change in the sense of epoch, history or hints.

        Raises UnknownVersion when the report's version is not stored, and ReportTooLarge.
        """
        ...

    def report(self, task: str, key: str) -> Report | None:
        """By version or by `shared.contracts.report.unpublished_key`; None where there is none.

        Raises CorruptReport for what cannot be read.
        """
        ...

    def reports(self, task: str) -> list[str]:
        """Keys of the reports there are: of unpublished fits, oldest put first, then of versions,
        oldest first."""
        ...

    def active(self, task: str) -> Active:
        """The active pointer; version None and epoch 0 when nothing ever happened."""
        ...

    def pointers(self, tasks: Sequence[str]) -> Pointers:
        """The active pointers of many tasks, in few round trips."""
        ...

    def load(self, task: str, version: str) -> Artifact:
        """Raises UnknownVersion or CorruptArtifact (the signature, where keys are trusted, and the
        SHA-256 of manifest and blobs are checked)."""
        ...

    def resign(self, task: str, version: str, *, unsigned: bool = False) -> None:
        """Sign a stored version with this registry's key, in place of the signature it has.

        That one must be good; `unsigned`: the operator's word that the version is, although nobody
        signed it. Raises what `load` raises, and ValueError without a key to sign with.
        """
        ...

    def versions(self, task: str) -> list[str]:
        """Stored versions, oldest first."""
        ...

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        """What happened, newest first."""
        ...

    def note_fit(self, task: str, note: FitNote) -> None:
        """What the last refit came to, in place of the note before. No change in the sense of
        epoch, history or hints."""
        ...

    def last_fit(self, task: str) -> FitNote | None:
        """None where there was none, or what is stored is no note."""
        ...

    def rollback(
        self,
        task: str,
        *,
        to: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        """Activate `to`, or the version that was active before the current one.

        The registry keeps a trail of the versions active before. A rollback goes back along it,
        so that two in a row go two versions back and not to and fro; what was rolled back from,
        or retired, comes back only by name or by a publish. Tripped versions on the trail are
        passed over. The version serves; a trial goes on unless `to` is the version on trial.
        Rolling back to the active version changes nothing and returns the newest entry.

        Raises UnknownVersion when `to` is not stored or the trail is at its end, TrippedVersion
        when `to` is tripped.
        """
        ...

    def retire(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        """Leave the task without an active version or a trial.

        Raises UnknownVersion when it has no active version, or not `version` where that is given.
        """
        ...

    def wait_for_change(self, timeout: float) -> Hint:
        """Wait up to `timeout` seconds for a hint that some task changed.

        It is of `everything` when hints may have been missed, as on the first call and after a
        reconnect. Hints can be lost: callers look at `pointers` as well. One thread waits at a
        time.
        """
        ...

    def close(self) -> None: ...
