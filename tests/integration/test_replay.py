"""The audit on a real topic range: windows closed by the trainer's own code, versions in Redis, and
the command that makes them again."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from zoneinfo import ZoneInfo

import msgspec
import pytest
from typer.testing import CliRunner, Result

from services.ctl.main import app
from services.ctl.sample.generator import generate
from services.trainer.examine import Examiner
from services.trainer.handlers import Collector
from services.trainer.pipeline import Refit
from services.trainer.refit_states import RefitStates
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.clock import FakeClock
from shared.contracts.codec import encode
from shared.contracts.events import ModelAnnouncement, Trace
from shared.contracts.tasks import load_tasks
from shared.core.window import WindowBook
from shared.encoder.cache import CachedEncoder
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.base import Artifact
from shared.registry.redis import connect
from shared.rejecting import rejecting
from shared.store.parquet import WindowStore
from shared.store.saved import SavedFiles
from tests.kafka_fixtures import create_topic

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
DAYS = (date(2026, 1, 5), date(2026, 1, 6))


class World:
    """A trainer's collector and refit in this process, by a clock of the test's."""

    def __init__(self, kafka: str, redis_url: str, folder: Path) -> None:
        name = uuid4().hex[:8]
        self.task, self.topic = f"t-{name}", f"{name}.traces"
        create_topic(kafka, 3, name=self.topic)
        (folder / "tasks.yaml").write_text(
            f"tasks: [{{name: {self.task}, alpha: 0.7, horizon_days: 5}}]\n"
        )
        self.environment = {
            "TRACER_BOOTSTRAP_SERVERS": kafka,
            "TRACER_REDIS_URL": redis_url,
            "TRACER_TASKS": str(folder / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": f"{name}.",
            "TRACER_CACHE": str(ROOT / ".cache"),
        }
        self.publisher = KafkaPublisher(bootstrap=kafka)
        self.source = KafkaSource(bootstrap=kafka, group=name, topics=[self.topic])
        self.registry = connect(redis_url)
        self.store = WindowStore(str(folder / "windows"))
        self.clock = FakeClock(datetime(2026, 2, 1, tzinfo=UTC))
        tasks = load_tasks(folder / "tasks.yaml")
        reject = rejecting("trainer", f"{name}.dead-letters", self.clock)
        self.collector = Collector(
            tasks=tasks,
            store=self.store,
            windows=WindowBook(
                lateness=timedelta(0), idle=timedelta(seconds=60),
                partition_idle=timedelta(seconds=30), zones={self.task: ZoneInfo("UTC")},
            ),
            clock=self.clock,
            dead_letter=reject,
        )  # fmt: skip
        self.announced: list[ModelAnnouncement] = []
        encoder = OnnxEncoder(ensure_default_encoder(ROOT / ".cache" / "encoder"), threads=2)
        self.refit = Refit(
            tasks=tasks,
            windows=self.store,
            encoder=encoder.digest,
            examine=Examiner(
                self.store,
                CachedEncoder(encoder, folder / "embeddings.sqlite"),
                RefitStates(SavedFiles(str(folder / "windows"))),
            ),
            registry=self.registry,
            announce=self.announced.append,
            clock=self.clock,
        )
        self.rows = list(generate(620, seed=3))
        self.read = 0

    def send(self, day: date, first: int, last: int) -> None:
        at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        traces = [
            Trace(
                id=f"t{i}",
                task=self.task,
                input=str(self.rows[i]["input"]),
                teacher=str(self.rows[i]["teacher"]),
                occurred_at=at + timedelta(seconds=i),
            )
            for i in range(first, last)
        ]
        self.publisher.publish([Record(self.topic, t.id.encode(), encode(t)) for t in traces])
        self.read += last - first

    def close_windows(self) -> None:
        """Read what was sent, let the task fall silent, store what is due and fit."""
        stop = threading.Event()
        held = 0
        for _ in range(200):
            messages = self.source.poll(1_000, 0.25)
            self.collector.add(messages, [p.partition for p in self.source.assigned()])
            held += len(messages)
            if held >= self.read:
                break
            stop.wait(0.05)
        assert held == self.read
        self.read = 0
        self.clock.sleep(3_600)
        for key in self.collector.close_due():
            self.refit(key)

    def run(self, *arguments: str) -> Result:
        command = ["replay", "--task", self.task, *arguments]
        return CliRunner().invoke(app, command, env=self.environment)


@pytest.fixture
def world(kafka: str, redis_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, redis_url, tmp_path)
    yield made
    made.source.close()
    made.publisher.close()
    made.registry.close()


def test_every_version_of_a_range_is_made_again_byte_for_byte(world: World) -> None:
    world.send(DAYS[0], 0, 300)
    world.close_windows()
    # Late traces of the first day: in the next fit, not in the one that was made.
    world.send(DAYS[0], 300, 310)
    world.send(DAYS[1], 310, 600)
    world.close_windows()
    versions = world.registry.versions(world.task)
    assert [v[:10] for v in versions] == ["2026-01-05", "2026-01-06"], world.announced
    world.send(DAYS[1], 600, 620)  # nobody has seen these yet
    result = world.run("--from", "2020-01-01", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [(v["version"], v["again"], v["traces"]) for v in told["versions"]] == [
        (versions[0], versions[0], 300), (versions[1], versions[1], 600),
    ]  # fmt: skip
    assert (told["same"], told["not_compared"]) == (True, [])
    _refuse_what_is_not_covered(world, versions)
    _find_a_forgery(world, versions[1])


def _refuse_what_is_not_covered(world: World, versions: list[str]) -> None:
    """By offsets: a range that ends before the second fit's traces, or begins after the first's."""
    manifest = world.registry.load(world.task, versions[0]).manifest
    reach = manifest.source["2026-01-05"]
    assert sum(reach.values()) == 300
    ends = ",".join(f"{p}:{o}" for p, o in sorted(reach.items()))
    first = world.run("--from", "0:0", "--to", ends, "--json")
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert [v["version"] for v in told["versions"]] == [versions[0]]
    assert "choose a later --to" in told["not_compared"][0]
    later = world.run("--from", ends, "--version", versions[0], "--json")
    assert later.exit_code == 1
    assert "choose an earlier --from" in json.loads(later.stdout)["not_compared"][0]


def _find_a_forgery(world: World, version: str) -> None:
    """A version whose publisher claims another count of traces, and one made elsewhere."""
    artifact = world.registry.load(world.task, version)
    for field, value, said in (
        ("n_traces", 599, "n_traces: 599 then, 600 now"),
        ("libraries", artifact.manifest.libraries | {"numpy": "1.0"}, "libraries.numpy: 1.0 then"),
    ):
        claimed = msgspec.structs.replace(artifact.manifest, **{field: value})
        forged = Artifact(claimed.encode(), artifact.blobs)
        world.registry.publish(
            forged, fence=world.registry.acquire(world.task), at=world.clock.now(), reason="forged"
        )
        result = world.run("--from", "2020-01-01", "--version", forged.version)
        assert result.exit_code == 1
        assert f"differs first in {said}" in " ".join(result.stdout.split())


def test_what_to_give_is_said(world: World) -> None:
    assert world.run().exit_code == 2
    assert world.run("--from", "yesterday").exit_code == 2
    nothing = world.run("--from", "2020-01-01")
    assert nothing.exit_code == 1
    assert "no stored version" in nothing.stderr
