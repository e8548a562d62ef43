"""What is spent on teachers, summed over all of them through Redis."""

from __future__ import annotations

from datetime import date

from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from shared.contracts.spending import LedgerAway, Spent
from shared.redis_clients import client

_KEPT_SECONDS = 3 * 86_400
_TIMEOUT_SECONDS = 2.0
_AWAY = (RedisError, RedisClusterException, OSError)


def open_ledger(url: str, topic_prefix: str) -> RedisLedger:
    """The one ledger of all that share a deployment's topics. Raises ValueError for no address."""
    return RedisLedger(url, prefix=f"{topic_prefix}tracer:budget:")


class RedisLedger:
    """One hash a task and day, with `usd` and `calls`, that expires after three days.

    A call whose answer Redis lost may be counted twice: the budget ends early, never late.
    """

    def __init__(self, url: str, *, prefix: str) -> None:
        self._prefix = prefix
        self._redis = client(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once more: the server may have closed an idle connection
        )

    def spent(self, task: str, day: date) -> Spent:
        try:
            usd, calls = self._redis.hmget(self._key(task, day), ["usd", "calls"])
            return Spent(float(usd or 0), int(calls or 0))
        except (*_AWAY, ValueError) as error:
            raise LedgerAway(_why(error)) from error

    def add(self, task: str, day: date, more: Spent) -> None:
        key = self._key(task, day)
        try:
            with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hincrbyfloat(key, "usd", more.usd)
                pipeline.hincrby(key, "calls", more.calls)
                pipeline.expire(key, _KEPT_SECONDS)
                pipeline.execute()
        except _AWAY as error:
            raise LedgerAway(_why(error)) from error

    def close(self) -> None:
        self._redis.close()

    def _key(self, task: str, day: date) -> str:
        return f"{self._prefix}{task}:{day.isoformat()}"


def _why(error: Exception) -> str:
    # Only the kind of error: some messages of redis-py repeat the address, which may hold a secret.
    return f"Redis is away ({type(error).__name__})"
