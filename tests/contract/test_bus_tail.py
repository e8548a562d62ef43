"""A tail reads everything, or what comes from now on, and says when it has caught up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from services.ctl.embedded.broker import EmbeddedBroker
from shared.bus.base import Message, Record
from shared.bus.errors import Retryable
from shared.bus.kafka import KafkaPublisher
from shared.bus.kafka_tail import Tail


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(Path(tmp_path_factory.mktemp("broker"))) as server:
        yield server.bootstrap_servers


def send(broker: str, topic: str, *values: str) -> None:
    publisher = KafkaPublisher(bootstrap=broker)
    publisher.publish([Record(topic, value.encode(), value.encode()) for value in values])
    publisher.close()


def read(tail: Tail, until: Callable[[list[Message]], bool]) -> list[str]:
    found: list[Message] = []
    end = time.monotonic() + 20
    while not until(found):
        assert time.monotonic() < end, [message.value for message in found]
        found += tail.poll(100, 0.2)
    return sorted(message.value.decode() for message in found)


def test_from_the_beginning_every_tail_reads_everything(broker: str) -> None:
    topic = uuid4().hex
    values = [str(n) for n in range(20)]
    send(broker, topic, *values)
    for _ in range(2):
        tail = Tail(bootstrap=broker, topics=[topic], start="beginning")
        assert not tail.caught_up()
        assert read(tail, lambda _, tail=tail: tail.caught_up()) == sorted(values)
        send(broker, topic, "more")
        values.append("more")
        assert read(tail, lambda found: bool(found)) == ["more"]
        tail.close()


def test_from_the_end_only_what_comes(broker: str) -> None:
    topic = uuid4().hex
    send(broker, topic, *"abcdef")
    tail = Tail(bootstrap=broker, topics=[topic], start="end")
    assert read(tail, lambda _: tail.caught_up()) == []
    send(broker, topic, "later")
    assert read(tail, lambda found: bool(found)) == ["later"]
    tail.close()


def test_without_a_broker_it_may_be_tried_again() -> None:
    tail = Tail(bootstrap="127.0.0.1:1", topics=["t"], start="end")
    with pytest.raises(Retryable):
        tail.poll(1, 0.1)
    tail.close()
