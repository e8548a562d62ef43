"""Two pipes over Kafka: exactly once with transactions, and at least once for lowest latency."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from confluent_kafka import KafkaException

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import BoundedCalls
from shared.bus.kafka_config import (
    ClientConfig,
    consumer_config,
    producer_config,
    transactional_config,
)
from shared.bus.kafka_errors import ErrorInbox, error_of, fate_of, is_fatal, serving
from shared.bus.kafka_reader import Reader, raw_offsets
from shared.bus.kafka_writer import Deliveries, Writer, close_producer, enqueue, make_producer
from shared.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_GRACE = 10.0  # seconds a call may come back later than it was told to


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
    """Records and offsets in one Kafka transaction, opened and closed inside `commit`.

    Steps: begin, produce, send offsets, flush, commit. Before the last step anything but a fatal
    error ends in abort, rewind and Retryable. Once the commit is asked for, its outcome is only
    known from an answer: without one within `patience` seconds the process must end (Fatal) and
    a successor with the same `transactional_id` settles it. The same holds for a call that does
    not come back at all.
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
        theirs = client_config or {}
        self._clock = clock or SystemClock()
        self._patience = patience
        self._open = False
        self._deliveries = Deliveries()
        self._errors = ErrorInbox("transactional producer")
        self._calls = BoundedCalls()
        config = consumer_config(bootstrap, group, instance_id, theirs)
        self._producer = make_producer(
            transactional_config(bootstrap, transactional_id, theirs), self._errors
        )
        self._initialise(bootstrap)
        super().__init__(Reader(config, topics, self._clock))

    def commit(self, records: Sequence[Record]) -> None:
        offsets = self._reader.uncommitted()
        if not records and not offsets and not self._reader.torn():
            return
        try:
            self._abort_if_open()
            if self._reader.torn():
                raise Retryable("partitions moved away while their messages were in work")
            self._transact(records, offsets)
        except KafkaException as exception:
            # A failed delivery is the cause; the transaction's own error only counts them.
            fate = self._deliveries.fate() or fate_of(error_of(exception), "transaction aborted")
            if isinstance(fate, Retryable):
                self._back_to_last_commit()
            raise fate from exception
        except Retryable:
            self._back_to_last_commit()
            raise
        self._reader.committed()
        self._errors.recovered()

    def close(self) -> None:
        try:
            self._abort_if_open()
        except (KafkaException, Fatal) as exception:
            # The coordinator aborts it when it times out or a successor takes over.
            logger.warning("closing with an open transaction: %s", exception)
        self._reader.close()
        if not self._calls.stuck:
            close_producer(self._producer)
        self._calls.end()

    def _initialise(self, bootstrap: str) -> None:
        try:
            # Twice the patience: a predecessor's transaction may have to be settled first.
            self._insist(self._producer.init_transactions, 2 * self._patience)
        except KafkaException as exception:
            close_producer(self._producer)
            raise Fatal(
                f"no transactions on {bootstrap}: {error_of(exception).str()}"
            ) from exception

    def _transact(self, records: Sequence[Record], offsets: Mapping[TopicPartition, int]) -> None:
        self._errors.raise_fatal()
        self._deliveries = Deliveries()
        self._producer.begin_transaction()
        self._open = True
        for record in records:
            enqueue(self._producer, record, self._deliveries)
        if offsets:
            member, raw = self._reader.group_metadata(), raw_offsets(offsets)
            self._insist(
                lambda seconds: self._producer.send_offsets_to_transaction(raw, member, seconds)
            )
        # Separate from the commit, so that a flush that takes too long is no unknown outcome.
        with serving():
            left = self._producer.flush(self._patience)
        if left:
            raise Retryable("records not delivered in time")
        try:
            self._insist(self._producer.commit_transaction)
        except KafkaException as exception:
            if error_of(exception).txn_requires_abort():
                raise
            raise Fatal(f"unknown outcome of a transaction: {exception}") from exception
        self._open = False

    def _back_to_last_commit(self) -> None:
        try:
            self._abort_if_open()
        except KafkaException as exception:
            error = error_of(exception)
            if is_fatal(error):
                raise fate_of(error, "aborting a transaction") from exception
            # Still open: the next commit begins by aborting it.
            logger.warning("could not abort yet: %s", error.str())
        self._reader.rewind()

    def _abort_if_open(self) -> None:
        if self._open:
            self._insist(self._producer.abort_transaction, self._patience / 2)
            self._open = False

    def _insist(self, call: Callable[[float], None], seconds: float | None = None) -> None:
        """Call until it succeeds, fails for good, or the time is up.

        Raises KafkaException, and Fatal when the call does not come back.
        """
        deadline = self._clock.monotonic() + (self._patience if seconds is None else seconds)
        pause = _FIRST_PAUSE
        while True:
            left = max(_FIRST_PAUSE, deadline - self._clock.monotonic())
            try:
                with serving():
                    self._calls.run(partial(call, left), left + _GRACE)
            except KafkaException as exception:
                late = self._clock.monotonic() + pause > deadline
                if late or not error_of(exception).retriable():
                    raise
                self._clock.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                return
