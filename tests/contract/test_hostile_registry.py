"""Whoever writes to Redis can write anything: what is not ours holds up no other task, and ends no
service."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
import redis
from artifacts import make_artifact
from doubles import HashEncoder
from surrogates import make_surrogate

from services.router.loading import Loading
from services.router.models import Models
from services.trainer.monitor import Monitor
from shared.clock import FakeClock
from shared.contracts.events import Opinion, Source, Trace
from shared.contracts.tasks import Task
from shared.registry.base import (
    MAX_MANIFEST_BYTES,
    Artifact,
    ArtifactTooLarge,
    CorruptArtifact,
    RegistryError,
    State,
)
from shared.registry.disk import DiskCopy
from shared.registry.fleet import INDEX, connect_fleet
from shared.registry.glances import connect_glances
from shared.registry.hints import HintListener
from shared.registry.redis import RedisRegistry, connect
from shared.registry.scripts import CHANNEL, Keys
from shared.store.saved import SavedFiles

pytestmark = pytest.mark.redis

AT = datetime(2026, 1, 5, tzinfo=UTC)
# By their names: what an `active` hash may say that no script of ours writes.
HOSTILE = {
    "no text": {"version": b"\xff\xfe", "state": b"\xff"},
    "endless name": {"version": "v" * 100_000},
    "no number": {"epoch": "many"},
    "no epoch": {"epoch": "-1"},
    "epoch no float holds": {"epoch": "9" * 400},
    "epoch of too many digits": {"epoch": "9" * 5_000},
    "share is nan": {"trial": "v", "mode": "canary", "share": "nan"},
    "share of ten": {"trial": "v", "mode": "canary", "share": "10"},
    "alpha is nan": {"alpha": "nan"},
    "alpha of zero": {"alpha": "0"},
    "alpha is infinite": {"alpha": "inf"},
}


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def registry(redis_url: str) -> Iterator[RedisRegistry]:
    registry = connect(redis_url)
    yield registry
    registry.close()


@cache
def fitted() -> Artifact:
    return make_surrogate(HashEncoder())


def surrogate_of(task: str, window: str) -> Artifact:
    """The same graphs for every task."""
    manifest = msgspec.structs.replace(fitted().manifest, task=task, window=window)
    return Artifact(manifest.encode(), fitted().blobs)


class Pair:
    """A router of two tasks, the first of which, by name and in its order, is tampered with."""

    def __init__(self, registry: RedisRegistry, folder: Path) -> None:
        mark = uuid4().hex[:12]
        self.bad, self.good = f"a-{mark}", f"b-{mark}"
        self.registry = registry
        self.encoder = HashEncoder()
        self.copies = DiskCopy(folder)
        self.models = Models(
            [self.bad, self.good], registry, self.copies, Loading(self.encoder, threads=1)
        )
        self.served = {task: self.publish(task, "2026-01-05") for task in (self.bad, self.good)}
        self.models.refresh()

    def publish(self, task: str, window: str) -> str:
        artifact = surrogate_of(task, window)
        fence = self.registry.acquire(task)
        self.registry.publish(artifact, fence=fence, at=AT, reason="test")
        return artifact.version

    def serving(self, task: str) -> str | None:
        version = self.models.snapshot()[task].version
        return version.version if version else None


@pytest.fixture
def pair(registry: RedisRegistry, tmp_path: Path) -> Pair:
    return Pair(registry, tmp_path / "copies")


@pytest.mark.parametrize("what", HOSTILE)
def test_a_pointer_that_is_none_holds_up_nobody(pair: Pair, client: redis.Redis, what: str) -> None:
    key = Keys.of(pair.bad).active
    before = client.hgetall(key)
    client.hset(key, mapping=HOSTILE[what])  # type: ignore[arg-type]
    newer = pair.publish(pair.good, "2026-01-06")
    pair.models.refresh()
    assert pair.serving(pair.bad) == pair.served[pair.bad]
    assert pair.models.snapshot()[pair.bad].state is State.SERVING
    assert pair.models.snapshot()[pair.bad].alpha is None
    assert pair.serving(pair.good) == newer
    client.delete(key)
    client.hset(key, mapping=before)
    repaired = pair.publish(pair.bad, "2026-01-06")
    pair.models.refresh()
    assert pair.serving(pair.bad) == repaired


def test_a_version_that_breaks_its_reader_holds_up_nobody(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever nobody thought of; said once, with where it came from."""
    load = pair.registry.load

    def broken(task: str, version: str) -> object:
        if task == pair.bad:
            raise ZeroDivisionError("nobody thought of this")
        return load(task, version)

    monkeypatch.setattr(pair.registry, "load", broken)
    pair.publish(pair.bad, "2026-01-06")
    newer = pair.publish(pair.good, "2026-01-06")
    for _ in range(3):
        pair.models.refresh()
    assert pair.serving(pair.bad) == pair.served[pair.bad]
    assert pair.serving(pair.good) == newer
    said = [record for record in caplog.records if "nobody thought of this" in record.message]
    assert len(said) == 1
    assert said[0].exc_info is not None


def test_the_audits_of_other_tasks_are_judged(
    registry: RedisRegistry, client: redis.Redis, tmp_path: Path
) -> None:
    pair = Pair(registry, tmp_path)
    tasks = {name: Task(name=name, labels=("a", "b"), alpha=0.9) for name in pair.served}
    monitor = Monitor(tasks=tasks, registry=registry, announce=lambda _: None, clock=FakeClock())
    client.hset(Keys.of(pair.bad).active, "state", "asleep")
    for offset in range(200):
        for task, version in pair.served.items():
            monitor.see(wrong(task, version, offset), 0, offset)
    with pytest.raises(RegistryError, match=f"{pair.bad}: the active pointer cannot be read"):
        monitor.settle()
    assert registry.active(pair.good).state is State.TRIPPED
    client.hset(Keys.of(pair.bad).active, "state", "serving")
    monitor.settle()
    assert registry.active(pair.bad).state is State.TRIPPED


def wrong(task: str, version: str, offset: int) -> Trace:
    """An audit that does not agree."""
    return Trace(
        id=f"{task}-{offset}", task=task, input="x", teacher="a", occurred_at=AT,
        source=Source.AUDITED, drawn=True, audit_share=0.1, observation_probability=0.1,
        version=version, opinions=[Opinion(version=version, label="b", handled=True)],
    )  # fmt: skip


def test_audits_and_lists_of_any_bytes_end_nobody(
    registry: RedisRegistry, client: redis.Redis
) -> None:
    task = f"task-{uuid4().hex[:12]}"
    artifact = make_artifact(task)
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="test")
    keys = Keys.of(task)
    client.set(keys.outcomes_of(artifact.version), b"1\xff0\x001")
    assert registry.audits(task, artifact.version) == (True, False, False, False, True)
    client.lpush(keys.history, b'"\xff', b"[" * 100_000, b"{}")
    assert [entry.kind for entry in registry.history(task)] == ["published"]
    client.rpush(keys.order, b"\xff")
    assert registry.versions(task) == [artifact.version, "\ufffd"]
    client.set(Keys.last_fit_of(task), b"[" * 100_000)
    assert registry.last_fit(task) is None
    saved = registry.saver().read(task)
    assert saved.order[0] == artifact.version


def test_a_beat_of_any_bytes_is_left_out(redis_url: str, client: redis.Redis) -> None:
    fleet = connect_fleet(redis_url)
    names = [f"hostile-{uuid4().hex[:8]}-{i}" for i in range(2)]
    try:
        for name, data in zip(names, (b"[" * 100_000, b'"\xff'), strict=True):
            client.set(f"{INDEX}:{name}", data)
            client.zadd(INDEX, {name: 1.0})
        assert not {beat.instance for beat in fleet.routers()} & set(names)
    finally:
        client.zrem(INDEX, *names)
        fleet.close()


def test_a_manifest_larger_than_any_is_neither_sent_nor_fetched(
    registry: RedisRegistry, client: redis.Redis, redis_url: str
) -> None:
    task = f"task-{uuid4().hex[:12]}"
    artifact = make_artifact(task)
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="test")
    padded = artifact.manifest_bytes + b" " * MAX_MANIFEST_BYTES
    with pytest.raises(ArtifactTooLarge, match="manifest of"):
        registry.publish(
            Artifact(padded, artifact.blobs),
            fence=registry.acquire(task), at=AT, reason="test",
        )  # fmt: skip
    client.hset(Keys.of(task).manifests, artifact.version, padded)
    with pytest.raises(CorruptArtifact, match="larger than any published"):
        registry.load(task, artifact.version)
    glances = connect_glances(redis_url)
    assert "larger than any" in str(glances.manifests(task, [artifact.version]))
    glances.close()


def test_hints_without_end_end_in_a_look_at_everything(redis_url: str, client: redis.Redis) -> None:
    listener = HintListener(
        redis.Redis.from_url(redis_url), quiet_seconds=10.0, patience_seconds=2.0
    )
    try:
        assert listener.wait(1.0).everything  # subscribed
        pipeline = client.pipeline(transaction=False)
        for number in range(3_000):
            pipeline.publish(CHANNEL, f"made-up-{number}")
        pipeline.execute()
        hint = listener.wait(5.0)
        assert hint.everything
        assert not hint.tasks
    finally:
        listener.close()


@pytest.mark.parametrize("window", ["../../x", "a/b", "", ".", "2026-01-05\n", "\0", "x" * 65])
def test_a_window_is_a_name_and_no_way_out_of_a_folder(window: str) -> None:
    """A version is named after it, and the trainer keeps versions in files of that name."""
    with pytest.raises(ValueError, match="window"):
        _ = make_artifact(window=window).manifest


@pytest.mark.parametrize("name", ["../state.json", "a/../../b", "", "..", "a\0b"])
def test_no_name_leads_out_of_a_tasks_saved_files(tmp_path: Path, name: str) -> None:
    files = SavedFiles(str(tmp_path / "store"))
    for use in (lambda: files.put("t", name, b"x"), lambda: files.get("t", name)):
        with pytest.raises(OSError, match="is called"):
            use()
    with pytest.raises(OSError, match="is called"):
        files.delete("t", name)
    assert not list(tmp_path.rglob("state.json"))
