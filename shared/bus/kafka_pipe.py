"""Two pipes over Kafka: exactly once with transactions, and at least once for lowest latency."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import Any

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_config import ClientConfig, consumer_config, producer_config
from shared.bus.kafka_reader import Reader, raw_offsets
from shared.bus.kafka_transaction import GroupOffsets, TransactionalPublisher
from shared.bus.kafka_writer import Writer
from shared.clock import Clock, SystemClock


class _KafkaPipe(ABC):
    """What both pipes have in common: the consuming half, and a thread for the commit in flight.

    That thread only writes; this one polls meanwhile, and alone uses the consumer: the binding
    lets one call at a time into a client, and another thread's would wait for a gap between polls.
    Before partitions leave, in a rebalance, the commit in flight is waited for: what it covers is
    done then, or comes again to whoever has the partition next.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        clock: Clock,
        poll_bytes: int | None,
    ) -> None:
        self._reader = Reader(config, topics, clock, self._land, poll_bytes)
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="commit")
        self._flight: Future[None] | None = None
        self._offsets: Mapping[TopicPartition, int] = {}

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        return self._reader.poll(max_messages, timeout)

    def begin_commit(self, records: Sequence[Record]) -> None:
        self.settled(None)
        offsets = self._reader.uncommitted()
        if not records and not offsets and not self._reader.torn():
            return
        try:
            write = self._writer_of(records, offsets)
        except Retryable:
            self._reader.rewind()
            raise
        self._reader.sending()
        self._flight, self._offsets = self._writing.submit(write), offsets

    def settled(self, timeout: float | None) -> bool:
        """`timeout`: None waits for as long as the commit takes, which is bounded."""
        if self._flight is None:
            return True
        wait([self._flight], timeout)
        if not self._flight.done():
            return False
        flight, self._flight = self._flight, None
        try:
            flight.result()
            self._written(self._offsets)
        except Retryable:
            self._reader.rewind()
            raise
        self._reader.committed()
        return True

    def commit(self, records: Sequence[Record]) -> None:
        self.begin_commit(records)
        self.settled(None)

    def lag(self) -> int:
        return self._reader.lag()

    def waiting(self, timeout: float) -> int | None:
        return self._reader.waiting(timeout)

    def close(self) -> None:
        """What is in flight ends first; whether it succeeded shows in the group's offsets."""
        self._writing.shutdown()
        self._land()

    @abstractmethod
    def _writer_of(
        self, records: Sequence[Record], offsets: Mapping[TopicPartition, int]
    ) -> Callable[[], None]:
        """What the other thread has to do. Raises Retryable when it would be wrong to."""

    @abstractmethod
    def _written(self, offsets: Mapping[TopicPartition, int]) -> None:
        """What is left to do when the other thread is done. Raises Retryable or Fatal."""

    def _land(self) -> None:
        """Runs inside a poll, where nothing may be raised or rewound: a failure is `settled`'s,
        which does all of it again."""
        if self._flight is not None and self._flight.exception() is None:
            with suppress(Retryable, Fatal):
                self._written(self._offsets)
                self._flight = None
                self._reader.committed()


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
        poll_bytes: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        theirs = client_config or {}
        config = consumer_config(bootstrap, group, instance_id, theirs)
        self._writer = Writer(producer_config(bootstrap, theirs))
        super().__init__(config, topics, clock or SystemClock(), poll_bytes)

    def close(self) -> None:
        super().close()
        self._reader.close()
        self._writer.close()

    def _writer_of(
        self, records: Sequence[Record], offsets: Mapping[TopicPartition, int]
    ) -> Callable[[], None]:
        return partial(self._writer.write, records)

    def _written(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._reader.commit(offsets)


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
        poll_bytes: int | None = None,
        clock: Clock | None = None,
        patience: float = 20.0,
    ) -> None:
        clock = clock or SystemClock()
        config = consumer_config(bootstrap, group, instance_id, client_config or {})
        # First of all: what a predecessor has in flight is settled before anything is read.
        self._publisher = TransactionalPublisher(
            bootstrap=bootstrap,
            transactional_id=transactional_id,
            client_config=client_config,
            patience=patience,
            clock=clock,
        )
        super().__init__(config, topics, clock, poll_bytes)

    def close(self) -> None:
        super().close()
        self._publisher.close()
        self._reader.close()

    def _writer_of(
        self, records: Sequence[Record], offsets: Mapping[TopicPartition, int]
    ) -> Callable[[], None]:
        """The membership is that of now: a later one would vouch for what this one polled."""
        if self._reader.torn():
            raise Retryable("partitions moved away while their messages were in work")
        progress = None
        if offsets:
            progress = GroupOffsets(raw_offsets(offsets), self._reader.group_metadata())
        return partial(self._publisher.publish, records, progress)

    def _written(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Nothing: they were part of the transaction."""
