"""Redis behind Sentinel, as a cluster, over TLS and with an ACL user: the same laws as alone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import redis

from services.ctl.embedded.ports import LOOPBACK, free_port
from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.contracts.spending import Spent
from shared.redis_clients import client
from shared.registry.base import Active, Registry, RegistryError, RegistryUnavailable
from shared.registry.fleet import RouterBeat, connect_fleet
from shared.registry.ledger import RedisLedger
from shared.registry.redis import RedisRegistry, connect
from shared.registry.scripts import Keys
from shared.seen.redis import RedisSeen
from tests.artifacts import make_artifact
from tests.certificates import Authority
from tests.contract.registry_laws import RegistryLaws, publish, publish_windows
from tests.contract.registry_report_laws import ReportLaws
from tests.contract.registry_state_laws import StateLaws
from tests.redis_topologies import SentinelRedis, cluster, tls_in_front_of, until

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def sentinel_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with SentinelRedis(tmp_path_factory.mktemp("sentinel"), "of/signs@and:all") as servers:
        yield servers.url


@pytest.fixture(scope="module")
def cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        hosts = ",".join(f"{LOOPBACK}:{node.port}" for node in nodes)
        yield f"redis+cluster://{hosts}"


class _AtAddress(RegistryLaws, StateLaws, ReportLaws):
    url: str

    def make(self, keep_versions: int = 20) -> RedisRegistry:
        return connect(self.url, keep_versions=keep_versions)

    def corrupt(self, registry: Registry, task: str, version: str) -> None:
        with closing(client(self.url)) as direct:
            for field, blob in direct.hscan_iter(Keys.of(task).blobs, f"{version}/*"):
                direct.hset(Keys.of(task).blobs, field, bytes([blob[0] ^ 1]) + blob[1:])

    def corrupt_report(self, registry: Registry, task: str, key: str) -> None:
        with closing(client(self.url)) as direct:
            stored = direct.hget(Keys.of(task).reports, key)
            direct.hset(Keys.of(task).reports, key, stored[:-1])


class TestBehindSentinel(_AtAddress):
    @pytest.fixture(autouse=True)
    def _server(self, sentinel_url: str) -> None:
        self.url = sentinel_url


class TestCluster(_AtAddress):
    @pytest.fixture(autouse=True)
    def _server(self, cluster_url: str) -> None:
        self.url = cluster_url


def test_a_failover_is_followed(tmp_path: Path) -> None:
    with SentinelRedis(tmp_path, "secret") as servers:
        registry = connect(servers.url)
        first = publish(registry, make_artifact("moved"))
        with redis.Redis(host=LOOPBACK, port=servers.master.port, password="secret") as master:
            master.execute_command("WAIT", 1, 5_000)
        servers.master.kill()
        until(lambda: servers.asked()[1] == servers.replica.port, "Sentinel chose the replica")
        # Until the client has noticed, it fails as for any server that is away.
        until(lambda: _active(registry, "moved") == first, "the registry is at the new master")
        versions = publish_windows(registry, "moved", 2)
        assert registry.active("moved").version == versions[-1]
        registry.close()


def _active(registry: Registry, task: str) -> Active | None:
    try:
        return registry.active(task)
    except RegistryUnavailable:
        return None


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_nobody_there_is_the_registry_away(kind: str) -> None:
    path = "/tracer" if kind == "sentinel" else ""
    registry = connect(f"redis+{kind}://:hidden@{LOOPBACK}:{free_port()}{path}", socket_timeout=0.2)
    with pytest.raises(RegistryUnavailable) as raised:
        registry.active("any")
    assert "hidden" not in str(raised.value)
    registry.close()


@pytest.mark.parametrize("topology", ["sentinel_url", "cluster_url"])
def test_seen_keys(topology: str, request: pytest.FixtureRequest) -> None:
    """On two nodes the keys of one batch lie apart."""
    url: str = request.getfixturevalue(topology)
    keys = [f"key-{number}".encode() for number in range(100)]

    async def run() -> None:
        seen = RedisSeen(url, prefix=f"seen:{topology}:", horizon_seconds=60)
        assert await seen.contains(keys) == [False] * 100
        await seen.add(keys[:50])
        assert await seen.contains(keys) == [True] * 50 + [False] * 50
        await seen.close()

    asyncio.run(run())


@pytest.mark.parametrize("topology", ["sentinel_url", "cluster_url"])
def test_budgets_and_beats(topology: str, request: pytest.FixtureRequest) -> None:
    """What else is kept in Redis: what teachers spent, and which routers run."""
    url: str = request.getfixturevalue(topology)
    ledger, day = RedisLedger(url, prefix=f"tracer:{topology}:"), date(2026, 1, 2)
    ledger.add("support", day, Spent(0.25, 1))
    ledger.add("support", day, Spent(0.5, 2))
    assert ledger.spent("support", day) == Spent(0.75, 3)
    ledger.close()
    fleet = connect_fleet(url)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    for name in ("router-1", "router-2"):
        beat = RouterBeat(
            instance=name, at=at, started=at, mode="exactly_once", host="here",
            lag=0, per_second=1.0, tasks=1, versions={"support": None},
        )  # fmt: skip
        fleet.beat(beat)
    assert [beat.instance for beat in fleet.routers()] == ["router-1", "router-2"]
    fleet.leave("router-1")
    assert [beat.instance for beat in fleet.routers()] == ["router-2"]
    fleet.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def tls_port(redis_url: str, authority: Authority) -> Iterator[int]:
    """Wants a certificate of its clients, too."""
    server = authority.issue("redis")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(server.certificate, server.key)
    with tls_in_front_of(int(redis_url.rpartition(":")[2].partition("/")[0]), context) as port:
        yield port


def test_tls_with_certificates_on_both_sides(
    tls_port: int, authority: Authority, tmp_path: Path
) -> None:
    mine = authority.issue("router")
    shown = f"ssl_certfile={mine.certificate}&ssl_keyfile={mine.key}"
    registry = connect(f"rediss://{LOOPBACK}:{tls_port}/0?ssl_ca_certs={authority.file}&{shown}")
    active = publish(registry, make_artifact("encrypted"))
    assert registry.active("encrypted") == active
    registry.close()
    stranger = Authority(tmp_path, "stranger")
    for query in (f"ssl_ca_certs={stranger.file}&{shown}", f"ssl_ca_certs={authority.file}"):
        registry = connect(f"rediss://{LOOPBACK}:{tls_port}/0?{query}")
        with pytest.raises(RegistryUnavailable):
            registry.active("encrypted")
        registry.close()


RULES = "on >pass-word ~tracer:* resetchannels &tracer:* +@all -@admin -@dangerous +keys"


def test_an_acl_user_that_may_touch_only_ours(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "tracer", *RULES.split())
        address = f"{LOOPBACK}:{server.port}/0"
        registry = connect(f"redis://tracer:pass-word@{address}")
        active = publish(registry, make_artifact("limited"))
        assert registry.active("limited") == active
        registry.close()
        admin.execute_command("ACL", "SETUSER", "other", "on", ">pass-word", "~else:*", "+@all")
        for login in ("tracer:wrong", "other:pass-word"):
            registry = connect(f"redis://{login}@{address}")
            with pytest.raises(RegistryError) as raised:
                registry.active("limited")
            assert login.partition(":")[2] not in str(raised.value)
            registry.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "redis+sentinel://host:26379",  # of which service?
        "redis+sentinel://host:26379/a/b/c",
        "redis+sentinel://host:99999/tracer",
        "redis+sentinel://host:word/tracer",
        "redis+sentinel://,/tracer",
        "redis+cluster://host:1/5",  # a cluster has one database
        "redis+tower://host:1",
        "unix+cluster://host:1",
        "redis+sentinel://:pass[word@host:26379/tracer",
    ],
)
def test_an_address_that_is_none_is_said_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL") as raised:
        client(url)
    assert "word" not in str(raised.value).replace("password", "")
