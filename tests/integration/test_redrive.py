"""Dead letters put back on Apache Kafka, through the command people use."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner, Result

from services.ctl import dead_letter_commands
from services.ctl.main import app
from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import Fatal, InvalidMessage, Retryable
from shared.bus.kafka import KafkaPublisher
from shared.bus.kafka_range import RangeReader, TopicRange
from shared.bus.kafka_transaction import TransactionalPublisher
from tests.kafka_fixtures import create_topic, wait_for_markers

pytestmark = pytest.mark.kafka
AT = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def prefix(kafka: str, monkeypatch: pytest.MonkeyPatch) -> str:
    prefix = f"p{uuid4().hex[:8]}-"
    for topic, partitions in (("dead-letters", 3), ("traces.raw", 2)):
        create_topic(kafka, partitions, name=prefix + topic)
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", prefix)
    return prefix


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead-letters", *arguments])


def letters(prefix: str, n: int) -> list[Record]:
    made = []
    for i in range(n):
        task = "support" if i % 2 else "other"
        value = json.dumps({"task": task, "id": i}).encode()
        original = Message(f"{prefix}traces.raw", 0, i, f"k{i}".encode(), value)
        error = InvalidMessage("no such label", field="teacher")
        topic = f"{prefix}dead-letters"
        made.append(dead_letter(original, service="ingest", error=error, at=AT, topic=topic))
    return made


def read(kafka: str, topic: str) -> list[Message]:
    wait_for_markers(kafka, topic)
    reader = RangeReader(bootstrap=kafka)
    try:
        return list(reader.read(reader.whole(topic)))
    finally:
        reader.close()


def test_letters_are_listed_shown_and_put_back_once(kafka: str, prefix: str) -> None:
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish(letters(prefix, 20))
    publisher.close()
    listed = json.loads(run("list", "--task", "support", "--json").stdout)
    assert listed["letters"] == 10
    assert listed["by_reason"][0]["field"] == "teacher"
    one = listed["newest"][0]
    assert json.loads(run("show", one["id"], "--json").stdout) == one
    assert run("redrive").exit_code == 2
    dry = json.loads(run("redrive", "--task", "support", "--dry-run", "--json").stdout)
    assert len(dry["would_redrive"]) == 10
    assert read(kafka, f"{prefix}traces.raw") == []
    done = json.loads(run("redrive", one["id"], "--by", "maria", "--json").stdout)
    assert done["redriven"] == [one["id"]]
    rest = json.loads(run("redrive", "--task", "support", "--json").stdout)
    assert len(rest["redriven"]) == 9
    assert rest["refused"][0]["why"].startswith("put back by maria")
    assert json.loads(run("redrive", "--task", "support", "--json").stdout)["redriven"] == []
    back = read(kafka, f"{prefix}traces.raw")
    assert sorted(json.loads(m.value)["id"] for m in back) == list(range(1, 20, 2))
    assert {m.key for m in back} == {f"k{i}".encode() for i in range(1, 20, 2)}
    assert "the newest 20 of 20" in run("list").stdout


def test_a_predecessor_is_fenced_and_its_transaction_ended(kafka: str, prefix: str) -> None:
    name = f"redrive-{uuid4().hex}"
    first = TransactionalPublisher(bootstrap=kafka, transactional_id=name)
    topic = f"{prefix}traces.raw"
    first.publish([Record(topic, b"a", b"first")])
    second = TransactionalPublisher(bootstrap=kafka, transactional_id=name)
    with pytest.raises(Fatal):
        first.publish([Record(topic, b"a", b"too late")])
    second.publish([Record(topic, b"a", b"second")])
    assert [m.value for m in read(kafka, topic)] == [b"first", b"second"]
    first.close()
    second.close()


@contextmanager
def open_transaction(kafka: str, topic: str, key: bytes = b"k") -> Iterator[Producer]:
    """As a router has one that is killed amid a batch; aborted at the end."""
    config = {"transactional.id": uuid4().hex, "partitioner": "murmur2_random"}
    producer = Producer({"bootstrap.servers": kafka, **config})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"nobody commits this", key)
    producer.flush(10)
    yield producer
    producer.abort_transaction(10)


def test_what_lies_past_an_open_transaction_is_waited_for(
    kafka: str, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish([Record(topic, b"k", b"before")])
    reader = RangeReader(bootstrap=kafka, patience=2.0)
    with open_transaction(kafka, topic) as router:
        publisher.publish([Record(topic, b"k", b"after")])
        whole = reader.whole(topic)
        with pytest.raises(Retryable, match="a transaction is open"):
            list(reader.read(whole))
        read = reader.read(whole)
        assert next(read).value == b"before"
        ending = threading.Timer(0.5, router.abort_transaction, (10,))
        ending.start()
        assert [m.value for m in read] == [b"after"]
        ending.join()
        router.begin_transaction()
    # Its last record is a transaction's marker, which nobody reads.
    assert [m.value for m in reader.read(reader.whole(topic))] == [b"before", b"after"]
    publisher.close()
    reader.close()


def test_markers_of_keyless_letters_lie_in_their_letters_partitions(
    kafka: str, prefix: str
) -> None:
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish([replace(letter, key=None) for letter in letters(prefix, 20)])
    publisher.close()
    assert len(json.loads(run("redrive", "--all", "--json").stdout)["redriven"]) == 20
    markers = [m for m in read(kafka, f"{prefix}dead-letters") if not m.value]
    named = [dict(m.headers)["tracer.redriven"].decode().partition(":")[0] for m in markers]
    assert named == [str(m.partition) for m in markers]
    assert len(named) == 20


def test_nothing_is_put_back_twice_while_a_killed_routers_transaction_is_open(
    kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_commands, "RangeReader", partial(RangeReader, patience=2.0))
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish(letters(prefix, 1))
    publisher.close()
    # The key is the letter's, whose marker would come behind this and not be read.
    with open_transaction(kafka, f"{prefix}dead-letters", b"k0"):
        for _ in range(2):
            result = run("redrive", "--all")
            assert result.exit_code == 1
            assert "a transaction is open" in result.stderr
    assert len(json.loads(run("redrive", "--all", "--json").stdout)["redriven"]) == 1
    assert len(read(kafka, f"{prefix}traces.raw")) == 1


def test_a_range_by_time_and_by_offset(kafka: str, make_topic: Callable[..., str]) -> None:
    topic = make_topic(2)
    publisher = KafkaPublisher(bootstrap=kafka)
    publisher.publish([Record(topic, str(i).encode(), b"early") for i in range(10)])
    middle = datetime.now(UTC) + timedelta(milliseconds=20)
    while datetime.now(UTC) < middle + timedelta(milliseconds=20):
        pass
    publisher.publish([Record(topic, str(i).encode(), b"late") for i in range(10)])
    publisher.close()
    reader = RangeReader(bootstrap=kafka)
    values = [m.value for m in reader.read(reader.between(topic, None, middle))]
    assert values == [b"early"] * 10
    values = [m.value for m in reader.read(reader.between(topic, middle, None))]
    assert values == [b"late"] * 10
    part = TopicRange(topic, {0: 1, 1: 0}, {0: 3, 1: 0})
    assert [(m.partition, m.offset) for m in reader.read(part)] == [(0, 1), (0, 2)]
    assert len(part) == 2
    with pytest.raises(Fatal, match="is TRACER_TOPIC_PREFIX right"):
        reader.whole(f"{topic}-not-there")
    with pytest.raises(Fatal, match="not there any more"):
        list(reader.read(TopicRange(topic, {0: 10_000}, {0: 10_001})))
    reader.close()
