"""The trainer as a process on a real Kafka and Redis: killed in the middle, it loses nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, run_module
from services.ctl.sample.generator import generate
from shared.bus.admin import ensure_topics
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.contracts.codec import decode, encode
from shared.contracts.events import (
    AnnouncementKind,
    ModelAnnouncement,
    Opinion,
    Source,
    Trace,
)
from shared.contracts.topics import Topic, load_topics
from shared.encoder.default import ensure_default_encoder
from shared.registry.base import State
from shared.registry.redis import connect
from shared.store.parquet import WindowStore

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = Path(__file__).resolve().parents[2]
DAY1, DAY2 = date(2026, 1, 5), date(2026, 1, 6)


class Bench:
    """A trainer of its own topics, group, store and task."""

    def __init__(self, kafka: str, redis_url: str, folder: Path) -> None:
        name = uuid4().hex[:8]
        self.kafka, self.folder, self.task = kafka, folder, f"t-{name}"
        self.prefix = f"{name}."
        ensure_topics(kafka, load_topics().values(), prefix=self.prefix, replication=1)
        tasks = folder / "tasks.yaml"
        tasks.write_text(f"tasks: [{{name: {self.task}, alpha: 0.7}}]\n")
        self.trainer = Child(
            "trainer",
            run_module("services.trainer.main"),
            log=folder / "trainer.log",
            environment={
                "TRACER_BOOTSTRAP_SERVERS": kafka,
                "TRACER_REDIS_URL": redis_url,
                "TRACER_TASKS": str(tasks),
                "TRACER_TOPIC_PREFIX": self.prefix,
                "TRACER_GROUP_SUFFIX": f"-{name}",
                "TRACER_STORE": str(folder / "windows"),
                "TRACER_CACHE": str(ROOT / ".cache"),
                "TRACER_ENCODER": str(ensure_default_encoder(ROOT / ".cache" / "encoder")),
                "TRACER_LATENESS": "0",
                "TRACER_IDLE": "4",
                "TRACER_PARTITION_IDLE": "2",
                "TRACER_KAFKA": '{"session.timeout.ms": "6000"}',
            },
            health_port=free_port(),
        )
        self.publisher = KafkaPublisher(bootstrap=kafka)
        self.registry = connect(redis_url)
        self.store = WindowStore(str(folder / "windows"))

    def send(self, rows: list[dict[str, object]], day: date) -> None:
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        self.publisher.publish(
            [
                Record(
                    f"{self.prefix}{Topic.TRACES}",
                    str(row["id"]).encode(),
                    encode(
                        Trace(
                            id=str(row["id"]),
                            task=self.task,
                            input=str(row["input"]),
                            teacher=str(row["teacher"]),
                            occurred_at=start + timedelta(seconds=i),
                        )
                    ),
                )
                for i, row in enumerate(rows)
            ]
        )

    def audit(self, version: str, first: int, outcomes: list[bool]) -> None:
        """Audited traces of the version, some hours after the first day."""
        at = datetime(DAY2.year, DAY2.month, DAY2.day, 6, tzinfo=UTC)
        self.publisher.publish(
            [
                Record(
                    f"{self.prefix}{Topic.TRACES}",
                    f"a{i}".encode(),
                    encode(
                        Trace(
                            id=f"a{i}",
                            task=self.task,
                            input=f"text {i}",
                            teacher="billing",
                            occurred_at=at + timedelta(seconds=i),
                            source=Source.AUDITED,
                            observation_probability=0.02,
                            audit_share=0.02,
                            drawn=True,
                            version=version,
                            opinions=[
                                Opinion(
                                    version=version,
                                    label="billing" if agrees else "account",
                                    handled=True,
                                )
                            ],
                        )
                    ),
                )
                for i, agrees in enumerate(outcomes, start=first)
            ]
        )

    def wait_for_audits(self, version: str, n: int, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while len(self.registry.audits(self.task, version)) < n:
            assert time.monotonic() < deadline, self.trainer.tail()
            time.sleep(0.2)

    def announcements(self, wanted: int, timeout: float = 90.0) -> list[ModelAnnouncement]:
        source = KafkaSource(
            bootstrap=self.kafka,
            group=f"{self.prefix}test-{uuid4().hex[:6]}",
            topics=[f"{self.prefix}{Topic.MODELS}"],
        )
        found: list[ModelAnnouncement] = []
        deadline = time.monotonic() + timeout
        while len(found) < wanted and time.monotonic() < deadline:
            self.trainer.check()
            found += [decode(m.value, ModelAnnouncement) for m in source.poll(100, 0.5)]
        source.close()
        assert len(found) >= wanted, self.trainer.tail()
        return found

    def ids(self, day: date) -> list[str]:
        found: list[str] = self.store.read(self.task, [day]).column("id").to_pylist()
        return found


@pytest.fixture
def bench(kafka: str, redis_url: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, redis_url, tmp_path)
    yield made
    made.trainer.terminate()
    made.publisher.close()
    made.registry.close()


def test_killed_amid_a_window_it_loses_and_doubles_nothing(bench: Bench) -> None:
    rows = list(generate(700, seed=3))
    first, second = rows[:500], rows[500:]
    bench.trainer.start()
    bench.trainer.wait_ready()
    bench.send(first[:250], DAY1)
    time.sleep(1.0)  # some are read, none can be stored: the window is open
    bench.trainer.kill()
    bench.send(first[250:], DAY1)
    bench.trainer.start()
    bench.send(second, DAY2)
    announced = bench.announcements(2)  # day 1 by the watermark, day 2 by idle time
    assert [a.window for a in announced] == ["2026-01-05", "2026-01-06"]
    assert sorted(bench.ids(DAY1)) == sorted(str(row["id"]) for row in first)
    assert sorted(bench.ids(DAY2)) == sorted(str(row["id"]) for row in second)
    published = [a for a in announced if a.kind is AnnouncementKind.PUBLISHED]
    assert published, announced
    assert bench.registry.active(bench.task).version == published[-1].version
    assert bench.registry.load(bench.task, published[-1].version or "").manifest.task == bench.task


def test_audits_trip_a_version_and_a_kill_counts_none_twice(bench: Bench) -> None:
    bench.trainer.start()
    bench.send(list(generate(600, seed=5)), DAY1)
    (published,) = bench.announcements(1)
    version = published.version or ""
    bench.audit(version, 0, [True] * 30)
    bench.wait_for_audits(version, 30)
    bench.trainer.kill()  # day 2 is open: its offsets are not committed, its traces come again
    bench.audit(version, 30, [False] * 20)
    bench.trainer.start()
    bench.wait_for_audits(version, 50)
    announced = bench.announcements(2)
    tripped = next(a for a in announced if a.kind is AnnouncementKind.TRIPPED)
    assert tripped.version == version
    assert tripped.figures["audits"] <= 50
    assert bench.registry.active(bench.task).state is State.TRIPPED
    assert bench.registry.audits(bench.task, version) == (True,) * 30 + (False,) * 20


def test_killed_amid_a_fit_it_fits_again(bench: Bench) -> None:
    bench.send(list(generate(600, seed=4)), DAY1)
    bench.trainer.start()
    deadline = time.monotonic() + 60
    while not bench.ids(DAY1) and time.monotonic() < deadline:
        time.sleep(0.05)
    bench.trainer.kill()  # the window is stored, its verdict is not
    assert bench.store.verdict(bench.task, DAY1) is None
    bench.trainer.start()
    (announced,) = bench.announcements(1)
    assert announced.window == "2026-01-05"
    assert announced.n_traces == 600
    deadline = time.monotonic() + 60  # the report comes before it
    while bench.store.verdict(bench.task, DAY1) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert bench.store.verdict(bench.task, DAY1) == {
        "kind": announced.kind.value,
        "version": announced.version,
        "alpha": 0.7,
    }
