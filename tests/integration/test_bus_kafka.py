from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import confluent_kafka
import pytest
from confluent_kafka import Consumer, KafkaError
from confluent_kafka.admin import AdminClient

from deploy.kafka import local_kafka
from deploy.kafka.local_kafka import LocalKafka, free_port
from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import (
    AtLeastOncePipe,
    KafkaPublisher,
    KafkaSource,
    TransactionalPipe,
    open_pipe,
)
from shared.bus.kafka_config import ClientConfig
from shared.bus.kafka_reader import to_message
from tests.contract.bus_laws import BusLaws, collect, copy, copy_all, numbered, step, until
from tests.kafka_fixtures import create_topic, start_kafka, wait_for_markers

pytestmark = pytest.mark.kafka

# The same code with less waiting: for a dead member, a new topic, a record for no topic.
QUICK: ClientConfig = {
    "session.timeout.ms": 1_500,
    "heartbeat.interval.ms": 100,
    "topic.metadata.refresh.interval.ms": 300,
    "topic.metadata.propagation.max.ms": 300,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "fetch.wait.max.ms": 20,
}


class Died(Exception):
    """Stands for the end of a process at this call."""


class Dying:
    """A client that dies when `method` is called."""

    def __init__(self, client: object, method: str) -> None:
        self._client = client
        self._method = method

    def __getattr__(self, name: str) -> Any:
        if name == self._method:
            raise Died(name)
        return getattr(self._client, name)


def read_all(bootstrap: str, topic: str) -> list[Message]:
    """What a read_committed reader sees, up to the end of every partition."""
    wait_for_markers(bootstrap, topic)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid4().hex,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([confluent_kafka.TopicPartition(topic, p, 0) for p in partitions])
        left, messages = set(partitions), list[Message]()
        while left:
            raw = consumer.poll(10.0)
            assert raw is not None
            error = raw.error()
            if error is None:
                messages.append(to_message(raw))
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                left.discard(raw.partition())
        return messages
    finally:
        consumer.close()


@pytest.fixture(scope="session")
def publisher(kafka: str) -> Iterator[KafkaPublisher]:
    """Shared by all tests: half a second less for each."""
    publisher = KafkaPublisher(bootstrap=kafka, client_config=QUICK)
    yield publisher
    publisher.close()


class _KafkaLaws(BusLaws):
    client_config: ClassVar[ClientConfig] = QUICK

    @pytest.fixture(autouse=True)
    def _kafka(self, kafka: str, publisher: KafkaPublisher) -> None:
        self.bootstrap = kafka
        self.publisher = publisher

    def publish(self, records: Sequence[Record]) -> None:
        self.publisher.publish(records)

    def make_topic(self, partitions: int) -> str:
        return create_topic(self.bootstrap, partitions)

    def make_pipe(self, group: str, topic: str, member: str) -> Pipe:
        return open_pipe(
            bootstrap=self.bootstrap,
            group=group,
            topics=[topic],
            delivery="exactly_once" if self.exactly_once else "at_least_once",
            transactional_id=f"{group}-{member}",
            client_config=self.client_config,
        )

    def make_source(self, group: str, topic: str) -> KafkaSource:
        return KafkaSource(
            bootstrap=self.bootstrap,
            group=group,
            topics=[topic],
            client_config=self.client_config,
        )

    def make_publisher(self) -> KafkaPublisher:
        return KafkaPublisher(bootstrap=self.bootstrap, client_config=self.client_config)

    def read(self, topic: str) -> list[Message]:
        return read_all(self.bootstrap, topic)

    def crash(self, pipe: Pipe) -> None:
        # Leaves the group at once where a killed process is thrown out later: see the kill tests.
        assert isinstance(pipe, AtLeastOncePipe | TransactionalPipe)
        pipe._reader.close()


class TestTransactional(_KafkaLaws):
    exactly_once = True

    def crash_after_publishing(self, pipe: Pipe, records: Sequence[Record]) -> None:
        assert isinstance(pipe, TransactionalPipe)
        publisher = pipe._publisher
        publisher._producer = Dying(publisher._producer, "commit_transaction")  # type: ignore[assignment]
        with pytest.raises(Died):
            pipe.commit(records)
        publisher._open = False
        self.crash(pipe)


class TestAtLeastOnce(_KafkaLaws):
    exactly_once = False

    def crash_after_publishing(self, pipe: Pipe, records: Sequence[Record]) -> None:
        assert isinstance(pipe, AtLeastOncePipe)
        pipe._reader._consumer = Dying(pipe._reader._consumer, "commit")  # type: ignore[assignment]
        with pytest.raises(Died):
            pipe.commit(records)
        self.crash(pipe)


class TestEagerAssignor(TestTransactional):
    """The same laws when every rebalance takes all partitions away first."""

    client_config: ClassVar[ClientConfig] = {**QUICK, "partition.assignment.strategy": "range"}


# --- what only Kafka does


@contextmanager
def transactional(
    bootstrap: str, group: str, topic: str, member: str, **config: str | int
) -> Iterator[TransactionalPipe]:
    pipe = TransactionalPipe(
        bootstrap=bootstrap,
        group=group,
        topics=[topic],
        transactional_id=f"{group}-{member}",
        client_config={**QUICK, **config},
    )
    try:
        yield pipe
    finally:
        pipe.close()


def publish(bootstrap: str, records: Sequence[Record]) -> None:
    publisher = KafkaPublisher(bootstrap=bootstrap, client_config=QUICK)
    publisher.publish(records)
    publisher.close()


@pytest.fixture
def group() -> str:
    return f"group-{uuid4().hex[:12]}"


# A worker that has published inside its transaction and never gets to commit it.
WORKER = """
import sys, time
from shared.bus.base import Record
from shared.bus.kafka import TransactionalPipe
from tests.contract.bus_laws import collect, copy
from tests.integration.test_bus_kafka import QUICK

bootstrap, group, topic, out = sys.argv[1:]
pipe = TransactionalPipe(bootstrap=bootstrap, group=group, topics=[topic],
                         transactional_id=f"{group}-a", client_config=QUICK)

class Stuck:
    def __getattr__(self, name):
        return getattr(producer, name)
    def commit_transaction(self, seconds):
        print("in transaction", flush=True)
        time.sleep(60)

messages = collect(pipe, 10)
producer, pipe._publisher._producer = pipe._publisher._producer, Stuck()
pipe.commit([copy(message, out) for message in messages])
"""


def test_a_worker_killed_inside_its_transaction_leaves_no_trace(
    kafka: str, make_topic: Callable[..., str], group: str
) -> None:
    topic, out = make_topic(), make_topic()
    publish(kafka, [Record(topic, b"k", value) for value in numbered(10)])
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, kafka, group, topic, out],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "in transaction\n"
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert read_all(kafka, out) == []
    with transactional(kafka, group, topic, "a") as successor:
        copy_all(successor, out, 10)
    assert [m.value for m in read_all(kafka, out)] == numbered(10)


def test_a_member_thrown_out_of_its_group_cannot_commit(
    kafka: str, make_topic: Callable[..., str], group: str
) -> None:
    topic, out = make_topic(), make_topic()
    publish(kafka, [Record(topic, b"k", value) for value in numbered(10)])
    slow = {"max.poll.interval.ms": 1_500}
    with (
        transactional(kafka, group, topic, "a", **slow) as zombie,
        transactional(kafka, group, topic, "b") as heir,
    ):
        held = collect(zombie, 10)
        # Meanwhile the zombie does not poll, and its partition goes to the heir.
        copy_all(heir, out, 10)
        with pytest.raises(Retryable, match="no longer in its consumer group"):
            zombie.commit([copy(message, out) for message in held])
        publish(kafka, [Record(topic, b"k", b"later")])
        until(lambda: bool(step(heir, out)) or bool(step(zombie, out)))
    assert [m.value for m in read_all(kafka, out)] == [*numbered(10), b"later"]


def test_a_late_at_least_once_commit_is_no_end_of_a_static_member(
    kafka: str, topic: str, group: str
) -> None:
    # librdkafka would send it with no member id, which Kafka answers by fencing the instance.
    publish(kafka, [Record(topic, b"k", b"v")])
    pipe = AtLeastOncePipe(
        bootstrap=kafka,
        group=group,
        topics=[topic],
        instance_id="one",
        client_config={**QUICK, "max.poll.interval.ms": 1_500},
    )
    collect(pipe, 1)
    time.sleep(2.5)
    with pytest.raises(Retryable, match="no longer in its consumer group"):
        pipe.commit([])
    assert [m.value for m in collect(pipe, 1)] == [b"v"]
    pipe.commit([])
    pipe.close()


def test_a_second_holder_of_the_transactional_id_fences_the_first(
    kafka: str, make_topic: Callable[..., str], group: str
) -> None:
    topic, out = make_topic(), make_topic()
    with transactional(kafka, group, topic, "a") as first:
        first.commit([Record(out, b"k", b"first")])
        with transactional(kafka, group, topic, "a") as second:
            with pytest.raises(Fatal, match="fenced"):
                first.commit([Record(out, b"k", b"zombie")])
            second.commit([Record(out, b"k", b"second")])
    assert [m.value for m in read_all(kafka, out)] == [b"first", b"second"]


def test_a_second_holder_of_the_instance_id_fences_the_first(
    kafka: str, topic: str, group: str
) -> None:
    def source() -> KafkaSource:
        return KafkaSource(
            bootstrap=kafka, group=group, topics=[topic], instance_id="one", client_config=QUICK
        )

    first = source()
    until(lambda: first.poll(1, 0.1) == [] and bool(first.assigned()))
    second = source()
    until(lambda: second.poll(1, 0.1) == [] and bool(second.assigned()))

    def fenced() -> bool:
        try:
            first.poll(1, 0.1)
        except Fatal as error:
            return "fenced" in str(error).lower()
        return False

    until(fenced)
    second.close()
    first.close()


def test_a_restarted_static_member_moves_no_partition(
    kafka: str, make_topic: Callable[..., str], group: str
) -> None:
    topic = make_topic(2)

    def source(instance: str) -> KafkaSource:
        return KafkaSource(
            bootstrap=kafka,
            group=group,
            topics=[topic],
            instance_id=instance,
            client_config={**QUICK, "session.timeout.ms": 10_000},
        )

    def settled(*members: KafkaSource) -> bool:
        for member in members:
            member.poll(1, 0.05)
        return all(len(member.assigned()) == 1 for member in members)

    one, two = source("one"), source("two")
    until(lambda: settled(one, two))
    before = one.assigned(), two.assigned()
    two.close()
    for _ in range(5):
        one.poll(1, 0.1)
        assert one.assigned() == before[0]
    two = source("two")
    until(lambda: settled(one, two))
    assert (one.assigned(), two.assigned()) == before
    one.close()
    two.close()


def test_a_topic_may_be_created_later(
    kafka: str, group: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"later-{uuid4().hex[:12]}"
    pipe = AtLeastOncePipe(bootstrap=kafka, group=group, topics=[name], client_config=QUICK)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        assert pipe.poll(1, 0.1) == []
    assert len([r for r in caplog.records if "UNKNOWN_TOPIC_OR_PART" in r.getMessage()]) == 1
    create_topic(kafka, name=name)
    publish(kafka, [Record(name, b"k", b"v")])
    assert [m.value for m in collect(pipe, 1)] == [b"v"]
    pipe.close()


def test_a_record_the_topic_refuses_is_fatal(
    kafka: str, make_topic: Callable[..., str], topic: str, group: str
) -> None:
    small = make_topic(**{"max.message.bytes": "1000"})
    record = Record(small, b"k", uuid4().bytes * 1000)
    config = {**QUICK, "compression.type": "none"}
    publisher = KafkaPublisher(bootstrap=kafka, client_config=config)
    with pytest.raises(Fatal, match=r"MSG_SIZE_TOO_LARGE"):
        publisher.publish([record])
    publisher.close()
    with (
        transactional(kafka, group, topic, "a", **{"compression.type": "none"}) as pipe,
        pytest.raises(Fatal, match=small),
    ):
        pipe.commit([record])


def test_without_a_broker_a_transactional_pipe_does_not_open() -> None:
    with pytest.raises(Fatal, match="no transactions on 127"):
        TransactionalPipe(
            bootstrap="127.0.0.1:1", group="g", topics=["t"], transactional_id="t", patience=0.5
        )


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_poll_of_long_messages_ends_before_there_are_many(
    kafka: str, make_topic: Callable[..., str], group: str, delivery: Any
) -> None:
    topic, out = make_topic(), make_topic()
    values = [bytes([i]) * 30_000 for i in range(10)] + [b"x" * 200_000]
    publish(kafka, [Record(topic, b"k", value) for value in values])
    pipe = open_pipe(
        bootstrap=kafka, group=group, topics=[topic], delivery=delivery,
        transactional_id=group, client_config=QUICK, poll_bytes=90_000,
    )  # fmt: skip
    polls: list[int] = []

    def done() -> bool:
        messages = pipe.poll(100, 0.5)
        polls.append(sum(len(m.value) for m in messages[:-1]))
        pipe.commit([copy(message, out) for message in messages])
        return bool(messages) and messages[-1].value == values[-1]

    until(done)
    pipe.close()
    assert max(polls) < 90_000
    assert [m.value for m in read_all(kafka, out)] == values


@pytest.mark.slow
def test_pipes_outlive_a_killed_broker() -> None:
    broker = start_kafka()
    try:
        outlive_a_kill(broker)
    finally:
        broker.stop()


def settled_offset(bootstrap: str, group: str, topic: str) -> int:
    """The offset committed for partition 0, once no transaction holds it."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": group, "isolation.level": "read_committed"}
    )
    (partition,) = consumer.committed([confluent_kafka.TopicPartition(topic, 0)], 10)
    consumer.close()
    return partition.offset


def outlive_a_kill(broker: LocalKafka) -> None:
    bootstrap, values = broker.bootstrap, numbered(20)
    config = {**QUICK, "message.timeout.ms": 2_000, "socket.timeout.ms": 2_000}
    topic = create_topic(bootstrap)
    publish(bootstrap, [Record(topic, b"k", value) for value in values])
    exactly = TransactionalPipe(
        bootstrap=bootstrap,
        group="exactly",
        topics=[topic],
        transactional_id="exactly",
        client_config=config,
        patience=2.0,
    )
    at_least = AtLeastOncePipe(
        bootstrap=bootstrap, group="at-least", topics=[topic], client_config=config
    )
    works = [(pipe, create_topic(bootstrap)) for pipe in (exactly, at_least)]
    for pipe, out in works:
        copy_all(pipe, out, 10, batch=10)
    held = [collect(pipe, 10) for pipe, _ in works]
    # Kafka 4.4 forgets the markers of a transaction when its only broker dies before writing them.
    until(lambda: settled_offset(bootstrap, "exactly", topic) == 10)
    until(lambda: len(read_all(bootstrap, works[0][1])) == 10)
    broker.kill()
    assert exactly.waiting(0.5) is None  # not 0, and no reason to call it dead
    for (pipe, out), messages in zip(works, held, strict=True):
        with pytest.raises(Retryable):
            pipe.commit([copy(message, out) for message in messages])
    broker.start()
    for pipe, out in works:
        left = set(values[10:])

        def done(pipe: Pipe = pipe, out: str = out, left: set[bytes] = left) -> bool:
            left.difference_update(m.value for m in step(pipe, out))
            return not left

        until(done)
        pipe.close()
    assert [m.value for m in read_all(bootstrap, works[0][1])] == values
    assert {m.value for m in read_all(bootstrap, works[1][1])} == set(values)


def test_a_consumer_that_stopped_fetching_knows_by_asking_only(kafka: str, topic: str) -> None:
    pipe = AtLeastOncePipe(
        bootstrap=kafka, group=uuid4().hex, topics=[topic], client_config=QUICK
    )  # fmt: skip
    until(lambda: pipe.poll(1, 0.1) == [] and bool(pipe._reader.assigned()))
    consumer = pipe._reader._consumer
    consumer.pause(consumer.assignment())  # the silent death: polls go on, fetches do not
    publish(kafka, [Record(topic, b"k", value) for value in numbered(3)])
    assert pipe.poll(10, 0.5) == []
    assert pipe.lag() == 0
    assert pipe.waiting(5.0) == 3
    pipe.close()


def test_messages_of_an_open_transaction_do_not_wait(kafka: str, topic: str) -> None:
    pipe = AtLeastOncePipe(
        bootstrap=kafka, group=uuid4().hex, topics=[topic], client_config=QUICK
    )  # fmt: skip
    until(lambda: pipe.poll(1, 0.1) == [] and bool(pipe._reader.assigned()))
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka, "transactional.id": uuid4().hex}
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush(10)
    assert pipe.poll(10, 0.3) == []
    assert pipe.waiting(5.0) == 0
    producer.commit_transaction(10)
    until(lambda: pipe.waiting(5.0) != 0)  # the message, and the marker after it
    assert [message.value for message in collect(pipe, 1)] == [b"open"]
    until(lambda: pipe.poll(1, 0.1) == [] and pipe.waiting(5.0) == 0)
    pipe.close()


@pytest.mark.slow
@pytest.mark.usefixtures("kafka")  # skips where there is none
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    port = free_port()
    data = tmp_path / "kafka"
    command: list[str | Path] = [
        sys.executable,
        local_kafka.__file__,
        "run",
        "--port",
        str(port),
        "--data",
        data,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().endswith(f"on 127.0.0.1:{port}\n")
    create_topic(f"127.0.0.1:{port}", name="kept")
    process.terminate()
    assert process.wait(20) == 0
    process.stdout.close()
    with LocalKafka(port=port, data=data) as again:
        admin = AdminClient({"bootstrap.servers": again.bootstrap})
        assert "kept" in admin.list_topics(timeout=10).topics
