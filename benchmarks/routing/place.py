"""Apache Kafka, Redis and router processes for one measurement."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import confluent_kafka
from confluent_kafka import Consumer
from msgspec.structs import replace

from benchmarks.routing.subject import TASK
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, Fleet
from shared.bus.admin import ensure_topics
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher
from shared.contracts.codec import encode
from shared.contracts.events import Request
from shared.contracts.topics import Topic, load_topics
from shared.registry.base import Artifact, Registry
from shared.registry.redis import connect

_TICKS = os.sysconf("SC_CLK_TCK")


class Place:
    """Topics and a group of their own on `kafka`; use it as a context manager.

    `partitions`: of each topic, at most; None: as the schemas say."""

    def __init__(
        self, kafka: str, redis_url: str, encoder: Path, folder: Path,
        *, partitions: int | None = None,
    ) -> None:  # fmt: skip
        self.kafka, self.redis_url = kafka, redis_url
        self.name = uuid4().hex[:8]
        self.prefix = f"{self.name}."
        self.task = f"{TASK}-{self.name}"
        self.folder = folder / self.name
        self.folder.mkdir(parents=True)
        self.fleet = Fleet()
        topics = [
            replace(spec, partitions=min(partitions or spec.partitions, spec.partitions))
            for spec in load_topics().values()
        ]
        self.partitions = ensure_topics(kafka, topics, prefix=self.prefix, replication=1)
        (self.folder / "tasks.yaml").write_text(f"tasks: [{{name: {self.task}}}]\n")
        self.registry = connect(redis_url)
        self._environment = {
            "TRACER_UNSIGNED": "allow",
            "TRACER_BOOTSTRAP_SERVERS": kafka,
            "TRACER_REDIS_URL": redis_url,
            "TRACER_TASKS": str(self.folder / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": self.prefix,
            "TRACER_GROUP_SUFFIX": f"-{self.name}",
            "TRACER_ENCODER": str(encoder),
            "TRACER_DOOR_PORT": "0",
            "TRACER_CACHE_MB": "0",  # the same texts come again and again here
        }

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *raised: object) -> None:
        self.fleet.stop()
        self.registry.close()

    def topic(self, topic: Topic) -> str:
        return f"{self.prefix}{topic}"

    def publish(self, artifact: Artifact) -> str:
        """Make it the active version of this place's task."""
        return publish(self.registry, artifact)

    def router(self, number: int = 1, **settings: object) -> Child:
        """A router process, ready; `settings` as in TRACER_<NAME>."""
        more = {f"TRACER_{name.upper()}": str(value) for name, value in settings.items()}
        child = Child(
            f"router-{number}", [sys.executable, "-m", "services.router.main"],
            log=self.folder / f"router-{number}.log",
            environment=self._environment
            | {
                "TRACER_INSTANCE": f"r{number}",
                "TRACER_MODELS": str(self.folder / f"models-{number}"),
            }
            | more,
            health_port=free_port(),
        )  # fmt: skip
        self.fleet.start(child)
        child.wait_ready(60)
        return child

    def send(self, texts: Sequence[str], n: int) -> None:
        """`n` requests at once, the texts over and over."""
        publisher = KafkaPublisher(bootstrap=self.kafka)
        publisher.publish([self.request(f"{i}", texts[i % len(texts)]) for i in range(n)])
        publisher.close()

    def request(self, request_id: str, text: str) -> Record:
        request = Request(id=request_id, task=self.task, input=text)
        return Record(self.topic(Topic.REQUESTS), request_id.encode(), encode(request))

    def progress(self, n: int, timeout: float) -> list[tuple[float, int]]:
        """(time, requests committed by the group) until it is through with `n`."""
        watcher = Consumer(
            {"bootstrap.servers": self.kafka, "group.id": f"tracer-router-{self.name}",
             "isolation.level": "read_uncommitted", "enable.auto.commit": False}
        )  # fmt: skip
        topic = self.topic(Topic.REQUESTS)
        deadline, seen = time.monotonic() + timeout, list[tuple[float, int]]()
        try:
            count = len(watcher.list_topics(topic, 10).topics[topic].partitions)
            asked = [confluent_kafka.TopicPartition(topic, p) for p in range(count)]
            while not seen or seen[-1][1] < n:
                if time.monotonic() > deadline:
                    done = seen[-1][1] if seen else 0
                    raise TimeoutError(f"{done} of {n} requests after {timeout:g} s")
                self.fleet.check()
                done = sum(max(0, p.offset) for p in watcher.committed(asked, timeout=10))
                seen.append((time.monotonic(), done))
                time.sleep(0.1)
        finally:
            watcher.close()
        return seen


def publish(registry: Registry, artifact: Artifact) -> str:
    """Make it the active version of its task, as a trainer does; its name."""
    fence = registry.acquire(artifact.manifest.task)
    registry.publish(artifact, fence=fence, at=datetime.now(UTC), reason="benchmark")
    return artifact.version


def rate(seen: Sequence[tuple[float, int]], n: int) -> float:
    """Requests a second while between a tenth and nine tenths of `n` were through."""
    inside = [(at, done) for at, done in seen if 0.1 * n <= done <= 0.9 * n]
    if len(inside) < 2 or inside[-1][1] == inside[0][1]:
        raise ValueError(f"too few requests to tell a rate: {n}")
    # From change to change: what was committed between two looks is known at the second.
    (begun, first), (ended, last) = inside[0], inside[-1]
    ended = next(at for at, done in inside if done == last)
    return (last - first) / (ended - begun)


def cpu_seconds(child: Child) -> float:
    """Of the process so far, in user and system mode."""
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(child: Child, what: str = "VmHWM") -> float:
    """The most memory it held so far (VmHWM) or what it holds now (VmRSS), in 10⁶ bytes."""
    lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(what))) * 1024 / 1e6
