"""Ingest as a process, on the embedded broker and on a real Kafka, with a real Redis."""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic, TopicPartition

from deploy.kafka.local_kafka import LocalKafka
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child
from shared.bus.dead_letters import FIRST_TIMESTAMP
from shared.contracts.codec import decode
from shared.contracts.dead_letters import DeadLetter
from shared.contracts.events import Trace
from shared.contracts.topics import schemas_folder
from tests.kafka_fixtures import start_kafka

TOPICS = ("traces.raw", "traces", "dead-letters")
TASKS = """
tasks:
  - name: support
    labels: [refund, card_lost, other]
    unknown_labels: dead_letter
"""
TRACEPARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")


@dataclass
class World:
    """A broker with this test's own topics, and ingest processes on it."""

    bootstrap: str
    redis_url: str
    folder: Path
    prefix: str = field(default_factory=lambda: f"t{uuid4().hex[:8]}-")
    children: list[Child] = field(default_factory=list)
    tasks: str = TASKS

    def start_ingest(self, **environment: str) -> Child:
        tasks = self.folder / "tasks.yaml"
        tasks.write_text(self.tasks)
        settings = {
            "TRACER_BOOTSTRAP_SERVERS": self.bootstrap,
            "TRACER_REDIS_URL": self.redis_url,
            "TRACER_TASKS": str(tasks),
            "TRACER_TOPIC_PREFIX": self.prefix,
            "TRACER_GROUP_SUFFIX": f"-{self.prefix}",
            "TRACER_INGEST_SESSION_TIMEOUT_SECONDS": "6",
        }
        child = Child(
            "ingest",
            [sys.executable, "-m", "services.ingest.main"],
            log=self.folder / "ingest.log",
            environment={**settings, **environment},
            health_port=free_port(),
        )
        self.children.append(child)
        child.start()
        return child

    def produce(
        self,
        values: Sequence[tuple[str, bytes]],
        compression: str = "none",
        topic: str = "traces.raw",
    ) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "compression.type": compression})
        for key, value in values:
            producer.produce(
                f"{self.prefix}{topic}", value, key=key.encode(), headers=[TRACEPARENT]
            )
            producer.poll(0)
        assert producer.flush(30) == 0

    def read(self, topic: str) -> list[Any]:
        """All records of a topic, from the beginning to the end it has now."""
        name = f"{self.prefix}{topic}"
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": uuid4().hex, "log_level": 0}
        )
        try:
            partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
            missing = 0
            for number in partitions:
                _, end = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=10)
                missing += end
            consumer.assign([TopicPartition(name, number, 0) for number in partitions])
            records = []
            deadline = time.monotonic() + 20
            while len(records) < missing and time.monotonic() < deadline:
                records += [m for m in consumer.consume(1000, 0.2) if m.error() is None]
            return records
        finally:
            consumer.close()

    def wait_for(self, topic: str, enough: Callable[[list[Any]], bool]) -> list[Any]:
        deadline = time.monotonic() + 60
        while True:
            records = self.read(topic)
            if enough(records):
                return records
            for child in self.children[-1:]:
                child.check()
            assert time.monotonic() < deadline, f"only {len(records)} records in {topic}"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(request.getfixturevalue(str(request.param)), redis_url, tmp_path)
    admin = AdminClient({"bootstrap.servers": made.bootstrap})
    names = [f"{made.prefix}{topic}" for topic in TOPICS]
    if request.param == "kafka":
        for created in admin.create_topics([NewTopic(name, 4, 1) for name in names]).values():
            created.result(10)
    else:
        for name in names:
            admin.list_topics(name, timeout=10)  # the mock cluster makes what is asked for
    yield made
    for child in made.children:
        child.kill()


def raw(number: int, **changes: Any) -> tuple[str, bytes]:
    row = {
        "id": f"t{number}",
        "task": "support",
        "input": f"message {number}",
        "teacher": "Refund ",
        "occurred_at": "2026-01-05T10:00:00Z",
    }
    return f"t{number}", json.dumps({**row, **changes}).encode()


def ids(records: Sequence[Any]) -> Counter[str]:
    return Counter(decode(record.value(), Trace).id for record in records)


def test_traces_and_dead_letters_exactly_as_expected(world: World) -> None:
    bad = [
        ("g0", b"garbage"),
        raw(1001, task="sales"),
        raw(1002, teacher="what"),
        raw(1003, occurred_at="2999-01-01T00:00:00Z"),
        raw(1004, input=" "),
    ]
    good = [raw(number) for number in range(200)]
    for number, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        world.produce(good[number * 25 : (number + 1) * 25], codec)
    world.produce([*bad, *good[50:], *good[:10]])
    ingest = world.start_ingest()
    ingest.wait_ready(40)
    traces = world.wait_for("traces", lambda records: len(records) >= 200)
    letters = world.wait_for("dead-letters", lambda records: len(records) >= len(bad))

    # Once more, now that all of it was seen: only the new one comes through.
    world.produce([*good, raw(200)])
    traces = world.wait_for("traces", lambda records: len(records) > 200)
    assert ids(traces) == Counter(f"t{number}" for number in range(201))
    for record in traces:
        trace = decode(record.value(), Trace)
        assert record.key() == trace.id.encode()
        assert trace.teacher == "refund"
        assert record.headers() == [TRACEPARENT]

    fields = {}
    for record in letters:
        letter = DeadLetter.from_headers(record.headers(), key=record.key(), value=record.value())
        assert letter.topic == f"{world.prefix}traces.raw"
        first, (name, timestamp) = letter.headers
        assert (first, name) == (TRACEPARENT, FIRST_TIMESTAMP)
        assert abs(int(timestamp) / 1000 - time.time()) < 600
        fields[(record.key() or b"").decode()] = letter.field
    assert fields == {
        "g0": "", "t1001": "task", "t1002": "teacher", "t1003": "occurred_at", "t1004": "input",
    }  # fmt: skip
    assert len(letters) == len(bad)

    assert ingest.terminate(20) == 0
    lines = [json.loads(line) for line in ingest.log.read_text().splitlines()]
    assert len(lines) < 10, "one line per event of note, none per record"
    assert not any("exception" in line for line in lines)


@pytest.mark.parametrize(
    "world", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True
)  # fmt: skip
def test_spans_of_a_collector_and_logs_of_a_proxy_beside_raw_traces(world: World) -> None:
    """As the Collector's Kafka exporter and LiteLLM write them; one topic is not there yet."""
    examples = schemas_folder() / "sources"
    spans = (examples / "otlp_proto" / "current-attributes.binpb").read_bytes()
    unusable = (examples / "otlp_proto" / "refused.binpb").read_bytes()
    payload = (examples / "litellm" / "one.json").read_bytes()
    world.tasks = f"""
tasks:
  - name: support
    sources:
      - {{format: otlp_proto, topic: {world.prefix}otlp_spans}}
      - {{format: litellm, topic: {world.prefix}litellm}}
      - {{format: otlp_json, topic: {world.prefix}absent}}
"""
    admin = AdminClient({"bootstrap.servers": world.bootstrap})
    for name in ("otlp_spans", "litellm"):
        for created in admin.create_topics([NewTopic(f"{world.prefix}{name}", 2, 1)]).values():
            created.result(10)
    world.produce([("", spans), ("", unusable), ("", spans)], topic="otlp_spans")
    world.produce([("", payload), ("", b"garbage")], topic="litellm")
    world.produce([raw(1)])
    door = free_port()
    ingest = world.start_ingest(TRACER_OTLP_PORT=str(door))
    ingest.wait_ready(60)
    through_the_door = (examples / "otlp_proto" / "messages-as-events.binpb").read_bytes()
    answer = httpx.post(
        f"http://127.0.0.1:{door}/v1/traces",
        content=through_the_door,
        headers={"content-type": "application/x-protobuf"},
    )
    assert (answer.status_code, answer.content) == (200, b"")
    traces = world.wait_for("traces", lambda records: len(records) >= 5)
    letters = world.wait_for("dead-letters", lambda records: len(records) >= 6)
    found = {decode(record.value(), Trace).teacher for record in traces}
    assert found == {"delivery_status", "refund_request", "Refund ", "order_cancel"}
    assert len(traces) == 5, "the repeated record's spans were seen before"
    assert len(letters) == 6, "five spans and a record that is no payload"
    status = httpx.get(f"http://127.0.0.1:{ingest.health_port}/metrics").text
    assert 'tracer_source_calls_total{format="otlp_proto",result="taken"} 5.0' in status
    assert 'tracer_source_calls_total{format="otlp_proto",result="refused"} 5.0' in status
    assert ingest.terminate(20) == 0


def test_killed_in_the_middle_and_started_again_nothing_is_lost(world: World) -> None:
    n = 6_000
    world.produce([raw(number) for number in range(n)])
    slow = {"TRACER_INGEST_BATCH_SIZE": "50", "TRACER_INGEST_BUFFER_RECORDS": "200"}
    for _ in range(2):
        ingest = world.start_ingest(**slow)
        before = len(world.read("traces"))
        world.wait_for("traces", lambda records, before=before: len(records) > before + 200)
        ingest.kill()
    killed_at = len(world.read("traces"))
    assert killed_at < n, "killed too late to prove anything"
    world.start_ingest().wait_ready(60)
    counts = ids(world.wait_for("traces", lambda records: len(ids(records)) == n))
    assert set(counts) == {f"t{number}" for number in range(n)}
    repeated = sum(count - 1 for count in counts.values())
    assert repeated <= 200, "only the batches in hand may repeat"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "world", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True
)  # fmt: skip
def test_two_instances_share_the_work_and_drop_each_others_repeats(world: World) -> None:
    """On Apache Kafka alone: where that says REBALANCE_IN_PROGRESS to a SyncGroup, librdkafka's
    mock broker says INVALID_REQUEST, and aiokafka gives up for minutes."""
    first = world.start_ingest()
    first.wait_ready(60)
    world.produce([raw(number) for number in range(500)])
    world.wait_for("traces", lambda records: len(records) >= 500)
    second = world.start_ingest()
    second.wait_ready(60)
    world.produce([raw(number) for number in range(1000)])
    traces = world.wait_for("traces", lambda records: len(records) >= 1000)
    assert ids(traces) == Counter(f"t{number}" for number in range(1000))
    assert first.terminate(20) == 0
    world.produce([raw(number) for number in range(1000, 1200)])
    traces = world.wait_for("traces", lambda records: len(ids(records)) == 1200)
    assert max(ids(traces).values()) == 1


def _metrics(world: World) -> str:
    port = world.children[-1].health_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(
    "world", [pytest.param("kafka", marks=pytest.mark.kafka)], indirect=True
)  # fmt: skip
def test_what_the_teacher_took_back_is_not_taken_in(world: World) -> None:
    """The teacher's traces come in transactions, and one that is aborted never was."""
    world.start_ingest().wait_ready(60)
    producer = Producer({"bootstrap.servers": world.bootstrap, "transactional.id": uuid4().hex})
    producer.init_transactions(30)

    def transaction(number: int, end: Callable[[], None]) -> None:
        producer.begin_transaction()
        key, value = raw(number)
        producer.produce(f"{world.prefix}traces.raw", value, key=key.encode(), partition=0)
        assert producer.flush(20) == 0
        time.sleep(2.0)  # there for a reader of uncommitted records
        end()

    transaction(1, producer.abort_transaction)
    transaction(2, producer.commit_transaction)
    traces = world.wait_for("traces", lambda records: "t2" in ids(records))
    assert ids(traces) == Counter(["t2"])
    # The marker behind it is no trace: nothing waits, so idle is alive.
    deadline = time.monotonic() + 15
    while 'tracer_consumer_lag_messages{service="ingest"} 0.0' not in _metrics(world):
        assert time.monotonic() < deadline
        time.sleep(0.3)


@pytest.fixture
def own_kafka() -> Iterator[LocalKafka]:
    """A broker that this test may kill."""
    broker = start_kafka()
    yield broker
    broker.stop()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_that_dies_and_comes_back_loses_nothing(
    own_kafka: LocalKafka, redis_url: str, tmp_path: Path
) -> None:
    world = World(own_kafka.bootstrap, redis_url, tmp_path)
    admin = AdminClient({"bootstrap.servers": world.bootstrap})
    names = [f"{world.prefix}{topic}" for topic in TOPICS]
    for created in admin.create_topics([NewTopic(name, 2, 1) for name in names]).values():
        created.result(10)
    ingest = world.start_ingest()
    try:
        ingest.wait_ready(40)
        world.produce([raw(number) for number in range(3_000)])
        own_kafka.kill()
        time.sleep(5)
        ingest.check()
        own_kafka.restart()
        world.produce([raw(number) for number in range(3_000, 3_100)])
        traces = world.wait_for("traces", lambda records: len(ids(records)) == 3_100)
        assert set(ids(traces)) == {f"t{number}" for number in range(3_100)}
        ingest.wait_ready(60)
        assert ingest.terminate(20) == 0
        assert len(ingest.log.read_text().splitlines()) < 60, "the outage is not told line by line"
    finally:
        ingest.kill()
