"""What is there to be seen from outside: every topic from its beginning, the groups' offsets, the
trainer's folder and Redis. Read with client libraries and `json` alone, none of our own code, so
that a fault of ours does not hide itself.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

TOPICS = ("traces.raw", "traces", "requests", "decisions", "deferred", "models", "dead-letters")
READS = {"router": "requests", "teacher": "deferred", "ingest": "traces.raw", "trainer": "traces"}
_KEPT = ("id", "request_id", "task", "outcome", "reason", "version", "error", "source", "kind")
# Fields that an event leaves out when they have the value it names as its default.
_LEFT_OUT = {"deferred": {"outcome": "deferred"}, "traces.raw": {"source": "log"}}
_LETTER = "__connect.errors."

At = tuple[str, int, int]  # topic, partition, offset


class Unreadable(RuntimeError):
    """The evidence could not be gathered in time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A record; `body` holds what the laws need of it, and is empty for what is no JSON object.
    `letter`: of a dead letter, where its original was and why it was rejected, by whom."""

    at: At
    body: dict[str, Any]
    digest: bytes
    letter: tuple[At, str, str] | None = None

    @property
    def name(self) -> tuple[str, str]:
        """Task and id of what the record is about."""
        own = self.body.get("request", self.body)
        return str(own.get("task")), str(own.get("id", own.get("request_id")))


@dataclass
class Called:
    """A request at a door: how often it was sent, and how often it was answered with a decision."""

    attempts: int = 0
    answers: int = 0


@dataclass
class Evidence:
    """`committed`: by service, the next offset of each partition. `stored`: task and id of every
    trace in a window, `doubled`: of those that a day's window has twice. `active`: by task, what
    the registry holds. `certified`: every version seen with a certificate of at least the task's α.
    `acknowledged`: what producers were told is kept. `called`: what was asked at the doors, by task
    and id.
    """

    records: dict[str, list[Seen]] = field(default_factory=lambda: {t: [] for t in TOPICS})
    committed: dict[str, dict[int, int]] = field(default_factory=dict)
    stored: set[tuple[str, str]] = field(default_factory=set)
    doubled: set[tuple[str, str]] = field(default_factory=set)
    active: dict[str, Active] = field(default_factory=dict)
    certified: set[str] = field(default_factory=set)
    acknowledged: set[At] = field(default_factory=set)
    called: dict[tuple[str, str], Called] = field(default_factory=dict)

    @property
    def events(self) -> int:
        return sum(len(records) for records in self.records.values()) + len(self.called)


@dataclass(frozen=True)
class Active:
    """A task's active version as Redis holds it; `flaw` is what is wrong with it, if anything."""

    version: str | None
    flaw: str | None = None


class Windows:
    """What the trainer has stored, each part read once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._parts: set[Path] = set()
        self._ids: set[tuple[str, str, str]] = set()

    def look(self, evidence: Evidence) -> None:
        for part in self._store.glob("task=*/day=*/part-*.parquet"):
            if part in self._parts:
                continue
            self._parts.add(part)
            task, day = part.parts[-3].removeprefix("task="), part.parts[-2]
            for each in pq.read_table(part, columns=["id"], partitioning=None)["id"].to_pylist():
                if (task, day, each) in self._ids:
                    evidence.doubled.add((task, each))
                self._ids.add((task, day, each))
                evidence.stored.add((task, each))


class Witness:
    """Gathers evidence, each time from where the last look ended."""

    def __init__(self, bootstrap: str, store: Path, tasks: dict[str, float]) -> None:
        """`tasks`: the α of each."""
        self.evidence = Evidence()
        self._bootstrap = bootstrap
        self._windows = Windows(store)
        self._tasks = tasks
        self._next: dict[tuple[str, int], int] = {}
        self._newest: dict[tuple[str, int], int] = {}
        self._consumer = self._client("witness")
        self._places = self._partitions()
        self._consumer.assign([TopicPartition(t, p, 0) for t, p in self._places])

    def look(self, registry: redis.Redis | None, *, seconds: float = 20.0) -> Evidence:
        """Everything up to now. Offsets are read first: what they pass over must show in what is
        read after. Raises Unreadable."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                committed = {service: self._offsets(service) for service in READS}
                self._windows.look(self.evidence)
                self._read_topics(deadline)
                break
            except KafkaException as error:
                if time.monotonic() > deadline:
                    raise Unreadable(f"Kafka does not answer: {error}") from error
        self.evidence.committed = committed
        if registry is not None:
            self._read_registry(registry)
        return self.evidence

    def behind(self) -> Counter[str]:
        """Offsets that services have yet to work off, as of the last look; of the trainer, which
        holds its windows open, nothing is said."""
        behind: Counter[str] = Counter()
        for service in ("router", "teacher", "ingest"):
            for (topic, partition), newest in self._newest.items():
                if topic == READS[service]:
                    done = self.evidence.committed[service].get(partition, 0)
                    behind[service] += max(0, newest + 1 - done)
        return +behind

    def close(self) -> None:
        self._consumer.close()

    def _client(self, group: str) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": group,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "socket.timeout.ms": 5000,
                "log_level": 2,
            }
        )

    def _partitions(self) -> list[tuple[str, int]]:
        found = self._consumer.list_topics(timeout=20).topics
        return [(topic, number) for topic in TOPICS for number in found[topic].partitions]

    def _offsets(self, service: str) -> dict[int, int]:
        client = self._client(f"tracer-{service}")
        try:
            wanted = [TopicPartition(t, p) for t, p in self._places if t == READS[service]]
            found = client.committed(wanted, timeout=5)
            return {each.partition: max(0, each.offset) for each in found}
        finally:
            client.close()

    def _read_topics(self, deadline: float) -> None:
        behind = set()
        for place in self._places:
            _, end = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=5)
            if end > self._next.get(place, 0):
                behind.add((place, end))
        while behind:
            for raw in self._consumer.consume(2000, timeout=0.2):
                self._take(raw)
            behind = {(place, end) for place, end in behind if self._next.get(place, 0) < end}
            if behind and time.monotonic() > deadline:
                raise Unreadable(f"not read to the end: {sorted(behind)[:3]}")

    def _take(self, raw: Any) -> None:
        place = (raw.topic(), raw.partition())
        error = raw.error()
        if error is None:
            self._next[place] = raw.offset() + 1
            self._newest[place] = raw.offset()
            self.evidence.records[place[0]].append(_seen(raw))
        elif error.code() == KafkaError._PARTITION_EOF:
            self._next[place] = max(self._next.get(place, 0), raw.offset())

    def _read_registry(self, registry: redis.Redis) -> None:
        for task, alpha in self._tasks.items():
            key = f"tracer:{{{task}}}:"
            for version, manifest in registry.hgetall(f"{key}manifests").items():
                if flaw_of(version.decode(), manifest, task, alpha) is None:
                    self.evidence.certified.add(version.decode())
            version = (registry.hget(f"{key}active", "version") or b"").decode()
            self.evidence.active[task] = Active(
                version or None, _flaw(registry, key, version, task, alpha) if version else None
            )


def flaw_of(version: str, manifest: bytes | None, task: str, alpha: float) -> str | None:
    """What is wrong with a version's manifest, None when it certifies at least `alpha`."""
    if manifest is None:
        return "it has no manifest"
    if not version.endswith("-" + hashlib.sha256(manifest).hexdigest()[:12]):
        return "its manifest is not the one it is named after"
    content = json.loads(manifest)
    certificate = content.get("certificate") or {}
    if content.get("task") != task:
        return f"it was made for {content.get('task')}"
    lower = certificate.get("agreement_lower", 0.0)
    if certificate.get("alpha", 0.0) < alpha or lower < alpha:
        return f"its certificate says {lower} of at least {alpha}"
    return None


def _flaw(registry: redis.Redis, key: str, version: str, task: str, alpha: float) -> str | None:
    manifest = registry.hget(f"{key}manifests", version)
    flaw = flaw_of(version, manifest, task, alpha)
    if flaw is not None or manifest is None:
        return flaw
    for stage in json.loads(manifest)["stages"]:
        blob = registry.hget(f"{key}blobs", f"{version}/{stage['blob']}")
        if blob is None or hashlib.sha256(blob).hexdigest() != stage["blob"]:
            return f"stage {stage['name']} is not what its manifest says"
    return None


def _seen(raw: Any) -> Seen:
    value = raw.value() or b""
    headers = dict(raw.headers() or ())
    letter = None
    if raw.topic() == "dead-letters":
        letter = _letter(headers)
    at = (raw.topic(), raw.partition(), raw.offset())
    body = _LEFT_OUT.get(raw.topic(), {}) | _body(value)
    return Seen(at, body, hashlib.sha256(value).digest()[:12], letter)


def _letter(headers: dict[str, bytes]) -> tuple[At, str, str] | None:
    """None when the headers do not say where it came from and why."""
    try:
        said = {
            name: headers[_LETTER + name].decode()
            for name in ("topic", "partition", "offset", "exception.message", "connector.name")
        }
        at = (said["topic"], int(said["partition"]), int(said["offset"]))
    except (KeyError, ValueError):
        return None
    return at, said["exception.message"], said["connector.name"]


def _body(value: bytes) -> dict[str, Any]:
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    body = {name: document[name] for name in _KEPT if name in document}
    request = document.get("request")
    if isinstance(request, dict):
        body["request"] = {name: request.get(name) for name in ("id", "task")}
    certificate = document.get("certificate")
    if isinstance(certificate, dict):
        body["agreement_lower"] = certificate.get("agreement_lower")
    return body
