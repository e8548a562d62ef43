"""A copy of each task's active version on local disk, so that a router starts without Redis."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import msgspec

from shared.registry.base import (
    MAX_ARTIFACT_BYTES,
    Active,
    Artifact,
    CorruptArtifact,
    State,
)
from shared.registry.checks import checked_task
from shared.registry.trust import Trust

_logger = logging.getLogger(__name__)
_MAX_FILE_BYTES = MAX_ARTIFACT_BYTES + 1024 * 1024


class _Copy(msgspec.Struct, frozen=True, kw_only=True, tag="tracer-artifact-2"):
    version: str
    epoch: int
    state: State  # required: a tripped version must not answer because its state got lost
    manifest: bytes
    blobs: dict[str, bytes]
    alpha: float | None = None
    signature: bytes = b""


class DiskCopy:
    """One file per task in `folder`, replaced as a whole; routers may share the folder.

    Kept with the version are its state and the α asked for; of a trial nothing is kept.
    """

    def __init__(self, folder: Path, trust: Trust | None = None) -> None:
        """`trust` decides what is believed of the disk, as it does of the registry."""
        self._folder = folder
        self._trust = trust or Trust()

    def save(self, task: str, active: Active, artifact: Artifact) -> None:
        """Keep `artifact`, the active version of `task`, instead of what was kept before.

        Raises ValueError when `artifact` is not `active` or not of `task`, CorruptArtifact, and
        OSError; after any of them the copy kept before is still there.
        """
        if active.version is None:
            raise ValueError("no active version to keep; see forget()")
        artifact.verify(active.version)
        if artifact.manifest.task != task:
            raise ValueError(f"version {active.version} is not of task {task}")
        copy = _Copy(
            version=active.version,
            epoch=active.epoch,
            state=active.state,
            manifest=artifact.manifest_bytes,
            blobs=dict(artifact.blobs),
            alpha=active.alpha,
            signature=artifact.signature,
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        _replace(self._path(task), msgspec.msgpack.encode(copy))

    def load(self, task: str) -> tuple[Active, Artifact] | None:
        """What was kept last, verified; None, with a warning, when it cannot be trusted."""
        path = self._path(task)
        try:
            if path.stat().st_size > _MAX_FILE_BYTES:
                raise CorruptArtifact("larger than any artifact")
            copy = msgspec.msgpack.decode(path.read_bytes(), type=_Copy)
            self._trust.check(copy.manifest, copy.signature, copy.version)
            artifact = Artifact(copy.manifest, copy.blobs, copy.signature)
            artifact.verify(copy.version)
            if artifact.manifest.task != task:
                raise CorruptArtifact(f"made for task {artifact.manifest.task}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, CorruptArtifact) as error:
            _logger.warning("local copy %s of task %s is not used: %s", path, task, error)
            return None
        return Active(copy.version, copy.epoch, copy.state, alpha=copy.alpha), artifact

    def forget(self, task: str) -> None:
        """Keep nothing of `task`, as when it was retired. Raises OSError."""
        self._path(task).unlink(missing_ok=True)

    def _path(self, task: str) -> Path:
        return self._folder / f"{checked_task(task)}.msgpack"


def _replace(path: Path, data: bytes) -> None:
    """Write all of `data` to `path` or leave it as it was, even if the machine stops meanwhile."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must survive
    finally:
        os.close(folder)
