"""The fleet: what routers say of themselves, in a real Redis and without one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest
import redis

from services.ctl.embedded.ports import free_port
from services.router.heartbeat import Heartbeat
from services.router.serving import Serving
from services.router.surrogate import Answer
from shared.clock import FakeClock
from shared.registry import fleet as fleets
from shared.registry.base import RegistryUnavailable
from shared.registry.fleet import MAX_TASKS, Fleet, RedisFleet, RouterBeat, connect_fleet

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


class OneVersion:
    version = "2026-01-05-abc"
    alpha = 0.95

    def answer(self, inputs: object, encoder: object) -> list[Answer]:
        raise NotImplementedError


@pytest.fixture
def fleet(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisFleet]:
    """One of its own: the index is named for this test."""
    monkeypatch.setattr(fleets, "INDEX", f"fleet-{uuid4().hex}")
    fleet = connect_fleet(redis_url)
    yield fleet
    fleet.close()


def heartbeat(fleet: Fleet, clock: FakeClock, tasks: int = 2) -> Heartbeat:
    return Heartbeat(
        fleet,
        instance="router-1",
        host="here",
        mode="exactly_once",
        tasks=[f"task-{i}" for i in range(tasks)],
        serving=lambda: {"task-1": Serving(OneVersion())},
        clock=clock,
    )


def beat(instance: str = "a", at: datetime = NOW) -> RouterBeat:
    clock = FakeClock(at)
    made = heartbeat(connect_fleet("redis://127.0.0.1:1/0"), clock).now()
    return msgspec.structs.replace(made, instance=instance)


@pytest.mark.redis
def test_routers_are_read_as_they_said(fleet: RedisFleet) -> None:
    for name in ("b", "a"):
        fleet.beat(beat(name))
    assert fleet.routers() == [beat("a"), beat("b")]
    fleet.beat(msgspec.structs.replace(beat("a"), lag=7))
    assert [router.lag for router in fleet.routers()] == [7, 0]
    fleet.leave("a")
    assert fleet.routers() == [beat("b")]


@pytest.mark.redis
def test_a_dead_router_is_forgotten(fleet: RedisFleet, redis_url: str) -> None:
    fleet.beat(beat("dead"))
    with redis.Redis.from_url(redis_url) as client:
        key = f"{fleets.INDEX}:dead"
        assert 0 < client.ttl(key) <= fleets.EXPIRE_SECONDS
        client.delete(key)  # as when the time is up
        assert fleet.routers() == []
        fleet.beat(beat("later", at=NOW + timedelta(minutes=5)))
        assert client.zrange(fleets.INDEX, 0, -1) == [b"later"]


@pytest.mark.redis
def test_the_index_is_bounded(fleet: RedisFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "MAX_ROUTERS", 3)
    for i in range(5):
        fleet.beat(beat(f"r{i}", at=NOW + timedelta(seconds=i)))
    assert [router.instance for router in fleet.routers()] == ["r2", "r3", "r4"]


@pytest.mark.redis
def test_a_beat_that_cannot_be_read_hides_no_other(fleet: RedisFleet, redis_url: str) -> None:
    for name in ("a", "b"):
        fleet.beat(beat(name))
    with redis.Redis.from_url(redis_url) as client:
        client.set(f"{fleets.INDEX}:a", b"{")
    assert [router.instance for router in fleet.routers()] == ["b"]


def test_a_beat_counts_what_was_worked_since_the_one_before() -> None:
    clock = FakeClock(NOW)
    beats = heartbeat(connect_fleet("redis://127.0.0.1:1/0"), clock)
    beats.worked(30)
    beats.worked(20)
    beats.lag(4)
    clock.sleep(5.0)
    now = beats.now()
    assert (now.per_second, now.lag) == (10.0, 4)
    assert now.versions == {"task-0": None, "task-1": "2026-01-05-abc"}
    assert now.at - now.started == timedelta(seconds=5)
    clock.sleep(5.0)
    assert beats.now().per_second == 0.0


def test_a_beat_stays_small_with_many_tasks() -> None:
    now = heartbeat(connect_fleet("redis://127.0.0.1:1/0"), FakeClock(NOW), tasks=9_000).now()
    assert (now.tasks, len(now.versions)) == (9_000, MAX_TASKS)
    assert len(msgspec.json.encode(now)) < 64 * 1024


def test_without_redis_it_goes_on_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    fleet = connect_fleet(f"redis://:hush@127.0.0.1:{free_port()}/0", timeout=0.2)
    with pytest.raises(RegistryUnavailable):
        fleet.beat(beat())
    stop = threading.Event()
    thread = threading.Thread(target=heartbeat(fleet, FakeClock(NOW)).run, args=(stop, 0.01))
    thread.start()
    stop.wait(0.2)
    assert thread.is_alive()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()
    said = [r.getMessage() for r in caplog.records if "not told" in r.getMessage()]
    assert len(said) == 1
    assert "hush" not in caplog.text


@pytest.mark.redis
def test_a_router_that_stops_leaves(fleet: RedisFleet, redis_url: str) -> None:
    stop = threading.Event()
    beats = heartbeat(connect_fleet(redis_url), FakeClock(NOW))
    thread = threading.Thread(target=beats.run, args=(stop, 0.01))
    thread.start()
    for _ in range(200):
        if fleet.routers():
            break
        stop.wait(0.01)
    assert [router.instance for router in fleet.routers()] == ["router-1"]
    stop.set()
    thread.join(10)
    assert fleet.routers() == []
