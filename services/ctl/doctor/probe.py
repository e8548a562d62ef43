"""One record there and back, on a topic of its own that is deleted again: `--probe`.

It is the only way to learn the broker's clock, which no request tells: a topic with
`LogAppendTime` stamps records with it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from services.ctl.doctor.broker import quiet, said
from services.ctl.doctor.findings import Finding, Patient, clock, failed, ok, skipped
from shared.bus.errors import Fatal
from shared.bus.kafka_calls import BoundedCalls
from shared.bus.kafka_config import consumer_config, producer_config, transactional_config

_CHECKS = ("kafka.round_trip", "kafka.clock", "kafka.transactions")
_GRACE = 5.0  # seconds the calls of a transaction may come back later than they were told to


_now = time.time


def not_asked() -> Iterator[Finding]:
    return (skipped(check, "--probe makes and deletes a topic to see") for check in _CHECKS)


def probe(admin: AdminClient, patient: Patient) -> Iterator[Finding]:
    """Produce, consume, commit, a transaction; then the topic is gone again."""
    name = f"{patient.settings.topic_prefix}doctor-{uuid4().hex[:12]}"
    stamped = {"message.timestamp.type": "LogAppendTime", "retention.ms": "60000"}
    new = NewTopic(name, num_partitions=1, replication_factor=1, config=stamped)
    try:
        admin.create_topics([new], request_timeout=patient.patience)[name].result()
    except KafkaException as error:
        for check in _CHECKS:
            yield skipped(check, f"a topic {name} cannot be made: {said(error)}")
        return
    try:
        yield from _round_trip(name, patient)
        yield _transaction(name, patient)
    finally:
        _forget(admin, name, patient)


def _round_trip(name: str, patient: Patient) -> Iterator[Finding]:
    fix = "the message says what was refused; see the may.* checks"
    begun = time.monotonic()
    try:
        ahead, uncertain, stamped = _produce(name, patient)
        _consume(name, patient)
    except KafkaException as error:
        yield failed("kafka.round_trip", said(error), fix)
        yield skipped("kafka.clock", "no record came back")
        return
    except TimeoutError as error:
        yield failed("kafka.round_trip", str(error), "are the advertised listeners reachable?")
        yield skipped("kafka.clock", "no record came back")
        return
    yield ok("kafka.round_trip", f"there and back in {time.monotonic() - begun:.2f} s")
    if stamped:
        yield clock("kafka.clock", ahead, uncertain, patient, "the broker")
    else:
        yield skipped("kafka.clock", "the broker does not stamp records")


def _produce(name: str, patient: Patient) -> tuple[float, float, bool]:
    """How far the broker's clock is ahead of ours, the uncertainty, and whether it told."""
    settings = patient.settings
    reports: list[Any] = []
    config = producer_config(settings.bootstrap_servers, settings.kafka)
    producer = Producer(config | {"delivery.report.only.error": False}, logger=quiet)
    _send(producer, name, patient, [])  # connects; the second one's way is short
    sent = _now()
    _send(producer, name, patient, reports)
    got = _now()
    kind, milliseconds = reports[0].timestamp()
    ahead = milliseconds / 1_000 - (sent + got) / 2
    return ahead, (got - sent) / 2, kind == TIMESTAMP_LOG_APPEND_TIME


def _send(producer: Producer, name: str, patient: Patient, reports: list[Any]) -> None:
    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            refused.append(error)
        else:
            reports.append(message)

    refused: list[Any] = []
    producer.produce(name, b"doctor", on_delivery=delivered)
    if producer.flush(patient.patience):
        raise TimeoutError(f"a record was not taken within {patient.patience:g} s")
    if refused:
        raise KafkaException(refused[0])


def _consume(name: str, patient: Patient) -> None:
    """As a member of a group named as the services' are; commits what it read."""
    settings = patient.settings
    group = settings.group(f"doctor-{uuid4().hex[:12]}")
    config = consumer_config(settings.bootstrap_servers, group, None, settings.kafka)
    consumer = Consumer(config, logger=quiet)
    consumer.subscribe([name])
    deadline = time.monotonic() + patient.patience + 10  # a group takes seconds to form
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            problem = message.error()
            if problem is None:
                place = TopicPartition(name, message.partition() or 0, (message.offset() or 0) + 1)
                consumer.commit(offsets=[place], asynchronous=False)
                return
            if problem.fatal() or (not problem.retriable() and problem.code() > 0):
                raise KafkaException(problem)
    finally:
        consumer.close()
    raise TimeoutError(f"the record did not come back from {name}")


def _transaction(name: str, patient: Patient) -> Finding:
    check, settings = "kafka.transactions", patient.settings
    if not {"router", "teacher"} & set(patient.services):
        return skipped(check, "none of these services uses transactions")
    if settings.delivery != "exactly_once":
        return skipped(check, f"TRACER_DELIVERY={settings.delivery} uses none")
    transactional_id = f"{settings.group('doctor')}-{patient.me}"
    config = transactional_config(settings.bootstrap_servers, transactional_id, settings.kafka)
    producer = Producer(config, logger=quiet)

    def commit_one() -> None:
        producer.init_transactions(patient.patience)
        producer.begin_transaction()
        producer.produce(name, b"doctor")
        producer.commit_transaction(patient.patience)

    calls = BoundedCalls()
    try:
        calls.run(commit_one, 2 * patient.patience + _GRACE)
    except Fatal:
        fix = "look into the log of the transaction coordinator, the leader of __transaction_state"
        return failed(check, "the client did not come back from a transaction", fix)
    except KafkaException as error:
        fix = (
            "grant Write and Describe on transactional id tracer-* "
            "(kafka-acls.sh --transactional-id), or set TRACER_DELIVERY=at_least_once"
        )
        return failed(check, said(error), fix)
    finally:
        calls.end()
    return ok(check, f"one was committed as {transactional_id}")


def _forget(admin: AdminClient, name: str, patient: Patient) -> None:
    """Best effort: its records are gone after a minute anyway."""
    try:
        admin.delete_topics([name], request_timeout=patient.patience)[name].result()
    except KafkaException:
        return
