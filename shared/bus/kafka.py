"""The bus on Apache Kafka: the ports of `shared.bus.base` over confluent-kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal
from shared.bus.kafka_config import ClientConfig, consumer_config, producer_config
from shared.bus.kafka_pipe import AtLeastOncePipe, TransactionalPipe
from shared.bus.kafka_reader import Reader
from shared.bus.kafka_writer import Writer
from shared.clock import Clock, SystemClock

__all__ = [
    "AtLeastOncePipe",
    "KafkaPublisher",
    "KafkaSource",
    "TransactionalPipe",
    "open_pipe",
]


def open_pipe(
    *,
    bootstrap: str,
    group: str,
    topics: Sequence[str],
    delivery: Literal["exactly_once", "at_least_once"],
    transactional_id: str | None = None,
    instance_id: str | None = None,
    client_config: ClientConfig | None = None,
    poll_bytes: int | None = None,
) -> AtLeastOncePipe | TransactionalPipe:
    """A pipe reading `topics` as a member of `group`.

    `transactional_id` must be this instance's alone and stay the same over its restarts: a new
    holder fences the old one. `instance_id` makes the membership static: a restart within the
    session timeout moves no partition. `poll_bytes` of values end a poll, as in `Reader`. Raises
    Fatal when the settings or the broker won't do.
    """
    if delivery == "at_least_once":
        return AtLeastOncePipe(
            bootstrap=bootstrap,
            group=group,
            topics=topics,
            instance_id=instance_id,
            client_config=client_config,
            poll_bytes=poll_bytes,
        )
    if not transactional_id:
        raise Fatal("exactly_once needs a transactional_id")
    return TransactionalPipe(
        bootstrap=bootstrap,
        group=group,
        topics=topics,
        transactional_id=transactional_id,
        instance_id=instance_id,
        client_config=client_config,
        poll_bytes=poll_bytes,
    )


class KafkaSource:
    """A group member whose caller commits, when its work is safe."""

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        instance_id: str | None = None,
        client_config: ClientConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        config = consumer_config(bootstrap, group, instance_id, client_config or {})
        self._reader = Reader(config, topics, clock or SystemClock())

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        return self._reader.poll(max_messages, timeout)

    def assigned(self) -> frozenset[TopicPartition]:
        """As of the last poll."""
        return self._reader.assigned()

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offset of each partition; those that moved away are left out."""
        self._reader.commit(offsets)

    def close(self) -> None:
        self._reader.close()


class KafkaPublisher:
    """An idempotent producer that returns when the broker has acknowledged everything."""

    def __init__(self, *, bootstrap: str, client_config: ClientConfig | None = None) -> None:
        self._writer = Writer(producer_config(bootstrap, client_config or {}))

    def publish(self, records: Sequence[Record]) -> None:
        self._writer.write(records)

    def close(self) -> None:
        self._writer.close()
