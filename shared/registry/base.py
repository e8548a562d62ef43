"""The registry: versions of each task, the active one, and what happened to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.contracts.events import AnnouncementKind
from shared.contracts.manifest import Manifest, decode_manifest, sha256, version_of


class RegistryError(Exception):
    """Base of what a registry raises."""


class RegistryUnavailable(RegistryError):
    """The registry cannot be reached now; try again later."""


class StaleEpoch(RegistryError):
    """Another trainer has taken this task over since; what this one made must not be published."""


class UnknownVersion(RegistryError):
    """There is no such version of the task."""


class CorruptArtifact(RegistryError):
    """What was read is not what was published."""


class ArtifactTooLarge(RegistryError):
    """More bytes than a registry takes; nothing was sent."""


MAX_ARTIFACT_BYTES = 64 * 1024 * 1024
_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def checked_task(task: str) -> str:
    """`task`, fit to be part of a key or a file name. Raises ValueError when it is not."""
    if _TASK_NAME.fullmatch(task) is None:
        raise ValueError(f"not a task name: {task!r}")
    return task


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest and the blobs it names, both as bytes."""

    manifest_bytes: bytes
    blobs: Mapping[str, bytes]  # by SHA-256

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
    try:
        manifest = artifact.manifest
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"manifest cannot be read: {error}") from error
    version = version_of(artifact.manifest_bytes, manifest.window)
    artifact.verify(version)
    named = {stage.blob: bytes(artifact.blobs[stage.blob]) for stage in manifest.stages}
    return version, Artifact(artifact.manifest_bytes, named)


@dataclass(frozen=True, slots=True)
class Active:
    """The active pointer; `epoch` grows with every change, so equal pointers mean no change."""

    version: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change of the active pointer: from `previous` to `version` (None: no active one)."""

    kind: AnnouncementKind
    version: str | None
    previous: str | None
    epoch: int
    at: datetime
    reason: str


class Registry(Protocol):
    """Every method raises RegistryUnavailable when the store is away."""

    def acquire(self, task: str) -> int:
        """Become the one trainer of `task`: a new fence, larger than all before it."""
        ...

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        """Store and activate in one step.

        Publishing the active version again changes nothing but repairs its bytes; publishing a
        stored one activates it. The oldest versions beyond the registry's limit are deleted, but
        never the active one nor the one `rollback` would return to.

        Raises StaleEpoch when `fence` is not the newest one acquired, ArtifactTooLarge, and
        CorruptArtifact when manifest and blobs do not belong together.
        """
        ...

    def active(self, task: str) -> Active:
        """The active pointer; version None and epoch 0 when nothing was ever published."""
        ...

    def load(self, task: str, version: str) -> Artifact:
        """Raises UnknownVersion or CorruptArtifact (SHA-256 of manifest and blobs are checked)."""
        ...

    def versions(self, task: str) -> list[str]:
        """Stored versions, oldest first."""
        ...

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        """What happened, newest first."""
        ...

    def rollback(self, task: str, *, to: str | None, at: datetime, reason: str) -> HistoryEntry:
        """Activate `to`, or the version that was active before the current one.

        The registry keeps a trail of the versions active before. A rollback goes back along it,
        so that two in a row go two versions back and not to and fro; what was rolled back from,
        or retired, comes back only by name or by a publish. Rolling back to the active version
        changes nothing and returns the entry that activated it.

        Raises UnknownVersion when `to` is not stored or the trail is empty.
        """
        ...

    def retire(self, task: str, *, at: datetime, reason: str) -> HistoryEntry:
        """Leave the task without an active version. Raises UnknownVersion when it has none."""
        ...

    def wait_for_change(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a hint that some task changed.

        True also when hints may have been missed, as on the first call and after a reconnect.
        Hints can be lost: callers poll `active` as well. One thread waits at a time.
        """
        ...

    def close(self) -> None: ...
