"""The registry: versions of each task, the active one, and what happened to them."""

from __future__ import annotations

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

    def verify(self, version: str) -> None:
        """Raises CorruptArtifact unless manifest and blobs are those `version` was made of."""
        try:
            manifest = self.manifest
        except ValueError as error:
            raise CorruptArtifact(f"manifest of {version} cannot be read: {error}") from error
        if version_of(self.manifest_bytes, manifest.window) != version:
            raise CorruptArtifact(f"manifest of {version} is not the one published")
        for stage in manifest.stages:
            blob = self.blobs.get(stage.blob)
            if blob is None:
                raise CorruptArtifact(f"stage {stage.name} of {version} is missing")
            if len(blob) != stage.bytes or sha256(blob) != stage.blob:
                raise CorruptArtifact(f"stage {stage.name} of {version} is not the one published")


@dataclass(frozen=True, slots=True)
class Active:
    """The active pointer; `epoch` grows with every change, so equal pointers mean no change."""

    version: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class HistoryEntry:
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
        """Store and activate in one step. Raises StaleEpoch when a newer fence was acquired.

        Publishing the active version again changes nothing.
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

        Raises UnknownVersion.
        """
        ...

    def retire(self, task: str, *, at: datetime, reason: str) -> HistoryEntry:
        """Leave the task without an active version. Raises UnknownVersion when it has none."""
        ...

    def wait_for_change(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a hint that some task changed.

        Hints can be lost: callers poll `active` as well.
        """
        ...

    def close(self) -> None: ...
