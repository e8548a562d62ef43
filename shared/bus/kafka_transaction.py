"""A producer whose every write is one transaction: all of it is read, or none."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from confluent_kafka import KafkaException

from shared.bus.base import Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_config import ClientConfig, transactional_config
from shared.bus.kafka_errors import ErrorInbox, error_of, fate_of, serving
from shared.bus.kafka_writer import Deliveries, close_producer, enqueue, make_producer

logger = logging.getLogger(__name__)


class TransactionalPublisher:
    """Implements `Publisher`. A new holder of `transactional_id` ends the transaction of the one
    before and fences it off: what it reads afterwards no predecessor can change any more."""

    def __init__(
        self,
        *,
        bootstrap: str,
        transactional_id: str,
        client_config: ClientConfig | None = None,
        patience: float = 30.0,
    ) -> None:
        """Raises Fatal when the broker has no transactions, or cannot be reached."""
        self._patience = patience
        self._errors = ErrorInbox("transactional producer")
        config = transactional_config(bootstrap, transactional_id, client_config or {})
        self._producer = make_producer(config, self._errors)
        try:
            with serving():
                self._producer.init_transactions(patience)
        except KafkaException as exception:
            close_producer(self._producer)
            raise Fatal(
                f"no transactions on {bootstrap}: {error_of(exception).str()}"
            ) from exception

    def publish(self, records: Sequence[Record]) -> None:
        """Raises Retryable, after which nothing was written, or Fatal, after which that is known
        only from reading the topics."""
        deliveries = Deliveries()
        self._errors.raise_fatal()
        try:
            self._producer.begin_transaction()
            for record in records:
                enqueue(self._producer, record, deliveries)
            with serving():
                left = self._producer.flush(self._patience)
            fate = deliveries.fate()
            if left or fate is not None:
                self._producer.abort_transaction(self._patience)
                raise fate or Retryable("records not delivered in time")
            with serving():
                self._producer.commit_transaction(self._patience)
        except KafkaException as exception:
            error = error_of(exception)
            if not error.txn_requires_abort():
                raise Fatal(f"unknown outcome of a transaction: {error.str()}") from exception
            self._producer.abort_transaction(self._patience)
            raise fate_of(error, "transaction aborted") from exception

    def close(self) -> None:
        close_producer(self._producer)
