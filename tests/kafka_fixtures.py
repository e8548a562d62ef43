"""A real Apache Kafka for the tests marked `kafka`: one per test process."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from deploy.kafka.local_kafka import KafkaUnavailable, LocalKafka
from shared.bus.kafka_calls import close_client

REQUIRE = "TRACER_REQUIRE_KAFKA"


def start_kafka() -> LocalKafka:
    """A started broker. Without one the test is skipped, or fails when REQUIRE is 1."""
    broker: LocalKafka | None = None
    try:
        broker = LocalKafka()
        broker.start()
    except KafkaUnavailable as reason:
        if broker is not None:
            broker.stop()
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{REQUIRE}=1, but {reason}")
        pytest.skip(str(reason))
    return broker


def create_topic(
    bootstrap: str, partitions: int = 1, *, name: str | None = None, **config: str
) -> str:
    """A new topic, under a name of its own unless told; its name."""
    name = name or f"topic-{uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(10)
    return name


def wait_for_markers(bootstrap: str, topic: str, seconds: float = 10.0) -> None:
    """A commit is answered before its markers are in every partition; until then none of it is
    read. Open transactions have none to wait for: so no longer than `seconds`."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    partitions = admin.list_topics(topic, 10).topics[topic].partitions
    latest = {TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        offsets = [
            [
                each.result(10).offset
                for each in admin.list_offsets(latest, isolation_level=level).values()
            ]
            for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
        ]
        if offsets[0] == offsets[1]:
            return
        time.sleep(0.05)


@pytest.fixture(scope="session")
def local_kafka() -> Iterator[LocalKafka]:
    broker = start_kafka()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def kafka(local_kafka: LocalKafka) -> str:
    """Bootstrap servers of the broker; use topics and groups of your own, never restart it."""
    return local_kafka.bootstrap


@pytest.fixture
def make_topic(kafka: str) -> Callable[..., str]:
    """make_topic(partitions=1, **config) creates a topic and returns its name."""

    def make(partitions: int = 1, **config: str) -> str:
        return create_topic(kafka, partitions, **config)

    return make


@pytest.fixture
def topic(make_topic: Callable[..., str]) -> str:
    """A new topic of one partition."""
    return make_topic()


@pytest.fixture(scope="module", autouse=True)
def every_consumer_is_closed() -> Iterator[None]:
    """Garbage collection of one that is open can wait for ever, in whatever test comes next."""
    yield
    left = [each for each in gc.get_objects() if isinstance(each, Consumer) and _is_open(each)]
    for consumer in left:
        close_client(consumer.close)
    assert not left, f"{len(left)} consumers were left open"


def _is_open(consumer: Consumer) -> bool:
    try:
        consumer.memberid()
    except RuntimeError:  # closed
        return False
    return True
