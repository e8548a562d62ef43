"""The registry in Redis (6.2 and newer) or Valkey: one script per change, so each is atomic.

The server must not evict keys (`maxmemory-policy noeviction`, the default).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.contracts.events import AnnouncementKind
from shared.contracts.report import Report
from shared.redis_clients import client as redis_client
from shared.registry.artifact import publishable
from shared.registry.base import (
    MAX_UNPUBLISHED_REPORTS,
    Active,
    Artifact,
    Hint,
    HistoryEntry,
    Mode,
    StaleEpoch,
    State,
    StateChanged,
    TrippedVersion,
    UnknownVersion,
)
from shared.registry.checks import (
    check_alpha,
    check_audits,
    check_trial,
    report_bytes,
)
from shared.registry.fit_note import FitNote
from shared.registry.hints import HintListener
from shared.registry.loading import load_artifact
from shared.registry.redis_reads import RedisReads
from shared.registry.refusals import reaching
from shared.registry.replies import active_of, as_text, entry_of
from shared.registry.saving import RedisSaver
from shared.registry.scripts import (
    CHANNEL,
    END_TRIAL,
    PUBLISH,
    PUT_REPORT,
    RECORD_AUDITS,
    RETIRE,
    ROLLBACK,
    SET_ALPHA,
    SET_STATE,
    Keys,
)
from shared.registry.trust import Trust


def connect(
    url: str,
    *,
    keep_versions: int = 20,
    socket_timeout: float = 2.0,
    transfer_timeout: float = 60.0,
    quiet_seconds: float = 10.0,
    trust: Trust | None = None,
) -> RedisRegistry:
    """A registry at `url` (one server, Sentinel or Cluster: `shared.redis_clients`); connects when
    first used.

    A call fails within about `socket_timeout` seconds of silence, a publish, which sends
    megabytes, within `transfer_timeout`; a subscription silent for `quiet_seconds` is probed.
    `trust` says what is believed and signs what is published; without it signatures are neither
    made nor checked.
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
    return RedisRegistry(
        calls, transfers, listener, keep_versions=keep_versions, trust=trust or Trust()
    )


class RedisRegistry(RedisReads):
    """Implements `Registry`, whose changes are here; safe to share between threads. Made by
    `connect`."""

    def __init__(
        self,
        client: redis.Redis,
        transfer: redis.Redis,
        listener: HintListener,
        *,
        keep_versions: int,
        trust: Trust,
    ) -> None:
        super().__init__(client, trust)
        self._transfer = transfer
        self._listener = listener
        self._keep = keep_versions
        self._publish = transfer.register_script(PUBLISH)
        self._rollback = client.register_script(ROLLBACK)
        self._retire = client.register_script(RETIRE)
        self._end_trial = client.register_script(END_TRIAL)
        self._set_state = client.register_script(SET_STATE)
        self._set_alpha = client.register_script(SET_ALPHA)
        self._record_audits = client.register_script(RECORD_AUDITS)
        self._put_report = transfer.register_script(PUT_REPORT)

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
        self,
        task: str,
        *,
        version: str | None = None,
        epoch: int | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        kind = AnnouncementKind.PROMOTED
        return self._finish_trial(task, kind, version, at, reason, actor, epoch)

    def withdraw(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        return self._finish_trial(task, AnnouncementKind.WITHDRAWN, version, at, reason, actor)

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
        arguments = [version, state.value, was.value if was else ""]
        answer = self._change(self._set_state, task, at, reason, arguments, actor)
        match answer[0]:
            case b"unknown":
                raise UnknownVersion(f"{version} is no longer active for {task}")
            case b"tripped":
                raise TrippedVersion(f"{version} is tripped; only another version ends that")
            case b"changed":
                raise StateChanged(f"{version} is {as_text(answer[1])}, not {was}")
        return entry_of(answer[1])

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
        arguments = ["" if alpha is None else repr(alpha), "" if epoch is None else str(epoch)]
        answer = self._change(self._set_alpha, task, at, reason, arguments, actor)
        if answer[0] == b"changed":
            raise _moved_on(task, answer[1], epoch)
        return entry_of(answer[1]) if answer[0] == b"ok" else None

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

    def put_report(self, report: Report) -> None:
        data = report_bytes(report)
        arguments: list[Any] = [report.version or "", report.key, data, MAX_UNPUBLISHED_REPORTS]
        with reaching(self._client):
            kept = self._put_report(keys=Keys.of(report.task).all(), args=arguments)
        if not kept:
            raise UnknownVersion(f"{report.task} has no version {report.version}")

    def resign(self, task: str, version: str, *, unsigned: bool = False) -> None:
        if self._trust.signer is None:
            raise ValueError("there is no key to sign with: set TRACER_SIGNING_KEY_FILE")
        artifact = load_artifact(self._client, task, version, Trust() if unsigned else self._trust)
        with reaching(self._client):
            signature = self._trust.signed(artifact).signature
            self._client.hset(Keys.of(task).signatures, version, signature)

    def note_fit(self, task: str, note: FitNote) -> None:
        with reaching(self._client):
            self._client.set(Keys.last_fit_of(task), note.encode())

    def rollback(
        self,
        task: str,
        *,
        to: str | None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        answer = self._change(self._rollback, task, at, reason, [to or ""], actor)
        if answer[0] == b"tripped":
            raise TrippedVersion(f"{to} is tripped and cannot come back")
        if answer[0] == b"unknown":
            wanted = f"version {to}" if to else "earlier version to return to"
            raise UnknownVersion(f"{task} has no {wanted}")
        return entry_of(answer[1])

    def retire(
        self,
        task: str,
        *,
        version: str | None = None,
        at: datetime,
        reason: str,
        actor: str | None = None,
    ) -> HistoryEntry:
        answer = self._change(self._retire, task, at, reason, [version or ""], actor)
        if answer[0] == b"unknown":
            raise UnknownVersion(f"{task} has no active {version or 'version'}")
        return entry_of(answer[1])

    def wait_for_change(self, timeout: float) -> Hint:
        with reaching(self._client):
            return self._listener.wait(timeout)

    def saver(self) -> RedisSaver:
        """For what is kept outside of Redis; it ends with this registry."""
        return RedisSaver(self._client, self._transfer, self._trust)

    def close(self) -> None:
        self._listener.close()
        self._transfer.close()
        self._client.close()

    def _store(
        self, artifact: Artifact, fence: int, at: datetime, reason: str, *, mode: str, share: str
    ) -> Active:
        version, artifact = publishable(self._trust.signed(artifact))
        blobs = [part for item in artifact.blobs.items() for part in item]
        answer = self._change(
            self._publish,
            artifact.manifest.task,
            at,
            reason,
            [str(fence), version, self._keep, mode, share, artifact.manifest_bytes,
             artifact.signature, *blobs],
        )  # fmt: skip
        if answer[0] == b"stale":
            raise StaleEpoch(f"fence {fence} is not the newest, {as_text(answer[1])}")
        if answer[0] == b"tripped":
            raise TrippedVersion(f"{version} is tripped and cannot be tried again")
        return active_of(answer[1:])

    def _finish_trial(
        self,
        task: str,
        kind: AnnouncementKind,
        version: str | None,
        at: datetime,
        reason: str,
        actor: str | None,
        epoch: int | None = None,
    ) -> HistoryEntry:
        arguments = [kind.value, version or "", "" if epoch is None else str(epoch)]
        answer = self._change(self._end_trial, task, at, reason, arguments, actor)
        if answer[0] == b"unknown":
            raise UnknownVersion(f"{task} has no {version or 'version'} on trial")
        if answer[0] == b"changed":
            raise _moved_on(task, answer[1], epoch)
        return entry_of(answer[1])

    def _change(
        self,
        script: Any,
        task: str,
        at: datetime,
        reason: str,
        arguments: list[Any],
        actor: str | None = None,
    ) -> list[bytes]:
        common = [CHANNEL, task, uuid4().hex, at.isoformat(), reason, actor or ""]
        with reaching(self._client):
            answer: list[bytes] = script(keys=Keys.of(task).all(), args=[*common, *arguments])
        return answer


def _moved_on(task: str, now: bytes, expected: int | None) -> StateChanged:
    return StateChanged(f"{task} has changed: epoch {as_text(now)}, not {expected}")
