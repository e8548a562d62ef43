"""Which routers run now and what each of them serves: a beat each, in Redis, that expires.

Nothing is decided by it. A router that cannot write its beat serves as before and is missing here;
one that died is missing after EXPIRE_SECONDS. A key per router holds the beat; a small sorted set
names them, oldest beat first, so that nobody has to scan the keys of a Redis shared with others.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Literal, Protocol

import msgspec
import redis
from msgspec import Meta
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared.redis_clients import client as redis_client
from shared.registry.refusals import reaching
from shared.registry.replies import as_text

_logger = logging.getLogger(__name__)

EXPIRE_SECONDS = 20
MAX_ROUTERS = 1_000
MAX_TASKS = 500  # of which a beat names the versions
INDEX = "tracer:fleet"


class RouterBeat(msgspec.Struct, frozen=True, kw_only=True):
    """One router, as it said of itself at `at`.

    per_second: requests a second since the beat before, of topic and door. lag: messages of its
    partitions not yet committed. versions: of each task, the version that answers, None where
    nothing does; `tasks` is how many tasks there are, of which the first MAX_TASKS are named.
    """

    instance: Annotated[str, Meta(min_length=1, max_length=256)]
    host: str
    mode: Literal["exactly_once", "at_least_once"]
    started: datetime
    at: datetime
    lag: int
    per_second: float
    tasks: int
    versions: dict[str, str | None]


class Fleet(Protocol):
    """Every method raises RegistryError."""

    def beat(self, router: RouterBeat) -> None:
        """I run; forgotten after EXPIRE_SECONDS unless said again."""
        ...

    def leave(self, instance: str) -> None:
        """I have stopped."""
        ...

    def routers(self) -> list[RouterBeat]:
        """Those that run, by instance."""
        ...

    def close(self) -> None: ...


def connect_fleet(url: str, *, timeout: float = 1.0) -> RedisFleet:
    """The fleet at `url`; connects when first used, and no call takes much longer than `timeout`
    seconds. Raises ValueError, without the URL, when it is not one."""
    client = redis_client(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,)),
    )
    return RedisFleet(client)


class RedisFleet:
    """Implements `Fleet`. Made by `connect_fleet`."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def beat(self, router: RouterBeat) -> None:
        now = router.at.timestamp()
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.set(_key(router.instance), msgspec.json.encode(router), ex=EXPIRE_SECONDS)
            pipeline.zadd(INDEX, {router.instance: now})
            # Of clocks that differ by less than a minute nobody is dropped who still runs.
            pipeline.zremrangebyscore(INDEX, "-inf", now - EXPIRE_SECONDS - 60)
            pipeline.zremrangebyrank(INDEX, 0, -MAX_ROUTERS - 1)
            pipeline.expire(INDEX, 3600)
            pipeline.execute()

    def leave(self, instance: str) -> None:
        with reaching(self._client):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.delete(_key(instance))
            pipeline.zrem(INDEX, instance)
            pipeline.execute()

    def routers(self) -> list[RouterBeat]:
        with reaching(self._client):
            names = [as_text(name) for name in self._client.zrange(INDEX, -MAX_ROUTERS, -1)]
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.get(_key(name))
            found = pipeline.execute()
        beats = []
        for name, data in zip(names, found, strict=True):
            if data is None:  # expired, and not yet dropped from the index
                continue
            try:
                beats.append(msgspec.json.decode(data, type=RouterBeat))
            except (ValueError, RecursionError) as error:
                _logger.warning("the beat of %s cannot be read: %s", name, error)
        return sorted(beats, key=lambda beat: beat.instance)

    def close(self) -> None:
        self._client.close()


def _key(instance: str) -> str:
    return f"{INDEX}:{instance}"
