"""Fifty tasks in one trainer: one whose fit fails, one that hangs, one whose store is damaged."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.trainer.alpha import AlphaWatch
from services.trainer.app import Trainer
from services.trainer.examination import Examination
from services.trainer.fit_process import FitProcess
from services.trainer.handlers import Collector
from services.trainer.monitor import Monitor
from services.trainer.pipeline import Refit
from services.trainer.worker import RefitWorker
from shared.bus.base import Record
from shared.bus.memory import MemoryPublisher, MemorySource
from shared.bus.memory_broker import MemoryBroker
from shared.clock import SystemClock
from shared.contracts.codec import decode, encode
from shared.contracts.events import ModelAnnouncement, Trace
from shared.contracts.manifest import Teacher
from shared.contracts.tasks import Task
from shared.core.window import WindowBook
from shared.registry.base import Artifact
from shared.registry.memory import MemoryRegistry
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from shared.telemetry.health import Health

DAY1, DAY2, DAY3 = date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)
TASKS = {
    name: Task(name=name, fit_budget_s=1.0 if name == "hangs" else 60.0)
    for name in ("hangs", "fails", "damaged", *(f"small-{i:02d}" for i in range(47)))
}


@dataclass(frozen=True)
class Scripted:
    """A task's name says what its fits do; all others are refused for their window."""

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        if task.name == "fails" and day == DAY1:
            raise ValueError("singular matrix")
        if task.name == "damaged":
            raise OSError("part-1.parquet is damaged; move it away to go on without it")
        while task.name == "hangs":
            time.sleep(0.1)
        refused: Any = SimpleNamespace(artifact=None, coverage=None, reason=f"too few on {day}")
        return Examination(1, 1, None, Teacher(), refused, None)


def trace(task: str, day: date, number: int) -> Trace:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    id = f"{task}-{day}-{number}"
    return Trace(id=id, task=task, input="text", teacher="label", occurred_at=at)


class Bench:
    """A trainer on the bus in memory, turning in a thread."""

    def __init__(self, folder: Path, idle: timedelta = timedelta(hours=1)) -> None:
        broker, clock = MemoryBroker(), SystemClock()
        broker.create_topic("traces", 2)
        broker.create_topic("models", 1)
        self.broker, self.publisher = broker, MemoryPublisher(broker)
        self.registry, self.store = MemoryRegistry(), WindowStore(str(folder))
        self.fits = FitProcess(Scripted)
        refit = Refit(
            tasks=TASKS, windows=self.store, encoder="e" * 64, examine=self.fits,
            registry=self.registry, announce=self._announce, clock=clock,
        )  # fmt: skip
        monitor = Monitor(tasks=TASKS, registry=self.registry, announce=self._announce, clock=clock)
        windows = WindowBook(timedelta(0), idle, min(idle, timedelta(seconds=5)))
        for name in TASKS:
            windows.restore(name, self.store.days(name))
        worker = RefitWorker(refit, clock=clock, failed=refit.give_up)
        self.trainer = Trainer(
            source=MemorySource(broker, group="trainer", topics=["traces"]),
            publisher=self.publisher,
            collector=Collector(
                tasks=TASKS, store=self.store, windows=windows, clock=clock,
                dead_letter=rejecting("trainer", "dead-letters", clock), watch=monitor.see,
            ),
            monitor=monitor, worker=worker,
            fits=self.fits, health=Health(clock, stall_seconds=60.0), clock=clock,
            topic="traces", max_batch=500,
            alpha=AlphaWatch(TASKS, self.registry, self.store, worker.submit),
        )  # fmt: skip
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.trainer.run, args=(self.stop,))
        self.thread.start()

    def close(self) -> None:
        self.stop.set()
        self.thread.join(10.0)
        self.fits.close()

    def send(self, day: date, tasks: Iterable[str] = TASKS) -> None:
        """One trace a task and partition, which closes the day before in all of them."""
        traces = [trace(name, day, i) for name in tasks for i in range(8)]
        self.publisher.publish([Record("traces", t.id.encode(), encode(t)) for t in traces])

    def verdicts(self, day: date) -> dict[str, str]:
        found = {name: self.store.verdict(name, day) for name in TASKS}
        return {name: verdict["kind"] for name, verdict in found.items() if verdict}

    def wait_for(self, day: date, wanted: int, timeout: float = 90.0) -> dict[str, str]:
        deadline = time.monotonic() + timeout
        while len(found := self.verdicts(day)) < wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def announced(self) -> list[ModelAnnouncement]:
        return [decode(m.value, ModelAnnouncement) for m in self.broker.messages("models")]

    def _announce(self, announcement: ModelAnnouncement) -> None:
        self.publisher.publish([Record("models", announcement.task.encode(), encode(announcement))])


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_one_failing_fit_never_blocks_another(bench: Bench) -> None:
    bench.send(DAY1)
    bench.send(DAY2)
    verdicts = bench.wait_for(DAY1, len(TASKS) - 1)  # the damaged one waits to be tried again
    assert verdicts.pop("fails") == "failed"
    assert verdicts.pop("hangs") == "failed"
    assert set(verdicts.values()) == {"refused"}
    assert len(verdicts) == 47
    said = {a.task: a.reason for a in bench.announced()}
    assert said["fails"] == "the fit failed: ValueError: singular matrix"
    assert "fit_budget_s = 1 seconds" in said["hangs"]
    note = bench.registry.last_fit("fails")
    assert note is not None
    assert (note.verdict, note.window) == ("failed", "2026-01-01")
    assert bench.thread.is_alive()
    bench.send(DAY3)  # the next window tries again
    assert bench.wait_for(DAY2, len(TASKS) - 1)["fails"] == "refused"
    note = bench.registry.last_fit("fails")
    assert note is not None
    assert note.verdict == "refused"


def test_a_day_that_cannot_be_stored_keeps_no_other_task_from_being_idle(tmp_path: Path) -> None:
    """A late trace for a damaged part, and the trainer tries again every second."""
    WindowStore(str(tmp_path)).write("damaged", DAY1, [trace("damaged", DAY1, 9)])
    (part,) = tmp_path.glob("task=damaged/day=*/part-*.parquet")
    part.write_bytes(b"PAR1 and no more")
    bench = Bench(tmp_path, idle=timedelta(seconds=2))
    deadline = time.monotonic() + 40.0
    try:
        bench.send(DAY1, ["small-01"])
        bench.send(DAY1, ["damaged"])
        while "damaged" not in bench.trainer.health.readiness()[1]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        bench.send(DAY1, ["small-02"])
        while not bench.store.days("small-02"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        # Offsets before those of the damaged day are not read again.
        while 0 in bench.broker.committed("trainer").values():
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        bench.close()
