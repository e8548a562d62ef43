"""What is kept of a task outside Redis, so that a registry that lost it can be given it back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from uuid import uuid4

import msgspec
import redis

from shared.contracts.manifest import decode_manifest
from shared.registry.base import Active, Artifact
from shared.registry.refusals import reaching
from shared.registry.replies import active_of, as_bytes, as_text
from shared.registry.restoring import RESTORE
from shared.registry.scripts import ACTIVE_FIELDS, CHANNEL, MAX_HISTORY, Keys
from shared.registry.trust import Trust


class SavedAudits(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes as Redis has them ('1' agreed, '0' did not), and by partition how far they reach."""

    outcomes: str
    marks: dict[str, int]


class SavedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task in the registry but for its artifacts and reports; lists ordered as in Redis."""

    v: Literal[1] = 1
    task: str
    fence: int
    active: dict[str, str]
    order: list[str]  # oldest first
    trail: list[str]  # newest first
    tripped: list[str]
    history: list[str]  # JSON entries, newest first
    audits: dict[str, SavedAudits] = {}
    signatures: dict[str, bytes] = {}

    @property
    def pointer(self) -> Active:
        return active_of([self.active.get(name) for name in ACTIVE_FIELDS])

    def lost_from(self, found: SavedTask) -> bool:
        """Whether the registry, which has `found` now, no longer has what was saved.

        Every change has an entry with an id of its own and raises the epoch. The newest saved is
        still there unless as many have followed as are kept: then all that are left are newer.
        """
        if not self.history or self.history[0] in found.history:
            return False
        full = len(found.history) >= MAX_HISTORY
        return not full or _epoch_of(found.history[-1]) <= _epoch_of(self.history[0])


class RedisSaver:
    """Reads tasks out of Redis as a whole and puts them back."""

    def __init__(self, client: redis.Redis, transfer: redis.Redis, trust: Trust) -> None:
        """`transfer` has the patience for megabytes; `trust` is asked before anything is put."""
        self._client = client
        self._transfer = transfer
        self._trust = trust
        self._restore = client.register_script(RESTORE)

    def stamp(self, task: str) -> tuple[Any, ...]:
        """Cheap to get; another after every acquisition and every change."""
        keys = Keys.of(task)
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.get(keys.fence)
            pipeline.hget(keys.active, "epoch")
            pipeline.lindex(keys.history, 0)
            return tuple(pipeline.execute())

    def read(self, task: str) -> SavedTask:
        """As it is at one moment; the audits may be a moment newer."""
        keys = Keys.of(task)
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=True)
            pipeline.get(keys.fence)
            pipeline.hgetall(keys.active)
            for name in (keys.order, keys.trail, keys.history):
                pipeline.lrange(name, 0, -1)
            pipeline.smembers(keys.tripped)
            pipeline.hgetall(keys.signatures)
            fence, active, order, trail, history, tripped, signatures = pipeline.execute()
            versions = [as_text(version) for version in order]
            pipeline = self._client.pipeline(transaction=True)
            for version in versions:
                pipeline.get(keys.outcomes_of(version))
                pipeline.hgetall(keys.marks_of(version))
            audits = pipeline.execute()
        return SavedTask(
            task=task,
            fence=int(fence or 0),
            active={as_text(name): as_text(value) for name, value in active.items()},
            order=versions,
            trail=[as_text(version) for version in trail],
            tripped=sorted(as_text(version) for version in tripped),
            history=[as_text(entry) for entry in history],
            audits={
                version: SavedAudits(outcomes=as_text(outcomes), marks=_numbers(marks))
                for version, outcomes, marks in zip(
                    versions, audits[::2], audits[1::2], strict=True
                )
                if outcomes
            },
            signatures={as_text(name): as_bytes(value) for name, value in signatures.items()},
        )

    def put_artifact(self, task: str, version: str, artifact: Artifact) -> None:
        """The bytes only: nothing names them before `restore`. Raises CorruptArtifact
        unless they are those of `version`, signed by somebody trusted."""
        self._trust.check(artifact.manifest_bytes, artifact.signature, version)
        artifact.verify(version)
        keys = Keys.of(task)
        names = [stage.blob for stage in decode_manifest(artifact.manifest_bytes).stages]
        with reaching(self._transfer):
            for name in names:
                self._transfer.hset(keys.blobs, f"{version}/{name}", artifact.blobs[name])
            self._transfer.hset(keys.files, version, " ".join(names))
            if artifact.signature:
                self._transfer.hset(keys.signatures, version, artifact.signature)
            self._transfer.hset(keys.manifests, version, artifact.manifest_bytes)

    def restore(self, saved: SavedTask, *, at: str, reason: str) -> Active | None:
        """Put `saved` back in one step, as far as artifacts are there; what it returns serves now.

        A newer window published meanwhile stays active. Fence and epoch jump beyond any that may
        have been given out since `saved` was read. None where the registry has it all still.
        """
        keys = Keys.of(saved.task).all()
        document = msgspec.json.encode(saved)
        arguments: list[Any] = [CHANNEL, saved.task, uuid4().hex, at, reason, "", document]
        with reaching(self._client):
            answer = self._restore(keys=keys, args=arguments)
        return active_of(answer[1:]) if answer[0] == b"ok" else None


def _epoch_of(entry: str) -> int:
    return int(msgspec.json.decode(entry)["epoch"])


def _numbers(marks: Mapping[Any, Any]) -> dict[str, int]:
    return {as_text(partition): int(offset) for partition, offset in sorted(marks.items())}
