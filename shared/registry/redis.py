"""The registry in Redis (6.2 and newer) or Valkey: one script per change, so each is atomic.

The server must not evict keys (`maxmemory-policy noeviction`, the default).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts.events import AnnouncementKind
from shared.contracts.manifest import Stage
from shared.redis_clients import client as redis_client
from shared.registry.base import (
    MAX_ARTIFACT_BYTES,
    Active,
    Artifact,
    CorruptArtifact,
    HistoryEntry,
    Mode,
    StaleEpoch,
    State,
    StateChanged,
    TrippedVersion,
    UnknownVersion,
    publishable,
    verified_manifest,
)
from shared.registry.checks import check_audits, check_start, check_trial
from shared.registry.fit_note import FitNote, decode_note
from shared.registry.hints import HintListener
from shared.registry.refusals import reaching
from shared.registry.replies import active_of, as_bytes, as_text, entry_of
from shared.registry.scripts import (
    ACTIVE_FIELDS,
    CHANNEL,
    END_TRIAL,
    PUBLISH,
    RECORD_AUDITS,
    RETIRE,
    ROLLBACK,
    SET_STATE,
    Keys,
)


def connect(
    url: str,
    *,
    keep_versions: int = 20,
    socket_timeout: float = 2.0,
    transfer_timeout: float = 60.0,
    quiet_seconds: float = 10.0,
) -> RedisRegistry:
    """A registry at `url` (one server, Sentinel or Cluster: `shared.redis_clients`); connects when
    first used.

    A call fails within about `socket_timeout` seconds of silence, a publish, which sends
    megabytes, within `transfer_timeout`; a subscription silent for `quiet_seconds` is probed.
    Raises ValueError, which never shows the URL's password, when `url` is not one.
    """

    def client(timeout: float, health_check_interval: int) -> redis.Redis:
        return redis_client(
            url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=socket_timeout,
            socket_keepalive=True,
            health_check_interval=health_check_interval,
            # One more try on a broken connection, none on silence: that would double the wait.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )

    calls = client(socket_timeout, 15)
    transfers = client(transfer_timeout, 15)
    hints = client(socket_timeout, 0)
    listener = HintListener(hints, quiet_seconds=quiet_seconds, patience_seconds=socket_timeout)
    return RedisRegistry(calls, transfers, listener, keep_versions=keep_versions)


class RedisRegistry:
    """Implements `Registry`; safe to share between threads. Made by `connect`."""

    def __init__(
        self,
        client: redis.Redis,
        transfer: redis.Redis,
        listener: HintListener,
        *,
        keep_versions: int,
    ) -> None:
        self._client = client
        self._transfer = transfer
        self._listener = listener
        self._keep = keep_versions
        self._publish = transfer.register_script(PUBLISH)
        self._rollback = client.register_script(ROLLBACK)
        self._retire = client.register_script(RETIRE)
        self._end_trial = client.register_script(END_TRIAL)
        self._set_state = client.register_script(SET_STATE)
        self._record_audits = client.register_script(RECORD_AUDITS)

    def acquire(self, task: str) -> int:
        with reaching(self._client):
            return int(self._client.incr(Keys.of(task).fence))

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        return self._store(artifact, fence, at, reason, mode="", share="")

    def start_trial(
        self, artifact: Artifact, *, mode: Mode, share: float, fence: int, at: datetime, reason: str
    ) -> Active:
        check_trial(mode, share)
        return self._store(artifact, fence, at, reason, mode=mode, share=repr(float(share)))

    def promote(
        self, task: str, *, version: str | None = None, at: datetime, reason: str
    ) -> HistoryEntry:
        return self._finish_trial(task, AnnouncementKind.PROMOTED, version, at, reason)

    def withdraw(
        self, task: str, *, version: str | None = None, at: datetime, reason: str
    ) -> HistoryEntry:
        return self._finish_trial(task, AnnouncementKind.WITHDRAWN, version, at, reason)

    def set_state(
        self,
        task: str,
        state: State,
        *,
        version: str,
        was: State | None = None,
        at: datetime,
        reason: str,
    ) -> HistoryEntry:
        arguments = [version, state.value, was.value if was else ""]
        answer = self._change(self._set_state, task, at, reason, arguments)
        match answer[0]:
            case b"unknown":
                raise UnknownVersion(f"{version} is no longer active for {task}")
            case b"tripped":
                raise TrippedVersion(f"{version} is tripped; only another version ends that")
            case b"changed":
                raise StateChanged(f"{version} is {as_text(answer[1])}, not {was}")
        return entry_of(answer[1])

    def record_audits(
        self, task: str, version: str, partition: int, audits: Sequence[tuple[int, bool]]
    ) -> int:
        check_audits(partition, audits)
        outcomes = "".join("1" if agrees else "0" for _, agrees in audits)
        offsets = [offset for offset, _ in audits]
        with reaching(self._client):
            return int(
                self._record_audits(
                    keys=Keys.of(task).all(), args=[version, partition, outcomes, *offsets]
                )
            )

    def audits(self, task: str, version: str, start: int = 0) -> tuple[bool, ...]:
        check_start(start)
        with reaching(self._client):
            outcomes = self._client.getrange(Keys.of(task).outcomes_of(version), start, -1)
        return tuple(outcome == "1" for outcome in as_text(outcomes))

    def active(self, task: str) -> Active:
        with reaching(self._client):
            return active_of(self._client.hmget(Keys.of(task).active, ACTIVE_FIELDS))

    def load(self, task: str, version: str) -> Artifact:
        keys = Keys.of(task)
        manifest_bytes = self._fetch_manifest(keys, task, version)
        manifest = verified_manifest(manifest_bytes, version)
        if manifest.task != task:
            raise CorruptArtifact(f"{version} was made for task {manifest.task}, not {task}")
        stages = manifest.stages
        fields = [f"{version}/{stage.blob}" for stage in stages]
        self._check_sizes(keys, task, version, stages, fields)
        with reaching(self._client):
            found = self._client.hmget(keys.blobs, fields)
        blobs = {
            stage.blob: as_bytes(blob) for stage, blob in zip(stages, found, strict=True) if blob
        }
        artifact = Artifact(manifest_bytes, blobs)
        artifact.verify(version)
        return artifact

    def versions(self, task: str) -> list[str]:
        with reaching(self._client):
            return [as_text(version) for version in self._client.lrange(Keys.of(task).order, 0, -1)]

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        if limit <= 0:
            return []
        with reaching(self._client):
            entries = self._client.lrange(Keys.of(task).history, 0, limit - 1)
        return [entry_of(entry) for entry in entries]

    def note_fit(self, task: str, note: FitNote) -> None:
        with reaching(self._client):
            self._client.set(Keys.last_fit_of(task), note.encode())

    def last_fit(self, task: str) -> FitNote | None:
        with reaching(self._client):
            found = self._client.get(Keys.last_fit_of(task))
        try:
            return None if found is None else decode_note(as_bytes(found))
        except msgspec.DecodeError:
            return None

    def rollback(self, task: str, *, to: str | None, at: datetime, reason: str) -> HistoryEntry:
        answer = self._change(self._rollback, task, at, reason, [to or ""])
        if answer[0] == b"tripped":
            raise TrippedVersion(f"{to} is tripped and cannot come back")
        if answer[0] == b"unknown":
            wanted = f"version {to}" if to else "earlier version to return to"
            raise UnknownVersion(f"{task} has no {wanted}")
        return entry_of(answer[1])

    def retire(self, task: str, *, at: datetime, reason: str) -> HistoryEntry:
        answer = self._change(self._retire, task, at, reason, [])
        if answer[0] == b"unknown":
            raise UnknownVersion(f"{task} has no active version")
        return entry_of(answer[1])

    def wait_for_change(self, timeout: float) -> bool:
        with reaching(self._client):
            return self._listener.wait(timeout)

    def close(self) -> None:
        self._listener.close()
        self._transfer.close()
        self._client.close()

    def _store(
        self, artifact: Artifact, fence: int, at: datetime, reason: str, *, mode: str, share: str
    ) -> Active:
        version, artifact = publishable(artifact)
        blobs = [part for item in artifact.blobs.items() for part in item]
        answer = self._change(
            self._publish,
            artifact.manifest.task,
            at,
            reason,
            [str(fence), version, self._keep, mode, share, artifact.manifest_bytes, *blobs],
        )
        if answer[0] == b"stale":
            raise StaleEpoch(f"fence {fence} is not the newest, {as_text(answer[1])}")
        if answer[0] == b"tripped":
            raise TrippedVersion(f"{version} is tripped and cannot be tried again")
        return active_of(answer[1:])

    def _finish_trial(
        self, task: str, kind: AnnouncementKind, version: str | None, at: datetime, reason: str
    ) -> HistoryEntry:
        answer = self._change(self._end_trial, task, at, reason, [kind.value, version or ""])
        if answer[0] == b"unknown":
            raise UnknownVersion(f"{task} has no {version or 'version'} on trial")
        return entry_of(answer[1])

    def _change(
        self, script: Any, task: str, at: datetime, reason: str, arguments: list[Any]
    ) -> list[bytes]:
        common = [CHANNEL, task, uuid4().hex, at.isoformat(), reason]
        with reaching(self._client):
            answer: list[bytes] = script(keys=Keys.of(task).all(), args=[*common, *arguments])
        return answer

    def _fetch_manifest(self, keys: Keys, task: str, version: str) -> bytes:
        with reaching(self._client):
            if int(self._client.hstrlen(keys.manifests, version)) > MAX_ARTIFACT_BYTES:
                raise CorruptArtifact(f"manifest of {version} is larger than any published")
            manifest = self._client.hget(keys.manifests, version)
        if manifest is None:
            raise UnknownVersion(f"{task} has no version {version}")
        return as_bytes(manifest)

    def _check_sizes(
        self, keys: Keys, task: str, version: str, stages: Sequence[Stage], fields: list[str]
    ) -> None:
        """Before a byte of the blobs is fetched, as only this says how many there are."""
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            for field in fields:
                pipeline.hstrlen(keys.blobs, field)
            sizes = pipeline.execute()
            # Pruned since its manifest was read: gone is not corrupt.
            if 0 in sizes and not self._client.hexists(keys.manifests, version):
                raise UnknownVersion(f"{task} has no version {version}")
        if sum(sizes) > MAX_ARTIFACT_BYTES:
            raise CorruptArtifact(f"{version} is larger than any published")
        for stage, size in zip(stages, sizes, strict=True):
            if size != stage.bytes:
                raise CorruptArtifact(
                    f"stage {stage.name} of {version} has {size} bytes, published {stage.bytes}"
                )
