"""Two pipes over Kafka: exactly once with transactions, and at least once for lowest latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Retryable
from shared.bus.kafka_config import ClientConfig, consumer_config, producer_config
from shared.bus.kafka_reader import Reader, raw_offsets
from shared.bus.kafka_transaction import GroupOffsets, TransactionalPublisher
from shared.bus.kafka_writer import Writer
from shared.clock import Clock, SystemClock


class _KafkaPipe:
    """What both pipes have in common: the consuming half."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        return self._reader.poll(max_messages, timeout)

    def lag(self) -> int:
        return self._reader.lag()

    def waiting(self, timeout: float) -> int | None:
        return self._reader.waiting(timeout)


class AtLeastOncePipe(_KafkaPipe):
    """Produce, flush, check deliveries, then commit offsets: a crash between may repeat records."""

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
        theirs = client_config or {}
        config = consumer_config(bootstrap, group, instance_id, theirs)
        self._writer = Writer(producer_config(bootstrap, theirs))
        super().__init__(Reader(config, topics, clock or SystemClock()))

    def commit(self, records: Sequence[Record]) -> None:
        offsets = self._reader.uncommitted()
        try:
            if records:
                self._writer.write(records)
            self._reader.commit(offsets)
        except Retryable:
            self._reader.rewind()
            raise
        self._reader.committed()

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class TransactionalPipe(_KafkaPipe):
    """Records and offsets in one Kafka transaction: see `TransactionalPublisher` for its steps.

    After a Retryable the transaction is aborted and the reader back at the last commit.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        group: str,
        topics: Sequence[str],
        transactional_id: str,
        instance_id: str | None = None,
        client_config: ClientConfig | None = None,
        clock: Clock | None = None,
        patience: float = 20.0,
    ) -> None:
        clock = clock or SystemClock()
        config = consumer_config(bootstrap, group, instance_id, client_config or {})
        self._publisher = TransactionalPublisher(
            bootstrap=bootstrap,
            transactional_id=transactional_id,
            client_config=client_config,
            patience=patience,
            clock=clock,
        )
        super().__init__(Reader(config, topics, clock))

    def commit(self, records: Sequence[Record]) -> None:
        offsets = self._reader.uncommitted()
        if not records and not offsets and not self._reader.torn():
            return
        try:
            self._publisher.settle()
            if self._reader.torn():
                raise Retryable("partitions moved away while their messages were in work")
            self._publisher.publish(records, self._progress(offsets))
        except Retryable:
            self._reader.rewind()
            raise
        self._reader.committed()

    def close(self) -> None:
        self._publisher.close()
        self._reader.close()

    def _progress(self, offsets: Mapping[TopicPartition, int]) -> GroupOffsets | None:
        """Raises Retryable when this member is no longer in its group."""
        if not offsets:
            return None
        return GroupOffsets(raw_offsets(offsets), self._reader.group_metadata())
