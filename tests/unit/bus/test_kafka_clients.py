"""Settings and errors of the Kafka clients; no broker needed."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import open_pipe
from shared.bus.kafka_config import (
    ClientConfig,
    consumer_config,
    producer_config,
    transactional_config,
)
from shared.bus.kafka_errors import ErrorInbox, client_logger, fate_of, serving
from shared.bus.kafka_reader import Reader, to_message
from shared.clock import FakeClock


@pytest.mark.parametrize(
    "name", ["enable.auto.commit", "group.id", "isolation.level", "transactional.id", "error_cb"]
)
def test_what_the_guarantees_rest_on_is_not_configurable(name: str) -> None:
    with pytest.raises(Fatal, match=name):
        consumer_config("b", "g", None, {name: "x"})
    with pytest.raises(Fatal, match=name):
        producer_config("b", {name: "x"})
    with pytest.raises(Fatal, match=name):
        transactional_config("b", "t", {name: "x"})


def test_users_override_the_rest_and_each_client_gets_its_own() -> None:
    theirs: ClientConfig = {
        "session.timeout.ms": 7_000,
        "linger.ms": 9,
        "security.protocol": "PLAINTEXT",
    }
    consumer = consumer_config("b:1", "g", "instance", theirs)
    assert consumer["session.timeout.ms"] == 7_000
    assert consumer["group.instance.id"] == "instance"
    assert "linger.ms" not in consumer
    producer = producer_config("b:1", theirs)
    assert producer["linger.ms"] == 9
    assert "session.timeout.ms" not in producer
    assert consumer["security.protocol"] == producer["security.protocol"] == "PLAINTEXT"


def test_the_defaults_keep_the_promises() -> None:
    consumer = consumer_config("b:1", "g", None, {})
    assert consumer["auto.offset.reset"] == "earliest"
    assert consumer["enable.auto.commit"] is False
    assert consumer["isolation.level"] == "read_committed"
    assert consumer["partition.assignment.strategy"] == "cooperative-sticky"
    assert consumer["session.timeout.ms"] == 10_000
    assert "group.instance.id" not in consumer
    assert producer_config("b:1", {})["enable.idempotence"] is True


def test_librdkafka_takes_the_settings_without_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    theirs: ClientConfig = {"session.timeout.ms": 7_000, "transaction.timeout.ms": 50_000}
    consumer = Consumer(consumer_config("127.0.0.1:1", "g", None, theirs), logger=client_logger())
    consumer.poll(0.05)
    consumer.close()
    plain = producer_config("127.0.0.1:1", theirs)
    for config in (plain, transactional_config("127.0.0.1:1", "t", theirs)):
        Producer(config, logger=client_logger()).poll(0.05)
    assert [r.getMessage() for r in caplog.records if "CONFWARN" in r.getMessage()] == []


def test_a_message_must_not_outlive_its_transaction() -> None:
    with pytest.raises(Fatal, match=r"message\.timeout\.ms must be less"):
        transactional_config("b", "t", {"transaction.timeout.ms": 20_000})
    with pytest.raises(Fatal, match="alias"):
        transactional_config("b", "t", {"delivery.timeout.ms": 90_000})


def test_exactly_once_needs_a_transactional_id() -> None:
    with pytest.raises(Fatal, match="transactional_id"):
        open_pipe(bootstrap="b", group="g", topics=["t"], delivery="exactly_once")


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (KafkaError(KafkaError._TRANSPORT), Retryable),
        (KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), Retryable),
        (KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), Retryable),
        (KafkaError(KafkaError._MSG_TIMED_OUT), Retryable),
        (KafkaError(KafkaError._FENCED), Fatal),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), Fatal),
        (KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), Fatal),
        (KafkaError(KafkaError.UNKNOWN, fatal=True), Fatal),
    ],
)
def test_errors_have_a_fate(error: KafkaError, fate: type[Exception]) -> None:
    raised = fate_of(error, "producing")
    assert type(raised) is fate
    assert str(raised).startswith("producing: ")
    assert error.name() in str(raised)


def test_the_inbox_keeps_a_fatal_error_until_asked() -> None:
    inbox = ErrorInbox("consumer")
    inbox.raise_fatal()
    inbox(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    inbox(KafkaError(KafkaError._TRANSPORT))
    with pytest.raises(Fatal, match="Kafka consumer: wrong password"):
        inbox.raise_fatal()


def test_the_inbox_logs_a_passing_error_once_until_recovery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inbox = ErrorInbox("consumer")
    for _ in range(3):
        inbox(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert len(caplog.records) == 1
    inbox.raise_fatal()
    inbox.recovered()
    inbox(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert len(caplog.records) == 2


def test_attempts_to_connect_do_not_flood_the_log(caplog: pytest.LogCaptureFixture) -> None:
    client_logger().error("%s [%s] %s", "FAIL", "rdkafka#1", "connection refused")
    client_logger().error("%s [%s] %s", "MAXPOLL", "rdkafka#1", "poll interval exceeded")
    assert [r.getMessage() for r in caplog.records] == [
        "MAXPOLL [rdkafka#1] poll interval exceeded"
    ]
    assert client_logger() is logging.getLogger("librdkafka")


def test_a_fatal_error_wrapped_by_the_binding_is_unwrapped() -> None:
    fatal = KafkaException(KafkaError(KafkaError._FENCED, fatal=True))
    with pytest.raises(KafkaException), serving():
        raise SystemError("returned a result with an exception set") from fatal
    with pytest.raises(SystemError), serving():
        raise SystemError("something else")


class _Raw:
    """A consumed message of the binding's; `wrong`: what its headers raise."""

    def __init__(self, wrong: Exception) -> None:
        self._wrong = wrong

    def headers(self) -> Any:
        raise SystemError("returned a result with an exception set") from self._wrong

    def __getattr__(self, name: str) -> Any:
        said = {"topic": "t", "partition": 1, "offset": 7, "key": b"k", "value": b"v"}
        return lambda: said.get(name, (1, 5))


def test_a_header_whose_name_is_no_utf8_does_not_end_the_reader(
    caplog: pytest.LogCaptureFixture,
) -> None:
    raw: Any = _Raw(UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "unexpected end of data"))
    message = to_message(raw)
    assert (message.offset, message.value, message.headers) == (7, b"v", ())
    assert "t[1] at 7" in caplog.text
    other: Any = _Raw(ZeroDivisionError())
    with pytest.raises(SystemError):
        to_message(other)


def test_a_poll_that_fails_amid_its_messages_ends_the_reader() -> None:
    """It must not be tried again: what it took already would be passed over."""

    class Failing:
        def poll(self, timeout: float) -> None:
            raise KafkaException(KafkaError(KafkaError._STATE))

    reader = Reader(consumer_config("127.0.0.1:1", "g", None, {}), ["t"], FakeClock())
    reader.close()
    reader._consumer = Failing()  # type: ignore[assignment]
    with pytest.raises(Fatal, match="reading"):
        reader.poll(10, 0.1)
