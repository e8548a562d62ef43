"""Reading topics outside of any group: every reader sees everything, and nothing is committed.

For views that live in memory. Not for work that must be done once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal
from uuid import uuid4

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException

from shared.bus.base import Message, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import close_client
from shared.bus.kafka_config import ClientConfig, consumer_config
from shared.bus.kafka_errors import ErrorInbox, client_logger, error_of, fate_of, is_fatal, serving
from shared.bus.kafka_reader import to_message
from shared.clock import Clock, SystemClock

_METADATA_SECONDS = 5.0
_LOOK_EVERY = 30.0  # for topics and partitions made since


class Tail:
    """One reader. Not thread-safe."""

    def __init__(
        self,
        *,
        bootstrap: str,
        topics: Sequence[str],
        start: Literal["beginning", "end"],
        client_config: ClientConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`start`: with what is there, or only with what comes."""
        self._topics = list(topics)
        self._start = OFFSET_BEGINNING if start == "beginning" else OFFSET_END
        self._clock = clock or SystemClock()
        self._errors = ErrorInbox("tail")
        self._looked_at: float | None = None
        self._reading: set[TopicPartition] = set()
        self._ended: set[TopicPartition] = set()
        group = f"tracer-tail-{uuid4().hex}"  # never joined; librdkafka wants a name
        config = consumer_config(bootstrap, group, None, client_config or {})
        self._consumer = Consumer({**config, "error_cb": self._errors}, logger=client_logger())

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """Up to `max_messages`, waiting at most about `timeout` seconds for the first.

        Raises Retryable while the broker does not say which partitions there are, or Fatal.
        """
        self._look()
        found: list[Message] = []
        try:
            with serving():
                batch = self._consumer.consume(max_messages, timeout)
        except KafkaException as exception:
            raise fate_of(error_of(exception), "reading") from exception
        self._errors.raise_fatal()
        for raw in batch:
            if raw.error() is None:
                found.append(to_message(raw))
            else:
                self._heed(raw)
        return found

    def caught_up(self) -> bool:
        """Whether the end of every partition was reached at some time since this was made."""
        return bool(self._reading) and self._reading <= self._ended

    def close(self) -> None:
        close_client(self._consumer.close)

    def _look(self) -> None:
        """Begin with the partitions there are; later with those that are new."""
        now = self._clock.monotonic()
        if self._looked_at is not None and now - self._looked_at < _LOOK_EVERY:
            return
        found = {at for topic in self._topics for at in self._partitions(topic)}
        new = sorted(found - self._reading)
        # What comes into being while this reads is read from its beginning.
        begin = self._start if self._looked_at is None else OFFSET_BEGINNING
        if new:
            self._consumer.incremental_assign(
                [confluent_kafka.TopicPartition(at.topic, at.partition, begin) for at in new]
            )
            self._reading |= set(new)
        if self._reading:
            self._looked_at = now

    def _partitions(self, topic: str) -> list[TopicPartition]:
        try:
            found = self._consumer.list_topics(topic, timeout=_METADATA_SECONDS).topics[topic]
        except KafkaException as exception:
            raise fate_of(error_of(exception), f"asking for the partitions of {topic}") from None
        if found.error is not None and is_fatal(found.error):
            raise Fatal(f"{topic}: {found.error.str()}")
        if found.error is not None:
            raise Retryable(f"{topic}: {found.error.str()}")
        return [TopicPartition(topic, partition) for partition in found.partitions]

    def _heed(self, raw: confluent_kafka.Message) -> None:
        error = raw.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            self._ended.add(TopicPartition(str(raw.topic()), raw.partition() or 0))
        elif is_fatal(error):
            raise fate_of(error, f"reading {raw.topic() or 'from Kafka'}")
        else:
            self._errors(error)
