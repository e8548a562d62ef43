"""Topics on librdkafka's embedded broker, which creates them only when they are touched."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from shared.bus.admin import TopicsNotCreated, create_topics, ensure_topics, touch
from shared.bus.errors import Retryable
from shared.contracts.topics import Topic, load_topics

SPECS = load_topics()
NAMES = [topic.value for topic in Topic]


@pytest.fixture(scope="module")
def bootstrap() -> Iterator[str]:
    host = Producer({"bootstrap.servers": "ignored", "test.mock.num.brokers": 1})
    (broker,) = host.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    host.flush(1)


def topics_of(bootstrap: str) -> dict[str, int]:
    found = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=10).topics
    return {name: len(topic.partitions) for name, topic in found.items()}


def test_topics_are_made_by_touching_them_once(bootstrap: str) -> None:
    created = ensure_topics(bootstrap, SPECS.values(), prefix="once-")
    assert created == [f"once-{name}" for name in NAMES]
    assert topics_of(bootstrap).keys() >= set(created)
    assert ensure_topics(bootstrap, SPECS.values(), prefix="once-") == []


def test_only_what_is_missing_is_made(bootstrap: str) -> None:
    ensure_topics(bootstrap, [SPECS[Topic.MODELS]], prefix="some-")
    wanted = [SPECS[Topic.MODELS], SPECS[Topic.TRACES]]
    assert ensure_topics(bootstrap, wanted, prefix="some-") == ["some-traces"]


def test_the_embedded_brokers_own_partitions_are_no_news(
    bootstrap: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "shared.bus.admin"):
        for _ in range(2):
            ensure_topics(bootstrap, [SPECS[Topic.MODELS]], prefix="quiet-")
    ours = [record for record in caplog.records if "quiet-models" in record.getMessage()]
    assert [record.levelname for record in ours] == ["INFO"]


def test_lines_for_people(bootstrap: str) -> None:
    specs = [SPECS[Topic.REQUESTS], SPECS[Topic.DECISIONS]]
    first = create_topics(bootstrap, iter(specs), prefix="lines-")
    again = create_topics(bootstrap, iter(specs), prefix="lines-")
    assert first == ["created\tlines-requests", "created\tlines-decisions"]
    assert again == ["exists\tlines-requests", "exists\tlines-decisions"]


def test_touch_says_how_many_partitions_there_are(bootstrap: str) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    assert touch(client, "touched") == topics_of(bootstrap)["touched"] > 0


def test_nobody_at_home_is_retryable() -> None:
    with pytest.raises(TopicsNotCreated, match="no answer") as failure:
        ensure_topics("127.0.0.1:1", SPECS.values(), timeout=0.5)
    assert isinstance(failure.value, Retryable)
