"""What librdkafka's errors mean here: retryable, or fatal to this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from shared.bus.errors import Fatal, Retryable

logger = logging.getLogger(__name__)

# No waiting helps against these: fenced by a successor, not allowed, or asked for nonsense.
_FATAL = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._INVALID_ARG,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._NOT_IMPLEMENTED,
    }
)


def error_of(exception: KafkaException) -> KafkaError:
    """The KafkaError that a KafkaException carries."""
    error: KafkaError = exception.args[0]
    return error


def is_fatal(error: KafkaError) -> bool:
    return error.fatal() or error.code() in _FATAL


def fate_of(error: KafkaError, doing: str) -> Retryable | Fatal:
    """The exception to raise for `error`, met while `doing` something."""
    kind = Fatal if is_fatal(error) else Retryable
    return kind(f"{doing}: {error.str()} ({error.name()})")


@contextmanager
def serving() -> Iterator[None]:
    """Around a call that runs librdkafka's callbacks: raises KafkaException for a fatal error.

    The binding raises fatal errors from inside such calls; when another callback is due in the
    same call, Python wraps what it finds pending in a SystemError.
    """
    try:
        yield
    except SystemError as wrapper:
        if isinstance(wrapper.__cause__, KafkaException):
            raise wrapper.__cause__ from None
        raise


def client_logger() -> logging.Logger:
    """For librdkafka's own log, less what its callbacks report as errors anyway."""
    logger = logging.getLogger("librdkafka")
    logger.addFilter(_not_reported)
    return logger


def _not_reported(record: logging.LogRecord) -> bool:
    # FAIL is one line per attempt to connect: a flood while a broker is away.
    return not (isinstance(record.args, tuple) and record.args[:1] == ("FAIL",))


class ErrorInbox:
    """Takes the errors librdkafka reports from its callbacks, where raising would be lost.

    Fatal ones wait for `raise_fatal`; the others pass by themselves (a broker that went away, a
    topic not created yet), so each is logged once until `recovered`.
    """

    def __init__(self, client: str) -> None:
        self._client = client
        self._fatal: KafkaError | None = None
        self._logged: set[int] = set()

    def __call__(self, error: KafkaError) -> None:
        if is_fatal(error):
            self._fatal = self._fatal or error
        elif error.code() not in self._logged:
            self._logged.add(error.code())
            logger.warning("Kafka %s: %s (%s)", self._client, error.str(), error.name())

    def raise_fatal(self) -> None:
        if self._fatal is not None:
            raise fate_of(self._fatal, f"Kafka {self._client}")

    def recovered(self) -> None:
        self._logged.clear()
