"""What load does to the system: latencies, lag, memory, and whether each request was decided once.

Latency is from the request's timestamp to its decision's, both set by the producer that made them,
on one machine: it includes the teacher where the teacher answered.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.faults.evidence import READS

_SAMPLE_SECONDS = 5.0
_PAGE = 4096
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Sample:
    """One look. `lag` in records by service, `memory` resident bytes and `cpu` seconds used so far
    by process, `latency` in milliseconds of the decisions since the look before, of the surrogate
    and of the teacher."""

    at: float
    sent: int
    decided: int
    lag: dict[str, int]
    memory: dict[str, int]
    latency: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)


class Meter:
    """Counts decisions in a thread of its own from the moment it is made until `close`."""

    def __init__(self, bootstrap: str, pids: Mapping[str, int]) -> None:
        self.samples: list[Sample] = []
        self.doubled = 0
        self.sent = self.decided = 0
        self._bootstrap, self._pids = bootstrap, pids
        self._open: dict[str, float] = {}
        self._latency: dict[str, list[float]] = defaultdict(list)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._began = self._sampled = time.monotonic()
        self._thread = threading.Thread(target=self._read, name="meter", daemon=True)
        self._joined = threading.Event()
        self._thread.start()
        self._joined.wait(20.0)

    def sending(self, request_id: str) -> None:
        with self._lock:
            self._open[request_id] = time.time()
            self.sent += 1

    @property
    def undecided(self) -> int:
        return len(self._open)

    def sample(self, *, now: bool = False) -> None:
        """Takes a sample when one is due."""
        moment = time.monotonic()
        if not now and moment - self._sampled < _SAMPLE_SECONDS:
            return
        self._sampled = moment
        with self._lock:
            latency = {who: sorted(values) for who, values in self._latency.items()}
            self._latency.clear()
        memory = {name: _resident(pid) for name, pid in self._pids.items()}
        cpu = {name: _cpu_seconds(pid) for name, pid in self._pids.items()}
        at = moment - self._began
        self.samples.append(Sample(at, self.sent, self.decided, self._lag(), memory, latency, cpu))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(20.0)

    def _read(self) -> None:
        consumer = self._client("meter")
        partitions = consumer.list_topics("decisions", timeout=20).topics["decisions"].partitions
        ends = [TopicPartition("decisions", number, -1) for number in partitions]  # -1: the end
        consumer.assign(ends)
        consumer.poll(2.0)
        self._joined.set()
        while not self._stop.is_set():
            for message in consumer.consume(1000, timeout=0.2):
                if message.error() is None:
                    self._count(json.loads(message.value()), message.timestamp()[1] / 1000)
        consumer.close()

    def _count(self, decision: dict[str, Any], at: float) -> None:
        who = "teacher" if decision["outcome"] == "deferred" else "surrogate"
        with self._lock:
            sent_at = self._open.pop(decision["request_id"], None)
            if sent_at is None:
                self.doubled += 1
                return
            self.decided += 1
            self._latency[who].append(1000 * (at - sent_at))

    def _lag(self) -> dict[str, int]:
        """-1 where the brokers did not say."""
        return {service: self._lag_of(service) for service in READS if service != "trainer"}

    def _lag_of(self, service: str) -> int:
        client = self._client(f"tracer-{service}")
        try:
            topic = client.list_topics(READS[service], timeout=5).topics[READS[service]]
            lag = 0
            for place in client.committed(
                [TopicPartition(READS[service], number) for number in topic.partitions], timeout=5
            ):
                low, high = client.get_watermark_offsets(place, timeout=5)
                lag += high - max(low, place.offset)
            return lag
        except KafkaException:
            return -1
        finally:
            client.close()

    def _client(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "log_level": 2,
            }
        )


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 when it is gone (Linux)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _cpu_seconds(pid: int) -> float:
    """Of all threads of a process, in user and kernel; 0 when it is gone (Linux)."""
    try:
        # The name of the command is in parentheses and may hold anything, spaces too.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS
    except (OSError, IndexError):
        return 0.0


def percentile(values: list[float], share: float) -> float | None:
    """Of sorted values; None without any."""
    if not values:
        return None
    return round(values[min(len(values) - 1, int(share * len(values)))], 1)
