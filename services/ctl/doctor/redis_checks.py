"""Redis: does it answer, keep what it is given, and let us do what the services do?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.ctl.doctor import redis_permissions
from services.ctl.doctor.findings import Finding, Patient, clock, failed, ok, skipped, warning
from shared.redis_clients import client

_OLDEST = (6, 2)
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
        if info:
            yield _memory(info)
            yield _guarded("redis.persistence", lambda: _persistence(asked, info))
        else:
            why = "this user may not ask for it (INFO): ask as the owner"
            yield from (skipped(check, why) for check in ("redis.memory", "redis.persistence"))
        yield redis_permissions.examine(asked, patient)
    finally:
        asked.close()


def _reach(asked: redis.Redis) -> tuple[Finding, dict[str, Any] | None]:
    """And what INFO says: empty where this user may not ask, which no service needs; None where
    Redis does not answer."""
    try:
        begun = time.monotonic()
        asked.ping()
        milliseconds = (time.monotonic() - begun) * 1_000
        info = _info(asked)
    except redis.exceptions.AuthenticationError as error:
        return failed(
            "redis.reach", str(error), "correct user and password in TRACER_REDIS_URL"
        ), None
    except redis.exceptions.NoPermissionError as error:
        return failed("redis.reach", str(error), "ACL SETUSER … +ping"), None
    except (redis.RedisError, redis.exceptions.RedisClusterException) as error:
        fix = "is it running, and does TRACER_REDIS_URL name it (rediss:// for TLS)?"
        return failed("redis.reach", str(error), fix), None
    if not info:
        return ok("redis.reach", f"answers in {milliseconds:.1f} ms"), info
    version = str(info.get("redis_version", "?"))
    found = f"version {version} answers in {milliseconds:.1f} ms"
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < _OLDEST:
        return failed("redis.reach", found, "upgrade to Redis 6.2 or newer, or Valkey"), info
    return ok("redis.reach", found), info


def _info(asked: redis.Redis) -> dict[str, Any]:
    try:
        said: dict[str, Any] = _of_one(asked.info())
    except redis.exceptions.NoPermissionError:
        return {}
    return said


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
