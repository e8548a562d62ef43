"""What redis-py raises, as the registry's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.sentinel import SentinelConnectionPool

from shared.registry.base import RegistryError, RegistryUnavailable

# Refusals that pass: a failover, a full or loading server, a slot on the move.
_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.ReadOnlyError,
    redis.OutOfMemoryError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
    redis.exceptions.RedisClusterException,  # no node answers; not a RedisError
)
# The same, where redis-py has no class for the reply.
_PASSING_CODES = ("BUSY", "LOADING", "MASTERDOWN", "NOREPLICAS")


@contextmanager
def reaching(client: redis.Redis) -> Iterator[None]:
    """Turns what redis-py raises into the registry's errors, none of which show the URL."""
    try:
        yield
    except _PASSING as error:
        raise RegistryUnavailable(f"Redis at {_address(client)}: {error}") from error
    except redis.RedisError as error:
        kind = RegistryUnavailable if str(error).startswith(_PASSING_CODES) else RegistryError
        raise kind(f"Redis at {_address(client)}: {error}") from error


def _address(client: redis.Redis) -> str:
    nodes = getattr(client, "where", None)
    if nodes is not None:  # a cluster's
        return str(nodes)
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        return f"Sentinel's {pool.service_name}"
    where = pool.connection_kwargs
    return str(where.get("path") or f"{where.get('host')}:{where.get('port')}")
