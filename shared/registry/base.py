"""The registry: versions of each task, the active one, the one on trial, their audits, and what
happened to them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from shared.contracts.events import AnnouncementKind
from shared.contracts.manifest import Manifest, decode_manifest, sha256, version_of
from shared.contracts.report import Report
from shared.registry.fit_note import FitNote


class RegistryError(Exception):
    """Base of what a registry raises."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached now; try again later."""


class StaleEpoch(RegistryError):
    """Another trainer has taken this task over since; what this one made must not be published."""


class UnknownVersion(RegistryError):
    """There is no such version of the task."""


class TrippedVersion(RegistryError):
    """The version's live agreement was credibly below alpha: it answers no more, ever."""


class StateChanged(RegistryError):
    """The active version is no longer in the state the caller takes it to be in."""


class CorruptArtifact(RegistryError):
    """What was read is not what was published."""


class ArtifactTooLarge(RegistryError):
    """More bytes than a registry takes; nothing was sent."""


class CorruptReport(RegistryError):
    """A stored report cannot be read: damaged, or of a newer release."""


class ReportTooLarge(RegistryError):
    """More bytes than MAX_REPORT_BYTES; nothing was sent."""


MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
# JSON takes many times its size once it is read; ours have some ten KiB.
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
MAX_AUDITS_PER_CALL = 10_000
MAX_UNPUBLISHED_REPORTS = 10
_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def checked_task(task: str) -> str:
    """`task`, fit to be part of a key or a file name. Raises ValueError when it is not."""
    if _TASK_NAME.fullmatch(task) is None:
        raise ValueError(f"not a task name: {task!r}")
    return task


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest and the blobs it names, both as bytes. `signature`: see signatures.py; empty
    where nobody signed."""

    manifest_bytes: bytes
    blobs: Mapping[str, bytes]  # by SHA-256
    signature: bytes = b""

    @property
    def manifest(self) -> Manifest:
        return decode_manifest(self.manifest_bytes)

    @property
    def version(self) -> str:
        return version_of(self.manifest_bytes, self.manifest.window)

    @property
    def size(self) -> int:
        """Bytes of manifest and blobs together."""
        return len(self.manifest_bytes) + sum(map(len, self.blobs.values()))

    def verify(self, version: str) -> None:
        """Raises CorruptArtifact unless manifest and blobs are those `version` was made of."""
        for stage in verified_manifest(self.manifest_bytes, version).stages:
            blob = self.blobs.get(stage.blob)
            if blob is None:
                raise CorruptArtifact(f"stage {stage.name} of {version} is missing")
            if len(blob) != stage.bytes or sha256(blob) != stage.blob:
                raise CorruptArtifact(f"stage {stage.name} of {version} is not the one published")


def verified_manifest(data: bytes, version: str) -> Manifest:
    """The manifest, if it is the one `version` was made of. Raises CorruptArtifact."""
    try:
        manifest = decode_manifest(data)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"manifest of {version} cannot be read: {error}") from error
    if version_of(data, manifest.window) != version:
        raise CorruptArtifact(f"manifest of {version} is not the one published")
    return manifest


def publishable(artifact: Artifact) -> tuple[str, Artifact]:
    """The artifact's version, and the artifact with exactly the blobs its manifest names.

    Raises ArtifactTooLarge, or CorruptArtifact when manifest and blobs do not belong together.
    """
    if artifact.size > MAX_ARTIFACT_BYTES:
        raise ArtifactTooLarge(
            f"artifact of {artifact.size:,} bytes exceeds the limit of {MAX_ARTIFACT_BYTES:,}"
        )
    if len(artifact.manifest_bytes) > MAX_MANIFEST_BYTES:
        raise ArtifactTooLarge(
            f"manifest of {len(artifact.manifest_bytes):,} bytes exceeds the limit of "
            f"{MAX_MANIFEST_BYTES:,}"
        )
    try:
        manifest = artifact.manifest
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"manifest cannot be read: {error}") from error
    version = version_of(artifact.manifest_bytes, manifest.window)
    artifact.verify(version)
    named = {stage.blob: bytes(artifact.blobs[stage.blob]) for stage in manifest.stages}
    return version, Artifact(artifact.manifest_bytes, named, artifact.signature)


class State(StrEnum):
    """Whether the active version answers: `SERVING` only. Under `PROBATION` it is checked, by a
    rule on its audits, until it is cleared or tripped; `PAUSED` is an operator's word; `TRIPPED`
    is for ever."""

    SERVING = "serving"
    PROBATION = "probation"
    TRIPPED = "tripped"
    PAUSED = "paused"


Mode = Literal["shadow", "canary"]


@dataclass(frozen=True, slots=True)
class Trial:
    """A certified version beside the active one. `shadow`: scored, answers nobody. `canary`:
    answers `share` (0 to 1) of the requests."""

    version: str
    mode: Mode
    share: float


@dataclass(frozen=True, slots=True)
class Active:
    """The active pointer; `epoch` grows with every change, so equal pointers mean no change.

    Without a version the state is SERVING. `alpha` is what an operator asks for instead of the
    tasks file's; None: the tasks file holds.
    """

    version: str | None
    epoch: int
    state: State = State.SERVING
    trial: Trial | None = None
    alpha: float | None = None

    def asked(self, configured: float) -> float:
        """The α asked for now, where the tasks file says `configured`."""
        return configured if self.alpha is None else self.alpha


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change. `previous` is the version that was active before it (None: no active one).

    `version` is the active one after it, None after a retirement; where only the state changed the
    same as `previous`. The kinds `shadow`, `canary` and `withdrawn` leave the active version alone:
    there `version` is the one on trial. `actor` is who asked for it, None where a service did.
    `alpha`: of the kind `alpha`, what is asked for from then on (None: what the tasks file says).
    """

    kind: AnnouncementKind
    version: str | None
    previous: str | None
    epoch: int
    at: datetime
    reason: str
    actor: str | None = None
    alpha: float | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What may have changed since the last wait: `tasks`, or `everything` where hints may have
    been missed. False when nothing has."""

    tasks: frozenset[str] = frozenset()
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or bool(self.tasks)


# By task; the error where a pointer cannot be read: it holds up no other task.
Pointers = Mapping[str, Active | RegistryError]


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
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        """The version on trial becomes the active one and serves, as with `publish`.

        Raises UnknownVersion when none is on trial, or not `version` where that is given.
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
        """End the trial without promotion. Raises UnknownVersion as `promote` does."""
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

        Returns how many outcomes the version has now. Raises ValueError for more than
        MAX_AUDITS_PER_CALL, or offsets that do not grow.
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
        self, task: str, *, at: datetime, reason: str, actor: str | None = None
    ) -> HistoryEntry:
        """Leave the task without an active version or a trial.

        Raises UnknownVersion when it has no active version.
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
