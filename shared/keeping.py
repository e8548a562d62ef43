"""Tasks of the registry, kept beside the windows and put back when Redis has lost it.

The order of side effects: artifacts before the state that names them, on disk as in Redis.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    RegistryError,
    State,
    UnknownVersion,
)
from shared.registry.saving import SavedTask

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
AUDITS_SECONDS = 30.0  # how old saved audits may be; changes are saved at the next look
REASON = "restored from the trainer's store: the registry had lost it"

STATE_FILE, _ARTIFACT = "state.json", ".artifact"


class _Kept(msgspec.Struct, frozen=True, kw_only=True, tag="tracer-artifact-1"):
    manifest: bytes
    blobs: dict[str, bytes]


class Files(Protocol):
    def put(self, task: str, name: str, content: bytes) -> None: ...

    def get(self, task: str, name: str) -> bytes | None: ...

    def names(self, task: str) -> list[str]: ...

    def delete(self, task: str, name: str) -> None: ...


class Saver(Protocol):
    def stamp(self, task: str) -> tuple[Any, ...]: ...

    def read(self, task: str) -> SavedTask: ...

    def put_artifact(self, task: str, version: str, artifact: Artifact) -> None: ...

    def restore(self, saved: SavedTask, *, at: str, reason: str) -> Active | None: ...


@dataclass
class Keeper:
    """Saves each task after every change, and restores one that the registry has lost.

    `load` reads an artifact from the registry, verified.
    """

    tasks: Iterable[str]
    files: Files
    registry: Saver
    load: Callable[[str, str], Artifact]
    announce: Callable[[ModelAnnouncement], None]
    clock: Clock
    _stamps: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    _saved_at: dict[str, float] = field(default_factory=dict)
    _untold: list[ModelAnnouncement] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def look(self, task: str) -> Active | None:
        """Save or restore one task; what was restored, if it was.

        Raises RegistryError or OSError; the same call may then be made again.
        """
        with self._lock:
            stamp = self.registry.stamp(task)
            age = self.clock.monotonic() - self._saved_at.get(task, float("-inf"))
            if stamp == self._stamps.get(task) and age < AUDITS_SECONDS:
                return None
            found, saved = self.registry.read(task), self.saved(task)
            restored = None
            if saved is not None and saved.lost_from(found):
                restored = self.restore(saved)
                found = self.registry.read(task)
            if found != saved and found.history:
                self._save(found)
            self._stamps[task] = stamp if restored is None else self.registry.stamp(task)
            self._saved_at[task] = self.clock.monotonic()
            return restored

    def follow(self, stop: threading.Event, poll: float = POLL_SECONDS) -> None:
        """Look at every task every `poll` seconds, until `stop`."""
        while not stop.is_set():
            for task in self.tasks:
                try:
                    self.look(task)
                    self.tell()
                except (RegistryError, OSError, Retryable) as error:
                    log.debug("the registry is saved later: %s", error)
                except Exception:  # a trainer that no longer saves would not be noticed
                    log.exception("the registry could not be saved", extra={"task": task})
            stop.wait(poll)

    def saved(self, task: str) -> SavedTask | None:
        """What was saved last; None, with an error in the log, where it cannot be read."""
        data = self.files.get(task, STATE_FILE)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=SavedTask)
        except msgspec.DecodeError as error:
            log.error("the saved registry cannot be read: %s", error, extra={"task": task})
            return None

    def restore(self, saved: SavedTask) -> Active | None:
        """Put a task back, artifacts first; None where the registry has it still."""
        started = self.clock.monotonic()
        n = sum(self._put_back(saved, version) for version in saved.order)
        active = self.registry.restore(saved, at=self.clock.now().isoformat(), reason=REASON)
        if active is None:
            return None
        log.warning(
            "the registry had lost this task: restored",
            extra={"task": saved.task, "versions": n, "version": active.version,
                   "epoch": active.epoch, "state": active.state.value,
                   "seconds": round(self.clock.monotonic() - started, 3)},
        )  # fmt: skip
        self._untold.append(self._announcement(saved.task, active))
        return active

    def _put_back(self, saved: SavedTask, version: str) -> bool:
        task = saved.task
        data = self.files.get(task, version + _ARTIFACT)
        try:
            if data is None:
                raise CorruptArtifact("it was not saved")
            kept = msgspec.msgpack.decode(data, type=_Kept)
            artifact = Artifact(kept.manifest, kept.blobs, saved.signatures.get(version, b""))
            self.registry.put_artifact(task, version, artifact)
        except (msgspec.DecodeError, CorruptArtifact) as error:
            log.error("%s is not restored: %s", version, error, extra={"task": task})
            return False
        return True

    def _save(self, found: SavedTask) -> None:
        names = set(self.files.names(found.task))
        for version in found.order:
            if version + _ARTIFACT not in names:
                self._save_artifact(found.task, version)
        self.files.put(found.task, STATE_FILE, msgspec.json.encode(found))
        gone = {name for name in names if name.endswith(_ARTIFACT)}
        for name in gone - {version + _ARTIFACT for version in found.order}:
            self.files.delete(found.task, name)

    def _save_artifact(self, task: str, version: str) -> None:
        try:
            artifact = self.load(task, version)
        except (CorruptArtifact, UnknownVersion) as error:
            log.warning("%s is not saved: %s", version, error, extra={"task": task})
            return
        kept = _Kept(manifest=artifact.manifest_bytes, blobs=dict(artifact.blobs))
        self.files.put(task, version + _ARTIFACT, msgspec.msgpack.encode(kept))

    def tell(self) -> None:
        """Announce what was restored; what fails is announced by the next call."""
        while self._untold:
            self.announce(self._untold[0])
            self._untold.pop(0)

    def _announcement(self, task: str, active: Active) -> ModelAnnouncement:
        kind = AnnouncementKind.RETIRED
        if active.version is not None:
            serving = active.state is State.SERVING
            kind = AnnouncementKind("published" if serving else active.state.value)
        return ModelAnnouncement(
            kind=kind,
            task=task,
            announced_at=self.clock.now(),
            reason=REASON,
            version=active.version,
            epoch=active.epoch,
        )
