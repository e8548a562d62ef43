"""What a million events weigh in Kafka: the events of the examples, with texts of the data, written
by our producer to a real broker, and the size of its log segments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from deploy.kafka.local_kafka import LocalKafka
from shared.bus.admin import ensure_topics
from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher
from shared.contracts.codec import encode
from shared.contracts.events import Decision, Deferral, Outcome, Reason, Request, Trace
from shared.contracts.topics import Topic, load_topics

AT = datetime(2026, 2, 4, 9, 15, tzinfo=UTC)
VERSION = "2026-02-03-1f9c0a7b3d52"
BATCH = 500  # records a flush, as a busy router's
TOPICS = (Topic.REQUESTS, Topic.DECISIONS, Topic.DEFERRED, Topic.TRACES)


def kafka(texts: Sequence[str], n: int = 20_000) -> dict[str, Any]:
    """By topic: bytes of one event as JSON, and bytes it takes in the broker's log."""
    with tempfile.TemporaryDirectory() as folder, LocalKafka(data=Path(folder)) as broker:
        ensure_topics(broker.bootstrap, load_topics().values(), replication=1)
        found = {
            topic.value: written(broker.bootstrap, Path(folder), topic, texts, n)
            for topic in TOPICS
        }
    return {"events": n, "topics": found}


def written(
    bootstrap: str, folder: Path, topic: Topic, texts: Sequence[str], n: int
) -> dict[str, float]:
    records = list(events(topic, texts, n))
    publisher = KafkaPublisher(bootstrap=bootstrap)
    try:
        for start in range(0, n, BATCH):
            publisher.publish(records[start : start + BATCH])
    finally:
        publisher.close()
    segments = folder.glob(f"**/{topic.value}-[0-9]*/*.log")
    return {
        "json_bytes": round(sum(len(record.value) for record in records) / n, 1),
        "log_bytes": round(sum(segment.stat().st_size for segment in segments) / n, 1),
    }


def events(topic: Topic, texts: Sequence[str], n: int) -> Iterator[Record]:
    """`n` different events of one topic, keyed as the services key them."""
    for number in range(n):
        name = str(UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))
        at = AT + timedelta(milliseconds=7 * number)
        text = texts[number % len(texts)]
        yield Record(topic.value, name.encode(), encode(_event(topic, name, text, at, number)))


def _event(topic: Topic, name: str, text: str, at: datetime, number: int) -> msgspec.Struct:
    score = round(0.5 + (number * 0.61803398875) % 0.5, 6)
    timings = {"lexical": round(0.1 + score, 3), "batch_ms": round(9 * score, 3)}
    request = Request(id=name, task="banking77", input=text, occurred_at=at)
    match topic:
        case Topic.REQUESTS:
            return request
        case Topic.DECISIONS:
            return Decision(
                request_id=name, task=request.task, outcome=Outcome.HANDLED,
                reason=Reason.CERTIFIED, decided_at=at, label=f"label_number_{number % 77:03}",
                accept_score=score, threshold=0.871, version=VERSION, occurred_at=at,
                timings=timings,
            )  # fmt: skip
        case Topic.DEFERRED:
            return Deferral(
                request=request, reason=Reason.BELOW_THRESHOLD, deferred_at=at,
                accept_score=score, threshold=0.871, version=VERSION, timings=timings,
            )  # fmt: skip
        case Topic.TRACES:
            return Trace(
                id=name, task=request.task, input=text, teacher=f"label_number_{number % 77:03}",
                occurred_at=at, teacher_model="qwen3-30b-instruct", version=VERSION,
            )  # fmt: skip
    raise ValueError(f"no event is made for {topic}")
