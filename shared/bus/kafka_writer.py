"""Producing, with every delivery checked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Producer

from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import close_client
from shared.bus.kafka_errors import ErrorInbox, client_logger, error_of, fate_of, serving

_ROOM_SECONDS = 0.1
_ANY_PARTITION = -1  # the partitioner's choice
_PURGE_SECONDS = 5.0

# The binding's own words to stderr for what is logged here: a transaction left to the coordinator.
warnings.filterwarnings("ignore", message="Producer abort_transaction failed during close")


def make_producer(config: Mapping[str, Any], errors: ErrorInbox) -> Producer:
    return Producer({**config, "error_cb": errors}, logger=client_logger())


def close_producer(producer: Producer) -> None:
    """Close it, dropping what is queued: it was told to its caller as failed, or never begun."""
    with suppress(RuntimeError):  # closed before
        producer.purge()
    close_client(producer.close)


class Deliveries:
    """The failed deliveries of one batch, as librdkafka's callback reports them."""

    def __init__(self) -> None:
        self._failed: list[tuple[str, KafkaError]] = []

    def __call__(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is not None:
            self._failed.append((str(message.topic()), error))

    def fate(self) -> Retryable | Fatal | None:
        """What to raise for them, None when there are none."""
        if not self._failed:
            return None
        topic, error = self._failed[0]
        return fate_of(error, f"{len(self._failed)} records not delivered, the first to {topic}")


def enqueue(producer: Producer, record: Record, deliveries: Deliveries) -> None:
    """Hand one record to librdkafka, waiting for room in its queue. Raises KafkaException."""
    while True:
        try:
            producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                partition=_ANY_PARTITION if record.partition is None else record.partition,
                on_delivery=deliveries,
            )
        except BufferError:
            # Room comes with the next delivery, at the latest when message.timeout.ms is over.
            with serving():
                producer.poll(_ROOM_SECONDS)
        else:
            return


class Writer:
    """An idempotent producer whose `write` returns when the broker has everything."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._errors = ErrorInbox("producer")
        self._producer = make_producer(config, self._errors)
        # By then librdkafka has given up on every message of its own accord.
        self._flush_seconds = int(config["message.timeout.ms"]) / 1000 + _PURGE_SECONDS

    def write(self, records: Sequence[Record]) -> None:
        """Produce, flush, check each delivery. Raises Retryable or Fatal; some may be delivered."""
        deliveries = Deliveries()
        try:
            for record in records:
                enqueue(self._producer, record, deliveries)
            with serving():
                left = self._producer.flush(self._flush_seconds)
        except KafkaException as exception:
            self._give_up()
            raise fate_of(error_of(exception), "producing") from exception
        if left:
            self._give_up()
        self._errors.raise_fatal()
        fate = deliveries.fate()
        if fate is not None:
            raise fate
        self._errors.recovered()

    def close(self) -> None:
        close_producer(self._producer)

    def _give_up(self) -> None:
        """Drop what is queued, so that it is not delivered after the caller was told it failed."""
        self._producer.purge()
        with suppress(KafkaException), serving():
            self._producer.flush(_PURGE_SECONDS)
