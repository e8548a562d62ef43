"""The registry in Redis (6.2 and newer) or Valkey: one script per change, so each is atomic.

The server must not evict keys (`maxmemory-policy noeviction`, the default).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts.manifest import Stage
from shared.registry.base import (
    MAX_ARTIFACT_BYTES,
    Active,
    Artifact,
    CorruptArtifact,
    HistoryEntry,
    RegistryError,
    RegistryUnavailable,
    StaleEpoch,
    UnknownVersion,
    publishable,
    verified_manifest,
)
from shared.registry.hints import HintListener
from shared.registry.scripts import CHANNEL, PUBLISH, RETIRE, ROLLBACK, Keys

# Refusals that pass: a failover, a full or loading server, a slot on the move.
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
# The same, where redis-py has no class for the reply.
_PASSING_CODES = ("BUSY", "LOADING", "MASTERDOWN", "NOREPLICAS")


def connect(
    url: str,
    *,
    keep_versions: int = 20,
    socket_timeout: float = 2.0,
    transfer_timeout: float = 60.0,
    quiet_seconds: float = 10.0,
) -> RedisRegistry:
    """A registry at `url` (redis://, rediss:// or unix://); connects when first used.

    A call fails within about `socket_timeout` seconds of silence, a publish, which sends
    megabytes, within `transfer_timeout`; a subscription silent for `quiet_seconds` is probed.
    Raises ValueError, which never shows the URL's password, when `url` is not one.
    """

    def client(timeout: float, health_check_interval: int) -> redis.Redis:
        return redis.Redis.from_url(
            url,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=socket_timeout,
            socket_keepalive=True,
            health_check_interval=health_check_interval,
            # One more try on a broken connection, none on silence: that would double the wait.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
        )

    try:
        calls = client(socket_timeout, 15)
        transfers = client(transfer_timeout, 15)
        hints = client(socket_timeout, 0)
    except ValueError:
        # urllib quotes the part it cannot read, which may be a piece of the password.
        raise ValueError("not a Redis URL; expected redis://user:password@host:port/db") from None
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

    def acquire(self, task: str) -> int:
        with self._reaching():
            return int(self._client.incr(Keys.of(task).fence))

    def publish(self, artifact: Artifact, *, fence: int, at: datetime, reason: str) -> Active:
        version, artifact = publishable(artifact)
        blobs = [part for item in artifact.blobs.items() for part in item]
        answer, detail = self._change(
            self._publish,
            artifact.manifest.task,
            at,
            reason,
            [str(fence), version, self._keep, artifact.manifest_bytes, *blobs],
        )
        if answer == b"stale":
            raise StaleEpoch(f"fence {fence} is not the newest, {detail.decode()}")
        return Active(version, int(detail))

    def active(self, task: str) -> Active:
        with self._reaching():
            version, epoch = self._client.hmget(Keys.of(task).active, ["version", "epoch"])
        return Active(_text(version) if version else None, int(epoch or 0))

    def load(self, task: str, version: str) -> Artifact:
        keys = Keys.of(task)
        manifest_bytes = self._fetch_manifest(keys, task, version)
        manifest = verified_manifest(manifest_bytes, version)
        if manifest.task != task:
            raise CorruptArtifact(f"{version} was made for task {manifest.task}, not {task}")
        stages = manifest.stages
        fields = [f"{version}/{stage.blob}" for stage in stages]
        self._check_sizes(keys, task, version, stages, fields)
        with self._reaching():
            found = self._client.hmget(keys.blobs, fields)
        blobs = {
            stage.blob: _bytes(blob) for stage, blob in zip(stages, found, strict=True) if blob
        }
        artifact = Artifact(manifest_bytes, blobs)
        artifact.verify(version)
        return artifact

    def versions(self, task: str) -> list[str]:
        with self._reaching():
            return [_text(version) for version in self._client.lrange(Keys.of(task).order, 0, -1)]

    def history(self, task: str, limit: int = 50) -> list[HistoryEntry]:
        if limit <= 0:
            return []
        with self._reaching():
            entries = self._client.lrange(Keys.of(task).history, 0, limit - 1)
        return [_entry(entry) for entry in entries]

    def rollback(self, task: str, *, to: str | None, at: datetime, reason: str) -> HistoryEntry:
        answer = self._change(self._rollback, task, at, reason, [to or ""])
        if answer[0] == b"unknown":
            wanted = f"version {to}" if to else "earlier version to return to"
            raise UnknownVersion(f"{task} has no {wanted}")
        return _entry(answer[1])

    def retire(self, task: str, *, at: datetime, reason: str) -> HistoryEntry:
        answer = self._change(self._retire, task, at, reason, [])
        if answer[0] == b"unknown":
            raise UnknownVersion(f"{task} has no active version")
        return _entry(answer[1])

    def wait_for_change(self, timeout: float) -> bool:
        with self._reaching():
            return self._listener.wait(timeout)

    def close(self) -> None:
        self._listener.close()
        self._transfer.close()
        self._client.close()

    def _change(
        self, script: Any, task: str, at: datetime, reason: str, arguments: list[Any]
    ) -> list[bytes]:
        common = [CHANNEL, task, uuid4().hex, at.isoformat(), reason]
        with self._reaching():
            answer: list[bytes] = script(keys=Keys.of(task).all(), args=[*common, *arguments])
        return answer

    def _fetch_manifest(self, keys: Keys, task: str, version: str) -> bytes:
        with self._reaching():
            if int(self._client.hstrlen(keys.manifests, version)) > MAX_ARTIFACT_BYTES:
                raise CorruptArtifact(f"manifest of {version} is larger than any published")
            manifest = self._client.hget(keys.manifests, version)
        if manifest is None:
            raise UnknownVersion(f"{task} has no version {version}")
        return _bytes(manifest)

    def _check_sizes(
        self, keys: Keys, task: str, version: str, stages: Sequence[Stage], fields: list[str]
    ) -> None:
        """Before a byte of the blobs is fetched, as only this says how many there are."""
        with self._reaching():
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

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Turns what redis-py raises into the registry's errors, none of which show the URL."""
        try:
            yield
        except _PASSING as error:
            raise RegistryUnavailable(f"Redis at {self._address()}: {error}") from error
        except redis.RedisError as error:
            kind = RegistryUnavailable if str(error).startswith(_PASSING_CODES) else RegistryError
            raise kind(f"Redis at {self._address()}: {error}") from error

    def _address(self) -> str:
        where = self._client.connection_pool.connection_kwargs
        return str(where.get("path") or f"{where.get('host')}:{where.get('port')}")


def _entry(data: Any) -> HistoryEntry:
    return msgspec.json.decode(data, type=HistoryEntry)


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else bytes(value, "utf-8")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
