"""Keys seen lately, shared by all instances through Redis."""

from __future__ import annotations

from collections.abc import Sequence

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from shared.redis_clients import async_client
from shared.seen.base import SeenKey, SeenUnavailable

_AWAY = (RedisError, RedisClusterException, OSError)


class RedisSeen:
    """One expiring Redis key per key, asked and set in one round trip per batch.

    `timeout_seconds` bounds every call, so that a Redis that hangs is away, not in the way.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        horizon_seconds: float,
        timeout_seconds: float = 1.0,
    ) -> None:
        self._prefix = prefix.encode()
        self._horizon_ms = max(1, round(horizon_seconds * 1000))
        self._redis = async_client(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 1),  # once more: the server may have closed an idle connection
        )

    async def contains(self, keys: Sequence[SeenKey]) -> list[bool]:
        if not keys:
            return []
        try:
            # Not MGET: in a cluster the keys lie on several nodes.
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.get(self._prefix + key)
                values = await pipeline.execute()
        except _AWAY as error:
            raise SeenUnavailable(_why(error)) from error
        return [value is not None for value in values]

    async def add(self, keys: Sequence[SeenKey]) -> None:
        if not keys:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.set(self._prefix + key, b"1", px=self._horizon_ms)
                await pipeline.execute()
        except _AWAY as error:
            raise SeenUnavailable(_why(error)) from error

    async def close(self) -> None:
        await self._redis.aclose()


def _why(error: Exception) -> str:
    # Only the kind of error: some messages of redis-py repeat the address, which may hold a secret.
    return f"Redis is away ({type(error).__name__})"
