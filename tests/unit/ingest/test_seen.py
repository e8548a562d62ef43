"""Laws of the seen store, on memory, on a real Redis, and on both together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from prometheus_client import REGISTRY

from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.clock import FakeClock, SystemClock
from shared.seen.base import Seen, SeenKey, SeenUnavailable, seen_key
from shared.seen.fallback import FallbackSeen
from shared.seen.memory import MemorySeen
from shared.seen.redis import RedisSeen

T = TypeVar("T")
Make = Callable[[float], Seen]


def keys(*names: str) -> list[SeenKey]:
    return [seen_key("task", name) for name in names]


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@pytest.fixture(params=["memory", "redis", "fallback"])
def make(request: pytest.FixtureRequest, redis_url: str) -> Make:
    """make(horizon_seconds) gives an empty store."""
    clock = SystemClock()

    def memory(horizon: float) -> Seen:
        return MemorySeen(clock, horizon_seconds=horizon)

    def redis(horizon: float) -> Seen:
        return RedisSeen(redis_url, prefix=f"{uuid4().hex}:", horizon_seconds=horizon)

    def fallback(horizon: float) -> Seen:
        return FallbackSeen(redis(horizon), memory(horizon), clock=clock)

    makers: dict[str, Make] = {"memory": memory, "redis": redis, "fallback": fallback}
    return makers[str(request.param)]


class TestLaws:
    def test_what_was_never_added_is_not_contained(self, make: Make) -> None:
        async def law() -> None:
            seen = make(60)
            assert await seen.contains(keys("a", "b")) == [False, False]
            await seen.add(keys("c"))
            assert await seen.contains(keys("a", "b")) == [False, False]
            await seen.close()

        run(law())

    def test_what_was_added_is_contained_in_the_order_asked(self, make: Make) -> None:
        async def law() -> None:
            seen = make(60)
            await seen.add(keys("a", "c", "a"))
            assert await seen.contains(keys("a", "b", "c", "a")) == [True, False, True, True]
            await seen.close()

        run(law())

    def test_nothing_asked_nothing_answered(self, make: Make) -> None:
        async def law() -> None:
            seen = make(60)
            await seen.add([])
            assert await seen.contains([]) == []
            await seen.close()

        run(law())

    def test_keys_are_forgotten_after_the_horizon(self, make: Make) -> None:
        async def law() -> None:
            seen = make(0.2)
            await seen.add(keys("a"))
            assert await seen.contains(keys("a")) == [True]
            await asyncio.sleep(0.3)
            assert await seen.contains(keys("a")) == [False]
            await seen.close()

        run(law())

    def test_added_again_lives_a_full_horizon_again(self, make: Make) -> None:
        async def law() -> None:
            seen = make(0.5)
            await seen.add(keys("a"))
            await asyncio.sleep(0.3)
            await seen.add(keys("a"))
            await asyncio.sleep(0.3)
            assert await seen.contains(keys("a")) == [True]
            await seen.close()

        run(law())

    def test_many_at_once(self, make: Make) -> None:
        async def law() -> None:
            seen = make(60)
            names = [str(n) for n in range(5_000)]
            await seen.add(keys(*names))
            assert all(await seen.contains(keys(*names)))
            await seen.close()

        run(law())


def test_parts_of_a_key_do_not_run_together() -> None:
    assert seen_key("a", "bc") != seen_key("ab", "c")
    assert seen_key("a", "b") == seen_key("a", "b")
    assert len(seen_key("x" * 256, "é" * 256)) == 16


def test_memory_keeps_the_newest_keys_when_full() -> None:
    async def check() -> None:
        clock = FakeClock()
        seen = MemorySeen(clock, horizon_seconds=60, max_keys=2)
        await seen.add(keys("a", "b", "c"))
        assert await seen.contains(keys("a", "b", "c")) == [False, True, True]
        clock.sleep(61)
        await seen.contains([])
        assert len(seen) == 0

    run(check())


def test_redis_shares_what_was_seen_between_instances(redis_url: str) -> None:
    async def check() -> None:
        prefix = f"{uuid4().hex}:"
        one = RedisSeen(redis_url, prefix=prefix, horizon_seconds=60)
        two = RedisSeen(redis_url, prefix=prefix, horizon_seconds=60)
        await one.add(keys("a"))
        assert await two.contains(keys("a")) == [True]
        await one.close()
        await two.close()

    run(check())


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path) as server:
        yield server


def test_redis_away_is_said_within_the_timeout_and_without_the_address() -> None:
    async def check() -> None:
        url = "redis://:secret@127.0.0.1:1/0"
        seen = RedisSeen(url, prefix="x:", horizon_seconds=60, timeout_seconds=0.5)
        began = time.monotonic()
        with pytest.raises(SeenUnavailable) as raised:
            await seen.contains(keys("a"))
        assert time.monotonic() - began < 3
        assert "secret" not in str(raised.value)
        await seen.close()

    run(check())


def test_fallback_goes_on_from_memory_warns_once_and_comes_back(
    own_redis: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="shared.seen")
    clock = FakeClock()

    def away() -> float | None:
        return REGISTRY.get_sample_value("tracer_ingest_seen_store_away")

    async def check() -> None:
        store = RedisSeen(own_redis.url, prefix="x:", horizon_seconds=60, timeout_seconds=0.5)
        memory = MemorySeen(clock, horizon_seconds=60)
        seen = FallbackSeen(store, memory, clock=clock, retry_seconds=5)
        await seen.add(keys("before"))
        assert away() == 0
        own_redis.kill()
        for _ in range(3):
            assert await seen.contains(keys("before", "never")) == [True, False]
            await seen.add(keys("meanwhile"))
            clock.sleep(6)
        assert away() == 1
        assert await seen.contains(keys("meanwhile")) == [True]
        own_redis.start()
        clock.sleep(6)
        await seen.add(keys("after"))
        assert away() == 0
        assert await store.contains(keys("before", "after")) == [True, True]
        await seen.close()

    run(check())
    levels = [record.levelname for record in caplog.records if "shared.seen" in record.name]
    assert levels == ["WARNING", "INFO"]


def test_fallback_does_not_wait_for_a_store_that_is_away() -> None:
    class Away:
        calls = 0

        async def contains(self, keys: object) -> list[bool]:
            self.calls += 1
            raise SeenUnavailable("away")

        async def add(self, keys: object) -> None:
            self.calls += 1
            raise SeenUnavailable("away")

        async def close(self) -> None:
            return

    async def check() -> None:
        clock, store = FakeClock(), Away()
        seen = FallbackSeen(store, MemorySeen(clock, horizon_seconds=60), clock=clock)
        for _ in range(10):
            await seen.contains(keys("a"))
            await seen.add(keys("b"))
        assert store.calls == 1
        clock.sleep(5)
        await seen.contains(keys("a"))
        assert store.calls == 2

    run(check())
