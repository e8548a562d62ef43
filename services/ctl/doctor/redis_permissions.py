"""May this Redis user do what the chosen services do? Each kind of call, on keys of our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import redis

from services.ctl.doctor.findings import Finding, Patient, Service, failed, ok, skipped
from shared.registry.fleet import INDEX
from shared.registry.scripts import CHANNEL

_CHECK = "redis.permissions"
_SCRIPT = "redis.call('HSET', KEYS[1], 'at', '1') return redis.call('PEXPIRE', KEYS[1], 10000)"
# These move what is served; the others are given no more than deploy/redis/users.conf gives them.
_OWNERS = (Service.TRAINER, Service.CONSOLE)

# What it is, for people, and how it is tried.
_Attempts = list[tuple[str, Callable[[], Any]]]


def examine(asked: redis.Redis, patient: Patient) -> Finding:
    attempts = _attempts(asked, patient)
    names = ", ".join(patient.services)
    if not attempts:
        return skipped(_CHECK, f"{names}: nothing is asked of Redis with these settings")
    refused = []
    for what, attempt in attempts:
        try:
            attempt()
        except redis.exceptions.NoPermissionError:
            refused.append(what)
        except redis.RedisError as error:
            fix = "a replica or a full server takes no writes: name the master, raise maxmemory"
            return failed(_CHECK, f"may not {what}: {error}", fix)
    if refused:
        return failed(_CHECK, f"may not {', '.join(refused)}", _fix(patient, names))
    return ok(_CHECK, f"may do what these do: {names}")


def _attempts(asked: redis.Redis, patient: Patient) -> _Attempts:
    name, settings = f"doctor-{uuid4().hex}", patient.settings
    attempts: _Attempts = []
    if any(service in patient.services for service in _OWNERS):
        attempts += _owning(asked, f"tracer:{{doctor}}:{name}")
    if Service.ROUTER in patient.services:
        attempts += _routing(asked, name)
    if Service.INGEST in patient.services:
        attempts += _remembering(asked, f"{settings.topic_prefix}tracer:seen:", name)
    if Service.TEACHER in patient.services and settings.teacher_budget_store == "redis":
        attempts += _spending(asked, f"{settings.topic_prefix}tracer:budget:", name)
    return attempts


def _owning(asked: redis.Redis, key: str) -> _Attempts:
    return [
        ("write keys tracer:* (SET)", lambda: asked.set(key, "1", px=10_000)),
        ("read keys tracer:* (GET)", lambda: asked.get(key)),
        ("delete keys tracer:* (DEL)", lambda: asked.delete(key)),
        ("run scripts (EVAL)", lambda: asked.eval(_SCRIPT, 1, key)),
        ("read hashes (HGETALL)", lambda: asked.hgetall(key)),
        ("delete them (DEL)", lambda: asked.delete(key)),
        # A hint that something changed; routers look, and see that nothing did.
        (f"tell changes (PUBLISH {CHANNEL})", lambda: asked.publish(CHANNEL, "")),
        (f"hear of changes (SUBSCRIBE {CHANNEL})", lambda: _subscribe(asked)),
    ]


def _routing(asked: redis.Redis, name: str) -> _Attempts:
    registry, beat = f"tracer:{{doctor}}:{name}", f"{INDEX}:{name}"
    return [
        ("read the registry (HMGET tracer:{*}:*)", lambda: asked.hmget(registry, ["version"])),
        (f"hear of changes (SUBSCRIBE {CHANNEL})", lambda: _subscribe(asked)),
        (f"say that it runs (SET {INDEX}:*)", lambda: asked.set(beat, "1", px=10_000)),
        (f"say that it stops (DEL {INDEX}:*)", lambda: asked.delete(beat)),
        # It is not there: nobody sees a router that is none.
        (f"say so in the list of routers (ZREM {INDEX})", lambda: asked.zrem(INDEX, name)),
    ]


def _remembering(asked: redis.Redis, prefix: str, name: str) -> _Attempts:
    key = f"{prefix}{name}"
    return [
        # Until 1970, so it is gone at once: ingest may delete none.
        (f"remember traces (SET {prefix}*)", lambda: asked.set(key, "1", pxat=1)),
        (f"know them again (GET {prefix}*)", lambda: asked.get(key)),
    ]


def _spending(asked: redis.Redis, prefix: str, name: str) -> _Attempts:
    key = f"{prefix}{name}"

    def count() -> None:
        with asked.pipeline(transaction=True) as pipeline:
            pipeline.hincrbyfloat(key, "usd", 0.0)
            pipeline.hincrby(key, "calls", 0)
            pipeline.expire(key, 0)  # at once: the teacher may delete none
            pipeline.execute()

    return [
        (f"count what is spent (MULTI, HINCRBY {prefix}*)", count),
        (f"read what is spent (HMGET {prefix}*)", lambda: asked.hmget(key, ["usd", "calls"])),
    ]


def _subscribe(asked: redis.Redis) -> None:
    listener = asked.pubsub()  # type: ignore[no-untyped-call]
    try:
        listener.subscribe(CHANNEL)
        listener.get_message(timeout=2.0)  # the refusal, where there is one
    finally:
        listener.close()


def _fix(patient: Patient, names: str) -> str:
    if not any(service in patient.services for service in _OWNERS):
        return f"give it what deploy/redis/users.conf gives to {names}"
    keys = dict.fromkeys(("~tracer:*", f"~{patient.settings.topic_prefix}tracer:*"))
    may = "+@read +@write +@scripting +@pubsub +@connection +@transaction"
    return f"ACL SETUSER … {' '.join(keys)} &tracer:* {may}"
