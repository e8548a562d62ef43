"""Redis: does it answer, keep what it is given, and let us do what the registry does?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.ctl.doctor.findings import Finding, Patient, clock, failed, ok, skipped, warning
from shared.redis_clients import client
from shared.registry.scripts import CHANNEL

_OLDEST = (6, 2)
_SCRIPT = "redis.call('HSET', KEYS[1], 'at', '1') return redis.call('PEXPIRE', KEYS[1], 10000)"
_NOBODY_LOOKED = ("redis.clock", "redis.memory", "redis.persistence", "redis.permissions")


def examine(patient: Patient) -> Iterator[Finding]:
    """Everything about Redis. Leaves nothing behind."""
    try:
        asked = client(
            patient.settings.redis_url.get_secret_value(),
            socket_timeout=patient.patience,
            socket_connect_timeout=patient.patience,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        yield failed("redis.reach", str(error), "correct TRACER_REDIS_URL")
        return
    try:
        found, info = _reach(asked)
        yield found
        if info is None:
            yield from (skipped(check, "Redis does not answer") for check in _NOBODY_LOOKED)
            return
        yield _guarded("redis.clock", lambda: _clock(asked, patient))
        yield _memory(info)
        yield _guarded("redis.persistence", lambda: _persistence(asked, info))
        yield _permissions(asked)
    finally:
        asked.close()


def _reach(asked: redis.Redis) -> tuple[Finding, dict[str, Any] | None]:
    try:
        begun = time.monotonic()
        asked.ping()
        milliseconds = (time.monotonic() - begun) * 1_000
        info = _of_one(asked.info())
    except redis.exceptions.AuthenticationError as error:
        return failed(
            "redis.reach", str(error), "correct user and password in TRACER_REDIS_URL"
        ), None
    except redis.exceptions.NoPermissionError as error:
        return failed("redis.reach", str(error), "ACL SETUSER … +ping +info"), None
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        fix = "is it running, and does TRACER_REDIS_URL name it (rediss:// for TLS)?"
        return failed("redis.reach", str(error), fix), None
    version = str(info.get("redis_version", "?"))
    found = f"version {version} answers in {milliseconds:.1f} ms"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        return failed("redis.reach", found, "upgrade to Redis 6.2 or newer, or Valkey"), info
    return ok("redis.reach", found), info


def _clock(asked: redis.Redis, patient: Patient) -> Finding:
    sent = time.time()
    answer: Any = asked.time()
    got = time.time()
    seconds, microseconds = _of_one(answer)
    ahead = seconds + microseconds / 1e6 - (sent + got) / 2
    return clock("redis.clock", ahead, (got - sent) / 2, patient, "Redis")


def _memory(info: dict[str, Any]) -> Finding:
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    policy = info.get("maxmemory_policy", "noeviction")
    found = f"{policy}, {used / 1e6:.0f} MB used of {f'{limit / 1e6:.0f} MB' if limit else 'any'}"
    if policy != "noeviction":
        fix = "CONFIG SET maxmemory-policy noeviction: evicted keys are models that are gone"
        return (failed if limit else warning)("redis.memory", found, fix)
    if limit and used > 0.9 * limit:
        return warning("redis.memory", found, "raise maxmemory: publishing fails when it is full")
    return ok("redis.memory", found)


def _persistence(asked: redis.Redis, info: dict[str, Any]) -> Finding:
    check = "redis.persistence"
    if int(info.get("aof_enabled", 0)):
        if info.get("aof_last_write_status", "ok") != "ok":
            fix = "free its disk; see Redis's log"
            return failed(check, "the append-only file cannot be written", fix)
        return ok(check, "append-only file")
    fix = "CONFIG SET appendonly yes, and in redis.conf: after a restart models are gone otherwise"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return failed(check, "no append-only file, and the last snapshot failed", fix)
    try:
        points = str(_of_one(asked.config_get("save")).get("save", ""))
    except (redis.ResponseError, redis.exceptions.NoPermissionError):
        said = "no append-only file; whether snapshots are made cannot be asked (CONFIG GET)"
        return warning(check, said, fix)
    if not points:
        return failed(check, "neither append-only file nor snapshots", fix)
    return warning(check, f"snapshots only ({points}): what came after the last is lost", fix)


def _permissions(asked: redis.Redis) -> Finding:
    """Do, on a key of our own, each kind of thing that the services do."""
    key = f"tracer:{{doctor}}:{uuid4().hex}"
    attempts: list[tuple[str, Callable[[], Any]]] = [
        ("write keys tracer:* (SET)", lambda: asked.set(key, "1", px=10_000)),
        ("read keys tracer:* (GET)", lambda: asked.get(key)),
        ("delete keys tracer:* (DEL)", lambda: asked.delete(key)),
        ("run scripts (EVAL)", lambda: asked.eval(_SCRIPT, 1, key)),
        ("read hashes (HGETALL)", lambda: asked.hgetall(key)),
        # A hint that something changed; routers look, and see that nothing did.
        (f"tell changes (PUBLISH {CHANNEL})", lambda: asked.publish(CHANNEL, "")),
        (f"hear of changes (SUBSCRIBE {CHANNEL})", lambda: _subscribe(asked)),
    ]
    refused = []
    for what, attempt in attempts:
        try:
            attempt()
        except redis.exceptions.NoPermissionError:
            refused.append(what)
        except redis.RedisError as error:
            fix = "a replica or a full server takes no writes: name the master, raise maxmemory"
            return failed("redis.permissions", f"may not {what}: {error}", fix)
    with suppress(redis.RedisError):  # it expires
        asked.delete(key)
    if refused:
        fix = "ACL SETUSER … ~tracer:* &tracer:* +@read +@write +@scripting +@pubsub +@connection"
        return failed("redis.permissions", f"may not {', '.join(refused)}", fix)
    return ok("redis.permissions", "reads, writes, runs scripts, tells and hears of changes")


def _subscribe(asked: redis.Redis) -> None:
    listener = asked.pubsub()  # type: ignore[no-untyped-call]
    try:
        listener.subscribe(CHANNEL)
        listener.get_message(timeout=2.0)  # the refusal, where there is one
    finally:
        listener.close()


def _guarded(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except redis.exceptions.NoPermissionError as error:
        return skipped(check, str(error))
    except redis.RedisError as error:
        return failed(check, str(error), "is Redis well? See its log")


def _of_one(answer: Any) -> Any:
    """A cluster may answer with what each node says: the first one's."""
    if isinstance(answer, dict) and answer and all(":" in str(name) for name in answer):
        return next(iter(answer.values()))
    return answer
