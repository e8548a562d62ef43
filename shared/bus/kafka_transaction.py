"""A producer whose every write is one transaction: all of it is read, or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import confluent_kafka
from confluent_kafka import KafkaException

from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import BoundedCalls
from shared.bus.kafka_config import ClientConfig, transactional_config
from shared.bus.kafka_errors import ErrorInbox, error_of, fate_of, serving
from shared.bus.kafka_writer import Deliveries, close_producer, enqueue, make_producer
from shared.clock import Clock, SystemClock

logger = logging.getLogger(__name__)

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_GRACE = 10.0  # seconds a call may come back later than it was told to


class GroupOffsets(NamedTuple):
    """What a consumer group has read when the transaction commits, and the member who says so."""

    offsets: list[confluent_kafka.TopicPartition]
    member: object


class TransactionalPublisher:
    """Implements `Publisher`, and writes for `TransactionalPipe`.

    A new holder of `transactional_id` ends the transaction of the one before and fences it off:
    what it reads afterwards no predecessor can change any more.

    Steps of `publish`: begin, produce, send offsets, flush, commit. Before the last step anything
    but a fatal error ends in abort and Retryable. Once the commit is asked for, its outcome is
    only known from an answer: without one within `patience` seconds the process must end (Fatal)
    and a successor with the same `transactional_id` settles it. The same holds for a call that
    does not come back at all.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        transactional_id: str,
        client_config: ClientConfig | None = None,
        patience: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        """Raises Fatal when the broker has no transactions, or cannot be reached."""
        self._clock = clock or SystemClock()
        self._patience = patience
        self._open = False
        self._errors = ErrorInbox("transactional producer")
        config = transactional_config(bootstrap, transactional_id, client_config or {})
        self._producer = make_producer(config, self._errors)
        self._calls = BoundedCalls()
        try:
            # Twice the patience: a predecessor's transaction may have to be settled first.
            self._insist(self._producer.init_transactions, 2 * patience)
        except KafkaException as exception:
            self.close()
            raise Fatal(
                f"no transactions on {bootstrap}: {error_of(exception).str()}"
            ) from exception

    def publish(self, records: Sequence[Record], progress: GroupOffsets | None = None) -> None:
        """Write `records`, and a group's `progress` with them.

        Raises Retryable, after which nothing was written, or Fatal, after which that is known
        only from reading the topics.
        """
        self.settle()
        self._errors.raise_fatal()
        deliveries = Deliveries()
        try:
            self._transact(records, progress, deliveries)
        except KafkaException as exception:
            # A failed delivery is the cause; the transaction's own error only counts them.
            fate = deliveries.fate() or fate_of(error_of(exception), "transaction aborted")
            if isinstance(fate, Retryable):
                self._give_up()
            raise fate from exception
        except Retryable:
            self._give_up()
            raise
        self._errors.recovered()

    def settle(self) -> None:
        """Abort what could not be aborted when it failed. Raises Retryable or Fatal."""
        try:
            self._abort_if_open()
        except KafkaException as exception:
            raise fate_of(error_of(exception), "aborting a transaction") from exception

    def close(self) -> None:
        try:
            self._abort_if_open()
        except (KafkaException, Fatal) as exception:
            # The coordinator aborts it when it times out or a successor takes over.
            logger.warning("closing with an open transaction: %s", exception)
        if not self._calls.stuck:
            close_producer(self._producer)
        self._calls.end()

    def _transact(
        self, records: Sequence[Record], progress: GroupOffsets | None, deliveries: Deliveries
    ) -> None:
        self._producer.begin_transaction()
        self._open = True
        for record in records:
            enqueue(self._producer, record, deliveries)
        if progress is not None:
            self._insist(partial(self._producer.send_offsets_to_transaction, *progress))
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

    def _give_up(self) -> None:
        try:
            self.settle()
        except Retryable as still_open:  # the next `publish` begins by aborting it
            logger.warning("could not abort yet: %s", still_open)

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
