"""The router process on Apache Kafka: throughput, latency, CPU, memory, start, swap, scale-out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.routing.load import Load
from benchmarks.routing.place import Place, cpu_seconds, memory_mb, rate
from benchmarks.routing.rounds import medians
from benchmarks.routing.versions import lexical_off, of_task
from services.router.loading import Loading
from services.router.models import Models
from shared.bus.base import Record
from shared.bus.kafka import open_pipe
from shared.contracts.topics import Topic
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.base import Artifact
from shared.registry.disk import DiskCopy

LOADS = (0.1, 0.5, 0.8)
Delivery = Literal["exactly_once", "at_least_once"]
DELIVERIES: tuple[Delivery, ...] = ("exactly_once", "at_least_once")


@dataclass(frozen=True)
class Amounts:
    """How much is measured. `rounds`: of what is compared; `requests`: of one throughput run;
    `seconds`: of one load; `warm_up`: of a load before anything is measured; `partitions`: of each
    topic, as many as two cores have room for routers; None: as shipped, for a fleet."""

    rounds: int = 3
    requests: int = 12_000
    seconds: float = 12.0
    warm_up: float = 100.0
    partitions: int | None = 2
    starts: int = 5
    swaps: int = 20


QUICK = Amounts(rounds=1, requests=3_000, seconds=4.0, warm_up=4.0, starts=2, swaps=5)


@dataclass(frozen=True)
class Streaming:
    kafka: str
    redis_url: str
    encoder: Path
    folder: Path
    artifact: Artifact
    texts: Sequence[str]
    amounts: Amounts

    def measure(self) -> dict[str, Any]:
        self.warm_up()
        found: dict[str, Any] = {"client_alone_per_s": self.client_alone()}
        rounds = [
            {delivery: self.delivery(delivery) for delivery in DELIVERIES}
            for _ in range(self.amounts.rounds)
        ]
        found |= medians(rounds)
        found["partitions"] = self.amounts.partitions
        as_shipped = replace(self, amounts=replace(self.amounts, partitions=None))
        found["as_shipped"] = as_shipped.delivery("exactly_once")
        found |= {"start": self.starts(), "swap": self.swaps()}
        found["scale_out"] = {
            f"{routers} routers, lexical stage {'on' if lexical else 'off'}": self.scale_out(
                routers, lexical=lexical
            )
            for lexical in (True, False)
            for routers in (1, 2)
        }
        return found

    @contextmanager
    def place(self, artifact: Artifact | None = None) -> Iterator[Place]:
        with Place(
            self.kafka, self.redis_url, self.encoder, self.folder,
            partitions=self.amounts.partitions,
        ) as place:  # fmt: skip
            place.publish(of_task(artifact or self.artifact, place.task))
            yield place

    def warm_up(self) -> None:
        """Until the broker's compiler has seen its work: it takes up to half a core by itself, for
        a minute and a half, and what it has not compiled costs twice as much."""
        n = self.amounts.requests
        with self.place() as place:
            place.router()
            place.send(self.texts, n)
            half = 0.5 * rate(place.progress(n, 300), n)
            Load(place, self.texts).run(half, self.amounts.warm_up)

    def client_alone(self) -> float:
        """Requests copied to decisions in transactions by our client; nothing is classified."""
        n = self.amounts.requests
        with self.place() as place:
            place.send(self.texts, n)
            pipe = open_pipe(
                bootstrap=self.kafka, group=f"alone-{place.name}",
                topics=[place.topic(Topic.REQUESTS)], delivery="exactly_once",
                transactional_id=f"alone-{place.name}",
            )  # fmt: skip
            seen, done, deadline = list[tuple[float, int]](), 0, time.monotonic() + 300
            decisions = place.topic(Topic.DECISIONS)
            try:
                while done < n and time.monotonic() < deadline:
                    messages = pipe.poll(1024, 0.5)
                    pipe.commit([Record(decisions, m.key, m.value) for m in messages])
                    done += len(messages)
                    seen.append((time.monotonic(), done))
            finally:
                pipe.close()
        return rate(seen, n)

    def delivery(self, delivery: Delivery) -> dict[str, Any]:
        """Throughput, then latency at shares of it."""
        n = self.amounts.requests
        with self.place() as place:
            router = place.router(delivery=delivery)
            cpu = cpu_seconds(router)
            place.send(self.texts, n)
            per_second = rate(place.progress(n, 300), n)
            cpu = cpu_seconds(router) - cpu
            load = Load(place, self.texts)
            return {
                "per_s": per_second,
                "cpu_s_per_1000": 1000 * cpu / n,
                "latency": {
                    f"{share:.0%} load": load.run(
                        share * per_second, self.amounts.seconds
                    ).figures()
                    for share in LOADS
                },
                "memory_mb": memory_mb(router),
            }

    def starts(self) -> dict[str, float]:
        """From the start of the process to ready, with a disk copy from the start before."""
        seconds = []
        with self.place() as place:
            place.router().terminate()
            for _ in range(self.amounts.starts):
                begun = time.monotonic()
                router = place.router()
                seconds.append(time.monotonic() - begun)
                router.terminate()
        return {"median_s": statistics.median(seconds), "longest_s": max(seconds)}

    def swaps(self) -> dict[str, float]:
        """From a new pointer in Redis to serving: load, verify, build, warm up, keep on disk."""
        encoder = OnnxEncoder(self.encoder)
        seconds = []
        with self.place() as place:
            models = Models(
                [place.task], place.registry, DiskCopy(place.folder / "swaps"),
                Loading(encoder, threads=2),
            )  # fmt: skip
            models.refresh()
            for number in range(self.amounts.swaps):
                version = of_task(self.artifact, place.task, window=f"swap-{number}")
                place.publish(version)
                begun = time.monotonic()
                models.refresh()
                seconds.append(time.monotonic() - begun)
        return {
            "median_ms": 1000 * statistics.median(seconds), "longest_ms": 1000 * max(seconds)
        }  # fmt: skip

    def scale_out(self, routers: int, *, lexical: bool) -> float:
        """Requests a second of routers with one thread each, in one group."""
        n = self.amounts.requests // (1 if lexical else 4)
        artifact = self.artifact if lexical else lexical_off(self.artifact)
        with self.place(artifact) as place:
            for number in range(1, routers + 1):
                # Small batches: a rate is told from commit to commit.
                place.router(number, threads=1, max_batch=128)
            time.sleep(3.0)  # both have their partitions
            place.send(self.texts, n)
            return rate(place.progress(n, 300), n)
