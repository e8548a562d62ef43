"""Requests at a steady rate, and how long each took from its due time to its first answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import numpy as np
from confluent_kafka import Consumer, Producer

from benchmarks.routing.place import Place
from shared.contracts.codec import decode
from shared.contracts.events import Decision
from shared.contracts.topics import Topic


@dataclass
class Taken:
    """Answers of one load. `at`: when each request was due; `ms`: what it took. `doubled`: requests
    that were on one topic more than once."""

    sent: int
    at: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    doubled: int = 0
    decisions: list[Decision] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return self.sent - len(self.ms)

    def figures(self) -> dict[str, float]:
        """p50 and p99 of all but the first tenth, which meets cold caches."""
        warm = self.ms[len(self.ms) // 10 :]
        return {
            "p50_ms": float(np.percentile(warm, 50)),
            "p99_ms": float(np.percentile(warm, 99)),
            "requests": self.sent,
            "lost": self.lost,
            "doubled": self.doubled,
        }


class Load:
    """Sends from one thread, takes in decisions and deferrals with read_committed in another."""

    def __init__(self, place: Place, texts: Sequence[str]) -> None:
        self._place, self._texts = place, texts

    def run(self, per_second: float, seconds: float, *, patience: float = 20.0) -> Taken:
        """Requests due evenly spaced; a late sender does not shift the later ones."""
        run = uuid4().hex[:6]
        n = int(per_second * seconds)
        arrived: dict[str, float] = {}
        doubled: list[str] = []
        decided: list[bytes] = []
        ready, stop = threading.Event(), threading.Event()
        reader = threading.Thread(
            target=self._read, args=(run, arrived, doubled, decided, ready, stop), daemon=True
        )
        reader.start()
        try:
            if not ready.wait(30):
                raise TimeoutError("the reader of answers got no partitions")
            begun = time.monotonic()
            self._send(run, n, per_second, begun)
            deadline = time.monotonic() + patience
            while len(arrived) < n and time.monotonic() < deadline:
                self._place.fleet.check()
                time.sleep(0.05)
        finally:  # a client left open can keep the interpreter from ending
            stop.set()
            reader.join(10)
        due = [begun + i / per_second for i in range(n)]
        got = [(at, arrived[f"{run}-{i}"]) for i, at in enumerate(due) if f"{run}-{i}" in arrived]
        taken = Taken(n, [at for at, _ in got], [1000 * (then - at) for at, then in got])
        taken.doubled = len(doubled)
        taken.decisions = [decode(value, Decision) for value in decided]
        return taken

    def _send(self, run: str, n: int, per_second: float, begun: float) -> None:
        producer = Producer({"bootstrap.servers": self._place.kafka})  # lingering as clients do
        for i in range(n):
            wait = begun + i / per_second - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            record = self._place.request(f"{run}-{i}", self._texts[i % len(self._texts)])
            producer.produce(record.topic, record.value, record.key)
            producer.poll(0)
        producer.flush(10)

    def _read(
        self, run: str, arrived: dict[str, float], doubled: list[str], decided: list[bytes],
        ready: threading.Event, stop: threading.Event,
    ) -> None:  # fmt: skip
        """A handled request that is audited is on both topics; twice on one is once too often."""
        consumer = Consumer(
            {"bootstrap.servers": self._place.kafka, "group.id": uuid4().hex,
             "isolation.level": "read_committed", "auto.offset.reset": "latest",
             "enable.auto.commit": False, "fetch.wait.max.ms": 20}
        )  # fmt: skip
        topics = [self._place.topic(Topic.DECISIONS), self._place.topic(Topic.DEFERRED)]
        known: set[str] = set()

        def assigned(consumer: Consumer, partitions: list[object]) -> None:
            known.update(str(partition) for partition in partitions)

        consumer.subscribe(topics, on_assign=assigned)
        seen: set[tuple[str, str]] = set()
        settled = 0.0
        while not stop.is_set():
            messages = consumer.consume(500, 0.02)
            now = time.monotonic()
            if known and not ready.is_set():
                settled = settled or now
                if now - settled > 1.0:  # "latest" is looked up after the assignment
                    ready.set()
            for message in messages:
                if message.error() is not None:
                    continue
                request = (message.key() or b"").decode()
                if not request.startswith(run):
                    continue
                if (request, str(message.topic())) in seen:
                    doubled.append(request)
                seen.add((request, str(message.topic())))
                if message.topic() == topics[0]:
                    decided.append(message.value() or b"")
                arrived.setdefault(request, now)
        consumer.close()
