"""The teacher as a process: exactly once on a real Kafka, at least once on the embedded broker."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic, TopicPartition

from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child
from services.ctl.recorded_llm import Behaviour, RecordedLLM
from shared.contracts.codec import decode, encode
from shared.contracts.events import Decision, Deferral, RawTrace, Reason, Request

N = 300
TOPICS = ("deferred", "decisions", "traces.raw", "dead-letters")
TASKS = "tasks: [{name: support, labels: [refund, other], unknown_labels: other}]"


@pytest.fixture
def llm() -> Iterator[RecordedLLM]:
    answers = {f"text {number}": "Refund" for number in range(N)}
    server = RecordedLLM(answers, behaviour=Behaviour(latency_seconds=0.02, fail_every=10))
    yield server
    server.close()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[str]:
    with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker.bootstrap_servers


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Bootstrap servers, the delivery they allow, and the prefix of this test's topics."""
    bootstrap = str(request.getfixturevalue(str(request.param)))
    prefix = f"t{uuid4().hex[:8]}-"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    if request.param == "embedded":
        for topic in TOPICS:
            admin.list_topics(f"{prefix}{topic}", timeout=10)
        return bootstrap, "at_least_once", prefix
    new = [NewTopic(f"{prefix}{topic}", 3, 1) for topic in TOPICS]
    for created in admin.create_topics(new).values():
        created.result(10)
    return bootstrap, "exactly_once", prefix


def read(bootstrap: str, topic: str) -> list[bytes]:
    """The committed values of a topic, to its end."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid4().hex,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        values, ended = [], 0
        deadline = time.monotonic() + 20
        while ended < len(partitions) and time.monotonic() < deadline:
            for message in consumer.consume(500, 0.2):
                if message.error() is None:
                    values.append(message.value())
                else:
                    ended += 1
        return values
    finally:
        consumer.close()


def test_every_deferral_is_answered_though_the_teacher_is_killed(
    broker: tuple[str, str, str], llm: RecordedLLM, tmp_path: Path
) -> None:
    bootstrap, delivery, prefix = broker
    producer = Producer({"bootstrap.servers": bootstrap})
    for number in range(N):
        event = Deferral(
            request=Request(id=f"r{number}", task="support", input=f"text {number}"),
            reason=Reason.NO_ACTIVE_VERSION,
            deferred_at=datetime.now(UTC),
        )
        producer.produce(f"{prefix}deferred", encode(event), key=f"r{number}".encode())
    assert producer.flush(30) == 0
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(TASKS)

    def start() -> Child:
        child = Child(
            "teacher",
            [sys.executable, "-m", "services.teacher.main"],
            log=tmp_path / "teacher.log",
            environment={
                "TRACER_BOOTSTRAP_SERVERS": bootstrap,
                "TRACER_DELIVERY": delivery,
                "TRACER_TOPIC_PREFIX": prefix,
                "TRACER_GROUP_SUFFIX": f"-{prefix}",
                "TRACER_INSTANCE": "one",
                "TRACER_TASKS": str(tasks),
                "TRACER_TEACHER_BASE_URL": llm.base_url,
                "TRACER_TEACHER_API_KEY": "sk-secret-of-the-test",
                "TRACER_TEACHER_MAX_BATCH": "20",
                "TRACER_KAFKA": '{"session.timeout.ms": "6000"}',
            },
            health_port=free_port(),
        )
        child.start()
        return child

    def decided() -> list[Decision]:
        return [decode(value, Decision) for value in read(bootstrap, f"{prefix}decisions")]

    def wait_for(n: int, child: Child) -> None:
        deadline = time.monotonic() + 60
        # Distinct ones: at least once, the killed teacher's last are decided again.
        while (known := len({d.request_id for d in decided()})) < n:
            child.check()
            assert time.monotonic() < deadline, f"{known} requests decided\n{child.tail()}"
            time.sleep(0.2)

    child = start()
    try:
        wait_for(40, child)
        child.kill()
        child = start()
        wait_for(N, child)
        child.wait_ready(20)
        assert child.terminate(20) == 0
    finally:
        child.kill()

    decisions = decided()
    counts = Counter(decision.request_id for decision in decisions)
    assert set(counts) == {f"r{number}" for number in range(N)}
    assert {decision.label for decision in decisions} == {"refund"}
    traces = [decode(value, RawTrace) for value in read(bootstrap, f"{prefix}traces.raw")]
    assert {trace.id for trace in traces} == set(counts)
    if delivery == "exactly_once":
        assert max(counts.values()) == 1
        assert len(traces) == N
    assert read(bootstrap, f"{prefix}dead-letters") == []
    assert "sk-secret" not in child.log.read_text()
