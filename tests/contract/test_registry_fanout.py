"""What a router's following costs Redis, counted by the server itself."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
from doubles import HashEncoder
from surrogates import make_surrogate

from services.ctl.embedded.ports import LOOPBACK
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.router.loading import Loading
from services.router.models import POINTERS_PER_POLL, Models
from shared.registry.base import Registry
from shared.registry.disk import DiskCopy
from shared.registry.redis import connect
from shared.registry.redis_reads import POINTERS_PER_TRIP
from tests.contract.registry_laws import publish, settle
from tests.redis_topologies import cluster

pytestmark = pytest.mark.redis

AT = datetime(2026, 1, 5, tzinfo=UTC)
TASKS = ["support", *(f"task-{number}" for number in range(POINTERS_PER_POLL + 49))]


class Counted:
    """Server processes of this test alone, and a registry at them."""

    def __init__(self, servers: list[EmbeddedRedis], url: str, folder: Path) -> None:
        self._servers = servers
        self.registry = connect(url)
        self.encoder = HashEncoder()
        self.models = Models(
            TASKS, self.registry, DiskCopy(folder), Loading(self.encoder, threads=1)
        )

    def commands(self) -> Counter[str]:
        """Calls so far, by command, of all servers together."""
        calls: Counter[str] = Counter()
        for server in self._servers:
            with redis.Redis.from_url(server.url) as client:
                for name, figures in client.info("commandstats").items():
                    calls[name.removeprefix("cmdstat_")] += figures["calls"]
        return calls

    def spent(self, doing: Callable[[], object]) -> Counter[str]:
        before = self.commands()
        doing()
        found = self.commands() - before
        for own in ("info", "ping", "client", "client|setinfo", "hello", "select", "command"):
            found.pop(own, None)  # the counting itself, and connections opened
        return found


@pytest.fixture(params=["one server", "cluster"])
def counted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counted]:
    with ExitStack() as stack:
        if request.param == "cluster":
            servers = stack.enter_context(cluster(tmp_path))
            url = "redis+cluster://" + ",".join(f"{LOOPBACK}:{s.port}" for s in servers)
        else:
            servers = [stack.enter_context(EmbeddedRedis(tmp_path / "one"))]
            url = servers[0].url
        found = Counted(servers, url, tmp_path / "copies")
        stack.callback(found.registry.close)
        yield found


def test_a_poll_asks_once_for_each_of_a_bounded_number(counted: Counted) -> None:
    counted.models.refresh()
    assert counted.spent(counted.models.refresh) == {"hmget": len(TASKS)}
    assert counted.spent(counted.models.poll) == {"hmget": POINTERS_PER_POLL}
    assert counted.spent(counted.models.poll) == {"hmget": 50}


def test_a_hint_asks_for_its_task_alone(counted: Counted) -> None:
    counted.models.refresh()
    settle(counted.registry)
    asked = counted.commands()["hmget"]
    stop = threading.Event()
    follower = threading.Thread(target=counted.models.follow, args=(stop, 60.0))
    follower.start()
    try:
        # Behind at its start, it looks at all.
        _until(lambda: counted.commands()["hmget"] >= asked + len(TASKS))

        def change() -> None:
            _ask(counted.registry, 0.97)
            _until(lambda: _alpha_seen(counted.models) == 0.97)

        spent = counted.spent(change)
        # The pointer, and once more as it differs; the rest is the change itself.
        assert spent["hmget"] == 2
        assert spent["publish"] == 1
        assert spent["evalsha"] + spent["eval"] <= 2
    finally:
        stop.set()
        counted.registry.close()
        follower.join(10)
    assert not follower.is_alive()


def test_a_trip_carries_a_bounded_number_of_pointers(counted: Counted) -> None:
    """One round trip of a pipeline is read in one go by the server: its output is bounded."""
    sent: list[int] = []
    client = counted.registry._client
    pipeline = client.pipeline

    def counting(**options: bool) -> object:
        made = pipeline(**options)
        execute = made.execute

        def executed(**how: bool) -> object:
            sent.append(len(made))
            return execute(**how)

        made.execute = executed  # type: ignore[method-assign]
        return made

    client.pipeline = counting  # type: ignore[assignment, method-assign]
    counted.registry.pointers([f"t-{number}" for number in range(POINTERS_PER_TRIP + 1)])
    assert sent == [POINTERS_PER_TRIP, 1]


def test_a_version_is_fetched_once(counted: Counted) -> None:
    counted.models.refresh()
    artifact = make_surrogate(counted.encoder, lexical=False)
    publish(counted.registry, artifact)
    spent = counted.spent(counted.models.refresh)
    assert counted.models.snapshot()["support"].version is not None
    assert spent["hget"] == 2  # manifest and signature
    assert spent["hmget"] == len(TASKS) + 2  # pointers, this one again, the blobs


def _ask(registry: Registry, alpha: float) -> None:
    registry.set_alpha("support", alpha, at=AT, reason="test")


def _alpha_seen(models: Models) -> float | None:
    seen = models._following["support"].seen
    return seen.alpha if seen is not None else None


def _until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
