"""A fit that takes longer than the broker waits for a poll: no rebalance, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient

from services.trainer.alpha import AlphaWatch
from services.trainer.app import Trainer
from services.trainer.examination import Examination
from services.trainer.fit_process import FitProcess
from services.trainer.handlers import Collector
from services.trainer.monitor import Monitor
from services.trainer.pipeline import Refit
from services.trainer.worker import RefitWorker
from shared.bus.admin import ensure_topics
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.clock import SystemClock
from shared.contracts.codec import encode
from shared.contracts.events import ModelAnnouncement, Trace
from shared.contracts.manifest import Teacher
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic, load_topics
from shared.core.window import WindowBook
from shared.registry.base import Artifact
from shared.registry.memory import MemoryRegistry
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from shared.telemetry.health import Health

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(240)]

DAY1, DAY2 = date(2026, 1, 5), date(2026, 1, 6)
MAX_POLL_SECONDS = 6.0
FIT_SECONDS = 15.0
TASKS = {"slow": Task(name="slow")}


@dataclass(frozen=True)
class Slow:
    """A fit that holds its interpreter's lock for longer than the broker waits for a poll."""

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        until = time.monotonic() + FIT_SECONDS
        while time.monotonic() < until:
            pass
        refused: Any = SimpleNamespace(artifact=None, coverage=None, reason="too few")
        return Examination(1, 1, None, Teacher(), refused, None)


class Bench:
    def __init__(self, kafka: str, folder: Path) -> None:
        self.kafka, name = kafka, uuid4().hex[:8]
        ensure_topics(kafka, load_topics().values(), prefix=f"{name}.", replication=1)
        self.topic, self.group = f"{name}.{Topic.TRACES}", f"{name}-trainer"
        self.store, self.publisher = WindowStore(str(folder)), KafkaPublisher(bootstrap=kafka)
        self.announced: list[ModelAnnouncement] = []
        self.source = KafkaSource(
            bootstrap=kafka, group=self.group, topics=[self.topic],
            client_config={
                "max.poll.interval.ms": str(int(1000 * MAX_POLL_SECONDS)),
                "session.timeout.ms": "6000",
            },
        )  # fmt: skip
        clock, registry = SystemClock(), MemoryRegistry()
        self.fits = FitProcess(Slow)
        refit = Refit(
            tasks=TASKS, windows=self.store, encoder="e" * 64, examine=self.fits,
            registry=registry, announce=self.announced.append, clock=clock,
        )  # fmt: skip
        monitor = Monitor(
            tasks=TASKS, registry=registry, announce=self.announced.append, clock=clock
        )
        worker = RefitWorker(refit, clock=clock, failed=_never)
        self.trainer = Trainer(
            source=self.source, publisher=self.publisher,
            collector=Collector(
                tasks=TASKS, store=self.store,
                windows=WindowBook(timedelta(0), timedelta(seconds=300), timedelta(seconds=2)),
                clock=clock, dead_letter=rejecting("trainer", f"{name}.dead-letters", clock),
                watch=monitor.see,
            ),
            monitor=monitor, worker=worker,
            fits=self.fits, health=Health(clock, stall_seconds=60.0), clock=clock,
            topic=self.topic, max_batch=100,
            alpha=AlphaWatch(TASKS, registry, self.store, worker.submit),
        )  # fmt: skip
        self.stop = Event()
        self.thread = Thread(target=self.trainer.run, args=(self.stop,))

    def send(self, day: date, first: int, n: int) -> None:
        at = datetime(day.year, day.month, day.day, tzinfo=UTC)
        traces = [
            Trace(id=f"t{i}", task="slow", input=f"text {i}", teacher="billing",
                  occurred_at=at + timedelta(seconds=i))
            for i in range(first, first + n)
        ]  # fmt: skip
        self.publisher.publish([Record(self.topic, t.id.encode(), encode(t)) for t in traces])

    def member(self) -> str:
        """Whoever is thrown out of the group comes back as another member."""
        admin = AdminClient({"bootstrap.servers": self.kafka})
        (found,) = [f.result(30) for f in admin.describe_consumer_groups([self.group]).values()]
        (member,) = found.members
        return str(member.member_id)

    def close(self) -> None:
        self.stop.set()
        self.thread.join(20.0)
        self.fits.close()
        self.source.close()
        self.publisher.close()


def _never(*_: object) -> None:
    raise AssertionError("no fit may fail here")


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path)
    made.thread.start()
    yield made
    made.close()


def test_a_long_fit_causes_no_rebalance_and_loses_nothing(bench: Bench) -> None:
    bench.send(DAY1, 0, 300)
    bench.send(DAY2, 300, 40)  # closes the first day; the fit begins
    _wait_for(lambda: bench.store.days("slow") == [DAY1])
    member, begun = bench.member(), time.monotonic()
    n = 340
    while not bench.announced:  # traces go on coming in while it runs
        assert time.monotonic() - begun < 120
        bench.send(DAY2, n, 10)
        n += 10
        time.sleep(0.5)
    assert time.monotonic() - begun > MAX_POLL_SECONDS
    assert bench.member() == member
    bench.send(date(2026, 1, 7), n, 40)
    _wait_for(lambda: bench.store.days("slow") == [DAY1, DAY2])
    ids: list[str] = bench.store.read("slow", [DAY1, DAY2])["id"].to_pylist()
    assert sorted(ids) == sorted(f"t{i}" for i in range(n))
    assert bench.thread.is_alive()


def _wait_for(condition: Any, timeout: float = 90.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
