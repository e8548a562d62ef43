"""Redis or the trainer's disk is lost for good: real Kafka, Redis and processes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.sample.generator import generate
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.registry.base import Registry, RegistryError
from tests.integration.test_trainer import DAY1, DAY2, Bench

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """A Redis that only this test uses, and may lose."""
    with EmbeddedRedis(tmp_path / "redis") as made:
        yield made


@pytest.fixture
def bench(kafka: str, server: EmbeddedRedis, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, server.url, tmp_path)
    yield made
    made.trainer.terminate()
    made.publisher.close()
    made.registry.close()


@pytest.fixture
def first(bench: Bench) -> ModelAnnouncement:
    """The first day's version, published by a running trainer and saved on its disk."""
    bench.send(list(generate(600, seed=3)), DAY1)
    bench.trainer.start()
    (published,) = bench.announcements(1)
    assert published.kind is AnnouncementKind.PUBLISHED
    epoch = bench.registry.active(bench.task).epoch
    seconds_until(lambda: saved_epoch(bench) == epoch, bench)
    return published


def seconds_until(holds: Callable[[], bool], bench: Bench, timeout: float = 60.0) -> float:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < timeout, bench.trainer.tail()
        bench.trainer.check()
        time.sleep(0.05)
    return time.monotonic() - started


def active_version(registry: Registry, task: str) -> str | None:
    try:
        return registry.active(task).version
    except RegistryError:
        return None


def lose(server: EmbeddedRedis) -> None:
    """The machine with its disk; another, empty, takes its address."""
    server.kill()
    for path in server.folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    server.start()


def saved_epoch(bench: Bench) -> int:
    path = bench.folder / "windows" / "saved" / bench.task / "state.json"
    return int(json.loads(path.read_bytes())["active"]["epoch"]) if path.exists() else 0


def test_redis_is_lost_and_the_running_trainer_gives_it_back(
    bench: Bench,
    server: EmbeddedRedis,
    first: ModelAnnouncement,
    record_property: Callable[[str, object], None],
) -> None:
    before = bench.registry.active(bench.task)
    fence = bench.registry.acquire(bench.task)
    lose(server)
    took = seconds_until(
        lambda: active_version(bench.registry, bench.task) == before.version, bench
    )
    record_property("seconds_until_restored", round(took, 2))
    print(f"restored after {took:.2f} s")
    after = bench.registry.active(bench.task)
    assert after.epoch > before.epoch
    assert bench.registry.acquire(bench.task) > fence
    bench.registry.load(bench.task, before.version or "")
    # And the next window's fit goes on from there.
    bench.send(list(generate(400, seed=4)), DAY2)
    second, third = bench.announcements(3)[1:]
    assert (second.kind, second.version) == (AnnouncementKind.PUBLISHED, first.version)
    assert "restored" in second.reason
    assert third.window == DAY2.isoformat()
    seconds_until(lambda: bench.registry.last_fit(bench.task) is not None, bench)


def test_redis_is_lost_while_no_trainer_runs(
    bench: Bench, server: EmbeddedRedis, first: ModelAnnouncement
) -> None:
    bench.trainer.kill()
    lose(server)
    bench.trainer.start()
    took = seconds_until(lambda: active_version(bench.registry, bench.task) == first.version, bench)
    print(f"restored {took:.2f} s after the start of the trainer")


def test_redis_is_lost_for_good_and_a_person_restores_it(
    bench: Bench,
    server: EmbeddedRedis,
    first: ModelAnnouncement,
    record_property: Callable[[str, object], None],
) -> None:
    bench.trainer.kill()
    lose(server)
    environment = os.environ | {
        "TRACER_BOOTSTRAP_SERVERS": bench.kafka,
        "TRACER_REDIS_URL": server.url,
        "TRACER_TOPIC_PREFIX": bench.prefix,
        "TRACER_STORE": str(bench.folder / "windows"),
    }
    command = [sys.executable, "-m", "services.ctl.main", "restore", bench.task, "--json"]
    for arguments in (["--dry-run"], []):
        started = time.monotonic()
        done = subprocess.run(
            [*command, *arguments], env=environment,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        took = time.monotonic() - started
        assert done.returncode == 0, done.stderr
        (row,) = json.loads(done.stdout)
        assert (row["done"], row["version"]) == ("restored", first.version)
        there = active_version(bench.registry, bench.task)
        assert there == (None if arguments else first.version)
    record_property("seconds_of_the_command", round(took, 2))
    print(f"restored by hand after {took:.2f} s, {row['seconds']} s of them with Redis")
    bench.trainer.start()  # and a trainer finds nothing to restore
    assert "restored" in bench.announcements(2)[1].reason
    bench.registry.load(bench.task, first.version or "")


@pytest.mark.usefixtures("first")
@pytest.mark.parametrize("with_redis", [False, True], ids=["disk only", "disk and Redis"])
def test_the_disk_is_lost_and_rebuilt_from_kafka(
    bench: Bench,
    server: EmbeddedRedis,
    with_redis: bool,
    record_property: Callable[[str, object], None],
) -> None:
    bench.send(list(generate(800, seed=3))[600:], DAY2)  # with ids of their own
    bench.announcements(2)
    version = bench.registry.active(bench.task).version
    expected = [bench.ids(day) for day in (DAY1, DAY2)]
    assert [len(ids) for ids in expected] == [600, 200]
    time.sleep(2.0)  # the offsets of both windows are committed
    bench.trainer.kill()
    shutil.rmtree(bench.folder / "windows")
    if with_redis:
        lose(server)
    bench.trainer.start()
    took = seconds_until(
        lambda: [bench.ids(day) for day in (DAY1, DAY2)] == expected, bench, timeout=120
    )
    took += seconds_until(
        lambda: active_version(bench.registry, bench.task) == version, bench, timeout=120
    )
    record_property("seconds_until_rebuilt", round(took, 2))
    print(f"rebuilt after {took:.2f} s")
    assert bench.registry.load(bench.task, version or "").manifest.n_traces > 0
