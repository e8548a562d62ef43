"""Transactions over calls that fail, fail for a while, or never come back; no broker needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from shared.bus import kafka_transaction
from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_transaction import GroupOffsets, TransactionalPublisher
from shared.clock import FakeClock

PASSING = KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True))
ABORTABLE = KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True))
UNANSWERED = KafkaException(KafkaError(KafkaError._TIMED_OUT))
FENCED = KafkaException(KafkaError(KafkaError._FENCED, fatal=True))
RECORDS = [Record("topic", b"k", b"v")]


class FakeProducer:
    """Librdkafka's producer: notes its calls, and fails or hangs where it was told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: dict[str, list[KafkaException]] = {}  # by call, one at a time
        self.undelivered: KafkaError | None = None
        self.left_in_queue = 0
        self.hangs_in = ""
        self.release = threading.Event()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: object, **__: object) -> None:
            self.calls.append(name)
            if name == self.hangs_in:
                self.release.wait()
            if self.fails.get(name):
                raise self.fails[name].pop(0)

        return call

    def produce(self, topic: str, *, on_delivery: Callable[..., None], **_: object) -> None:
        self.calls.append("produce")
        if self.undelivered is not None:
            on_delivery(self.undelivered, FakeMessage(topic))

    def flush(self, seconds: float) -> int:
        self.calls.append("flush")
        return self.left_in_queue


class FakeMessage:
    def __init__(self, topic: str) -> None:
        self._topic = topic

    def topic(self) -> str:
        return self._topic


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeProducer]:
    made = FakeProducer()
    monkeypatch.setattr(kafka_transaction, "make_producer", lambda *_: made)
    monkeypatch.setattr(kafka_transaction, "_GRACE", 0.1)
    yield made
    made.release.set()


def publisher(**settings: Any) -> TransactionalPublisher:
    settings = {"patience": 0.1, "clock": FakeClock()} | settings
    return TransactionalPublisher(bootstrap="b:1", transactional_id="t", **settings)


def test_a_write_is_one_transaction_with_the_offsets_before_its_end(
    producer: FakeProducer,
) -> None:
    made = publisher()
    made.publish(RECORDS, GroupOffsets([], "member"))
    made.publish(RECORDS)
    made.close()
    assert producer.calls == [
        "init_transactions",
        "begin_transaction", "produce", "send_offsets_to_transaction", "flush",
        "commit_transaction",
        "begin_transaction", "produce", "flush", "commit_transaction",
        "purge", "close",
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["commit_transaction", "send_offsets_to_transaction"])
def test_a_call_that_never_comes_back_ends_the_process_and_the_client_is_left_alone(
    producer: FakeProducer, call: str
) -> None:
    made = publisher()
    producer.hangs_in = call
    with pytest.raises(Fatal, match="did not come back"):
        made.publish(RECORDS, GroupOffsets([], "member"))
    with pytest.raises(Fatal, match="did not come back"):
        made.publish(RECORDS)
    made.close()
    assert producer.calls[-1] == call


def test_an_abort_that_never_comes_back_is_as_fatal(producer: FakeProducer) -> None:
    made = publisher()
    producer.hangs_in, producer.left_in_queue = "abort_transaction", 1
    with pytest.raises(Fatal, match="did not come back"):
        made.publish(RECORDS)
    made.close()
    assert producer.calls[-1] == "abort_transaction"


def test_an_opening_that_never_comes_back_is_fatal(producer: FakeProducer) -> None:
    producer.hangs_in = "init_transactions"
    with pytest.raises(Fatal, match="did not come back"):
        publisher()
    assert producer.calls == ["init_transactions"]


def test_a_broker_without_transactions_is_said_and_the_client_closed(
    producer: FakeProducer,
) -> None:
    producer.fails["init_transactions"] = [UNANSWERED]
    with pytest.raises(Fatal, match="no transactions on b:1"):
        publisher()
    assert producer.calls == ["init_transactions", "purge", "close"]


def test_a_passing_error_is_tried_again_until_the_patience_is_over(
    producer: FakeProducer,
) -> None:
    clock = FakeClock()
    made = publisher(patience=10.0, clock=clock)
    producer.fails["commit_transaction"] = [PASSING, PASSING]
    made.publish(RECORDS)
    assert producer.calls.count("commit_transaction") == 3
    assert clock.monotonic() == pytest.approx(0.05 + 0.1)
    producer.fails["commit_transaction"] = [PASSING] * 1_000
    with pytest.raises(Fatal, match="unknown outcome"):
        made.publish(RECORDS)
    assert clock.monotonic() < 0.15 + 10.0
    made.close()


def test_what_can_be_aborted_is_aborted_and_the_next_write_starts_afresh(
    producer: FakeProducer,
) -> None:
    made = publisher()
    producer.fails["send_offsets_to_transaction"] = [ABORTABLE]
    with pytest.raises(Retryable, match="ILLEGAL_GENERATION"):
        made.publish(RECORDS, GroupOffsets([], "member"))
    assert producer.calls[-1] == "abort_transaction"
    producer.left_in_queue = 1
    with pytest.raises(Retryable, match="not delivered in time"):
        made.publish(RECORDS)
    assert producer.calls[-1] == "abort_transaction"
    producer.left_in_queue = 0
    made.publish(RECORDS)
    assert producer.calls[-1] == "commit_transaction"
    made.close()


def test_a_failed_delivery_is_the_cause_that_is_told(producer: FakeProducer) -> None:
    made = publisher()
    producer.undelivered = KafkaError(KafkaError._MSG_TIMED_OUT)
    producer.fails["commit_transaction"] = [ABORTABLE]
    with pytest.raises(Retryable, match="1 records not delivered, the first to topic"):
        made.publish(RECORDS)
    assert producer.calls[-1] == "abort_transaction"
    made.close()


def test_an_abort_that_fails_is_done_before_the_next_write(
    producer: FakeProducer, caplog: pytest.LogCaptureFixture
) -> None:
    made = publisher()
    producer.left_in_queue = 1
    producer.fails["abort_transaction"] = [UNANSWERED, UNANSWERED]
    with pytest.raises(Retryable, match="not delivered in time"):
        made.publish(RECORDS)
    assert "could not abort yet" in caplog.text
    with pytest.raises(Retryable, match="aborting a transaction"):
        made.publish(RECORDS)
    producer.left_in_queue = 0
    began = len(producer.calls)
    made.publish(RECORDS)
    assert producer.calls[began:][:2] == ["abort_transaction", "begin_transaction"]
    made.close()


@pytest.mark.parametrize("call", ["begin_transaction", "commit_transaction", "abort_transaction"])
def test_a_fenced_producer_is_fatal(producer: FakeProducer, call: str) -> None:
    made = publisher()
    producer.fails[call] = [FENCED]
    producer.left_in_queue = int(call == "abort_transaction")
    with pytest.raises(Fatal):
        made.publish(RECORDS)
    assert producer.calls[-1] == call
    made.close()
