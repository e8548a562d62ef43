"""Topics, and dead letters on them, on a real Apache Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from deploy.kafka.local_kafka import KafkaUnavailable, LocalKafka
from shared.bus.admin import ensure_topics
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter, redrive
from shared.bus.errors import Fatal, InvalidMessage
from shared.contracts.topics import Topic, load_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
SPECS = load_topics()


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    try:
        with LocalKafka() as kafka:
            yield kafka.bootstrap
    except KafkaUnavailable as why:
        pytest.skip(str(why))


@pytest.fixture
def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def test_topics_get_what_their_files_say(bootstrap: str, admin: AdminClient) -> None:
    created = ensure_topics(bootstrap, SPECS.values(), prefix="said-")
    assert created == [f"said-{topic.value}" for topic in Topic]
    found = admin.list_topics(timeout=10).topics
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in created]
    for resource, future in admin.describe_configs(resources).items():
        spec = SPECS[Topic(resource.name.removeprefix("said-"))]
        settings = {name: entry.value for name, entry in future.result(10).items()}
        assert settings | spec.settings() == settings
        assert settings["min.insync.replicas"] == "1"
        assert len(found[resource.name].partitions) == spec.partitions
    assert ensure_topics(bootstrap, SPECS.values(), prefix="said-") == []


def test_an_existing_topic_is_left_alone_with_a_warning(
    bootstrap: str, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    admin.create_topics([NewTopic("old-traces", 2, 1)])["old-traces"].result(10)
    assert ensure_topics(bootstrap, [SPECS[Topic.TRACES]], prefix="old-") == []
    assert "old-traces has 2 partitions, its specification says 12" in caplog.text
    assert len(admin.list_topics("old-traces", timeout=10).topics["old-traces"].partitions) == 2


def test_several_at_once_all_succeed_and_one_creates(bootstrap: str) -> None:
    created: list[str] = []
    workers = [
        threading.Thread(
            target=lambda: created.extend(ensure_topics(bootstrap, SPECS.values(), prefix="race-"))
        )
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert sorted(created) == sorted(f"race-{topic.value}" for topic in Topic)


def test_fewer_brokers_than_copies_is_said(
    bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensure_topics(bootstrap, [SPECS[Topic.MODELS]], prefix="few-")
    assert "only 1 broker(s): fewer copies than specified of ['models']" in caplog.text


def test_what_the_broker_refuses_is_fatal(bootstrap: str) -> None:
    with pytest.raises(Fatal, match="INVALID_REPLICATION_FACTOR"):
        ensure_topics(bootstrap, [SPECS[Topic.MODELS]], prefix="many-", replication=3)
    with pytest.raises(Fatal, match="name is invalid"):
        ensure_topics(bootstrap, [SPECS[Topic.MODELS]], prefix="no/")


@pytest.mark.parametrize("key", [None, b"", b"\x00\xff"])
def test_a_dead_letter_of_any_key_crosses_kafka_and_comes_back(
    bootstrap: str, key: bytes | None
) -> None:
    prefix = f"dead-{'none' if key is None else key.hex() or 'empty'}-"
    ensure_topics(bootstrap, [SPECS[Topic.REQUESTS], SPECS[Topic.DEAD_LETTERS]], prefix=prefix)
    sent = Record(f"{prefix}requests", key, b"\xff\x00 not JSON", (("a", b""), ("a", b"\xff")))
    original = pass_through(bootstrap, sent)
    letter = dead_letter(
        original,
        service="router",
        error=InvalidMessage("no\nJSON ☠", field="input"),
        at=datetime(2026, 11, 22, tzinfo=UTC),
        topic=f"{prefix}dead-letters",
    )
    assert redrive(pass_through(bootstrap, letter)) == sent


def pass_through(bootstrap: str, record: Record) -> Message:
    """The record as a consumer of its topic gets it."""
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(record.topic, key=record.key, value=record.value, headers=list(record.headers))
    assert producer.flush(20) == 0
    group = {"group.id": f"{record.topic}-reader", "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **group})
    consumer.subscribe([record.topic])
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            found = consumer.poll(1)
            if found is not None and found.error() is None:
                headers = tuple((name, value or b"") for name, value in found.headers() or ())
                place = (found.topic(), found.partition(), found.offset())
                return Message(*place, found.key(), found.value() or b"", headers)
    finally:
        consumer.close()
    raise AssertionError(f"nothing arrived on {record.topic}")
