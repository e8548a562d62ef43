"""Requests and logged traces as applications send them: some twice, some late, some bad."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, Producer

from tests.faults.checker import BAD
from tests.faults.evidence import At
from tests.faults.language import label_of, text
from tests.faults.system import TASK, TEACHER, UNTRAINED

FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
_DAY_SECONDS = 86_400
_DELIVERY_SECONDS = 60


@dataclass
class Mix:
    """Shares of the records that are sent twice, that swap places with a later one, that are bad,
    and, of the traces, that belong to the day before."""

    twice: float = 0.01
    shuffled: float = 0.0
    bad: float = 0.02
    late: float = 0.02


@dataclass
class Sent:
    """What the brokers acknowledged, and how many sends failed."""

    acknowledged: set[At] = field(default_factory=set)
    requests: int = 0
    traces: int = 0
    failed: int = 0


class Traffic:
    """Sends over a direct connection; one schedule's records are those of one day."""

    def __init__(self, bootstrap: str) -> None:
        self.sent = Sent()
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 1000 * _DELIVERY_SECONDS,
                "partitioner": "murmur2_random",
                "log_level": 2,
            }
        )

    def requests(
        self, chance: random.Random, day: int, count: int, mix: Mix, name: str,
        *, muddled: float = 0.15, untrained: float = 0.25,
    ) -> None:  # fmt: skip
        """`name` keeps the ids of one run apart from those of all others."""
        records = []
        for number in range(count):
            request = {
                "id": f"{name}-{number}",
                "task": UNTRAINED if chance.random() < untrained else TASK,
                "input": text(chance, muddled=muddled),
                "occurred_at": moment(chance, day).isoformat(),
            }
            records.append(request)
        self.sent.requests += self._send("requests", records, chance, mix)

    def traces(self, chance: random.Random, day: int, count: int, mix: Mix, name: str) -> None:
        records = []
        for number in range(count):
            said = text(chance)
            trace = {
                "id": f"{name}-{number}",
                "task": TASK if chance.random() < 0.9 else UNTRAINED,
                "input": said,
                "teacher": label_of(said),
                "model": TEACHER,
                "occurred_at": moment(chance, day - (chance.random() < mix.late)).isoformat(),
            }
            records.append(trace)
        self.sent.traces += self._send("traces.raw", records, chance, mix)

    def poll(self) -> None:
        self._producer.poll(0)

    def flush(self) -> int:
        """Wait for every acknowledgement; the number of records still without one."""
        return self._producer.flush(_DELIVERY_SECONDS)

    def _send(
        self, topic: str, records: list[dict[str, Any]], chance: random.Random, mix: Mix
    ) -> int:
        sent = 0
        for record in _shuffled(records, chance, mix.shuffled):
            value = json.dumps(record).encode()
            if chance.random() < mix.bad:
                record = record | {"id": BAD + record["id"]}
                value = _spoiled(record, chance)
            for _ in range(2 if chance.random() < mix.twice else 1):
                self._produce(topic, record["id"].encode(), value)
                sent += 1
        self._producer.poll(0)
        return sent

    def _produce(self, topic: str, key: bytes, value: bytes) -> None:
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=self._delivered)
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is not None:
            self.sent.failed += 1
        else:
            at = (str(message.topic()), int(message.partition() or 0), int(message.offset() or 0))
            self.sent.acknowledged.add(at)


def moment(chance: random.Random, day: int) -> datetime:
    """Some time on the day, counted from FIRST_DAY."""
    return FIRST_DAY + timedelta(days=day, seconds=chance.random() * _DAY_SECONDS)


def _shuffled(
    records: list[dict[str, Any]], chance: random.Random, share: float
) -> Iterator[dict[str, Any]]:
    order = list(records)
    for place in range(len(order)):
        if chance.random() < share:
            other = chance.randrange(place, len(order))
            order[place], order[other] = order[other], order[place]
    yield from order


def _spoiled(record: dict[str, Any], chance: random.Random) -> bytes:
    """The record with one thing wrong with it, its id still readable where that can be."""
    match chance.randrange(4):
        case 0:
            return json.dumps(record | {"task": "nobody-knows"}).encode()
        case 1:
            return json.dumps({k: v for k, v in record.items() if k != "input"}).encode()
        case 2:
            return json.dumps(record | {"input": {"text": 1}}).encode()
        case _:
            return json.dumps(record | {"v": 99}).encode()
