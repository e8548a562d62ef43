"""One member of a consumer group: what it owns, what it has handed out, and the way back."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException

from shared.bus.base import Message, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import close_client
from shared.bus.kafka_errors import ErrorInbox, client_logger, error_of, fate_of, is_fatal, serving
from shared.clock import Clock

logger = logging.getLogger(__name__)

_UNKNOWN = -1
_SHORTEST_ASK = 0.1


@dataclass(slots=True)
class _Position:
    """Offsets in one owned partition.

    `next` is the next to hand out, and what a commit stores. `sent` is the first one that the
    commit in flight covers, `redo` the first one handed out since that began (or since the last
    commit); None when there is none.
    """

    next: int = _UNKNOWN
    sent: int | None = None
    redo: int | None = None

    @property
    def open(self) -> int | None:
        """The first one handed out that no commit has covered yet."""
        return self.redo if self.sent is None else self.sent


class Reader:
    """Polls, remembers what is uncommitted, rewinds. Not thread-safe.

    Rebalance callbacks run inside `poll` and `close` only. They leave assigning to the binding,
    which calls (un)assign or incremental_(un)assign as the assignor's protocol demands.

    `leaving` is called before partitions are given up: whoever has a commit in flight ends it
    there, so that nobody reads them again before.

    `poll_bytes`: a poll ends with so many bytes of values, however few messages these are. None:
    with as many messages as it is asked for.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        clock: Clock,
        leaving: Callable[[], None] = lambda: None,
        poll_bytes: int | None = None,
    ) -> None:
        self._clock = clock
        self._poll_bytes = math.inf if poll_bytes is None else poll_bytes
        self._leaving = leaving
        self._errors = ErrorInbox("consumer")
        self._positions: dict[TopicPartition, _Position] = {}
        self._filling: list[Message] = []
        self._member: str | None = None
        self._torn = False
        self._consumer = Consumer({**config, "error_cb": self._errors}, logger=client_logger())
        self._consumer.subscribe(
            list(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """Up to `max_messages`, waiting at most `timeout` seconds for the first. Raises Fatal."""
        # One at a time: a batch call can return messages of partitions revoked during it.
        self._filling = []
        deadline = self._clock.monotonic() + timeout
        wait, size = timeout, 0
        while len(self._filling) < max_messages and size < self._poll_bytes:
            raw = self._next(wait)
            if raw is None:
                break
            self._take(raw)
            size += len(raw)
            wait = 0.0 if self._filling else max(0.0, deadline - self._clock.monotonic())
        for message in self._filling:
            position = self._positions[TopicPartition(message.topic, message.partition)]
            if position.redo is None:
                position.redo = message.offset
        handed, self._filling = self._filling, []
        return handed

    def assigned(self) -> frozenset[TopicPartition]:
        return frozenset(self._positions)

    def uncommitted(self) -> dict[TopicPartition, int]:
        """The next offset of each owned partition with messages that no commit covers yet, nor the
        one in flight."""
        return {at: p.next for at, p in self._positions.items() if p.redo is not None}

    def torn(self) -> bool:
        """True when a partition left while messages of it were handed out and uncommitted."""
        return self._torn

    def sending(self) -> None:
        """A commit of what is `uncommitted` is in flight from here on."""
        for position in self._positions.values():
            position.sent, position.redo = position.redo, None

    def committed(self) -> None:
        """The commit in flight has succeeded."""
        for position in self._positions.values():
            position.sent = None
        self._errors.recovered()

    def rewind(self) -> None:
        """Hand out again what no commit has covered. Raises Fatal when the consumer can't go
        back."""
        self._torn = False
        for at, position in self._positions.items():
            first = position.open
            if first is None:
                continue
            try:
                self._consumer.seek(confluent_kafka.TopicPartition(at.topic, at.partition, first))
            except KafkaException as exception:
                raise Fatal(f"rewinding {at} to {first}: {exception}") from exception
            position.next, position.sent, position.redo = first, None, None

    def group_metadata(self) -> object:
        """The membership to commit under. Raises Retryable when it is no longer the one polled in.

        A member that has been thrown out has no id until its next poll. Kafka takes offsets
        without an id unchecked into a transaction, and calls a static member without one fenced:
        so a commit must not start then. The id is looked at last, so it vouches for the metadata.
        """
        metadata: object = self._consumer.consumer_group_metadata()
        if self._member is None or self._consumer.memberid() != self._member:
            raise Retryable("this member is no longer in its consumer group; joining again")
        return metadata

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store `offsets` of partitions still owned, and wait. Raises Retryable or Fatal."""
        owned = {at: offset for at, offset in offsets.items() if at in self._positions}
        if not owned:
            return
        self.group_metadata()
        try:
            stored = self._consumer.commit(offsets=raw_offsets(owned), asynchronous=False)
        except KafkaException as exception:
            raise fate_of(error_of(exception), "committing offsets") from exception
        for partition in stored:
            if partition.error is not None:
                raise fate_of(partition.error, f"committing {partition.topic}")
        self._errors.recovered()

    def lag(self) -> int:
        """Messages of the owned partitions not yet committed, from the last fetch of each."""
        lag = 0
        for at, position in self._positions.items():
            raw = confluent_kafka.TopicPartition(at.topic, at.partition)
            start = position.next if position.open is None else position.open
            _, high = self._consumer.get_watermark_offsets(raw, cached=True)
            if start != _UNKNOWN and high > start:
                lag += high - start
        return lag

    def waiting(self, timeout: float) -> int | None:
        """Messages of the owned partitions not handed out, by the broker's own offsets.

        None when it does not answer within `timeout` seconds. An open transaction's messages do
        not count: a read_committed consumer is told the last stable offset.
        """
        deadline = self._clock.monotonic() + timeout
        waiting = 0
        try:
            for at, position in self._positions.items():
                raw = confluent_kafka.TopicPartition(at.topic, at.partition)
                left = deadline - self._clock.monotonic()
                if left <= 0:
                    return None
                low, high = self._consumer.get_watermark_offsets(raw, timeout=left, cached=False)
                start = position.next
                if start == _UNKNOWN:  # nothing came of this partition since it was assigned
                    left = max(_SHORTEST_ASK, deadline - self._clock.monotonic())
                    stored = self._consumer.committed([raw], timeout=left)[0].offset
                    start = stored if stored >= 0 else low
                waiting += max(0, high - max(start, low))
        except KafkaException as exception:
            logger.debug("the broker does not say what waits: %s", exception)
            return None
        return waiting

    def close(self) -> None:
        close_client(self._consumer.close)

    def _next(self, wait: float) -> confluent_kafka.Message | None:
        try:
            with serving():
                raw = self._consumer.poll(wait)
        except KafkaException as exception:
            # Whatever its kind: what this poll has taken would never be handed out, and the next
            # commit would pass it over.
            raise Fatal(f"reading: {error_of(exception).str()}") from exception
        self._errors.raise_fatal()
        return raw

    def _take(self, raw: confluent_kafka.Message) -> None:
        error = raw.error()
        if error is None:
            message = to_message(raw)
            position = self._positions.get(TopicPartition(message.topic, message.partition))
            if position is not None:
                self._filling.append(message)
                position.next = message.offset + 1
        elif error.code() == KafkaError._PARTITION_EOF:
            # Past the transaction markers, which are no messages but have offsets.
            position = self._positions.get(TopicPartition(str(raw.topic()), raw.partition() or 0))
            if position is not None:
                position.next = raw.offset() or 0
        elif is_fatal(error):
            raise fate_of(error, f"reading {raw.topic() or 'from Kafka'}")
        else:
            self._errors(error)

    def _assigned(
        self, consumer: Consumer, partitions: Iterable[confluent_kafka.TopicPartition]
    ) -> None:
        self._member = consumer.memberid() or None
        added = [TopicPartition(p.topic, p.partition) for p in partitions]
        self._positions.update({at: _Position() for at in added})
        logger.info("assigned %s", _listed(added), extra={"member": self._member})

    def _revoked(
        self, consumer: Consumer, partitions: Iterable[confluent_kafka.TopicPartition]
    ) -> None:
        self._leaving()
        gone = {TopicPartition(p.topic, p.partition) for p in partitions}
        for at in gone:
            position = self._positions.pop(at, None)
            self._torn = self._torn or (position is not None and position.open is not None)
        self._filling = [m for m in self._filling if (m.topic, m.partition) not in gone]
        logger.info("gave up %s", _listed(gone), extra={"member": self._member})

    def _lost(
        self, consumer: Consumer, partitions: Iterable[confluent_kafka.TopicPartition]
    ) -> None:
        logger.warning("lost the membership of the consumer group; joining again")
        self._revoked(consumer, partitions)
        self._member = None


def raw_offsets(offsets: Mapping[TopicPartition, int]) -> list[confluent_kafka.TopicPartition]:
    return [
        confluent_kafka.TopicPartition(at.topic, at.partition, offset)
        for at, offset in sorted(offsets.items())
    ]


def to_message(raw: confluent_kafka.Message) -> Message:
    """librdkafka's message as ours; a tombstone's value is b"". One with a header whose name is no
    UTF-8 has none."""
    return Message(
        topic=str(raw.topic()),
        partition=int(raw.partition() or 0),
        offset=int(raw.offset() or 0),
        key=raw.key(),
        value=raw.value() or b"",
        headers=tuple((name, _bytes(value)) for name, value in _pairs(_headers(raw))),
        timestamp_ms=max(0, raw.timestamp()[1]),
    )


def _headers(raw: confluent_kafka.Message) -> Any:
    """Kafka takes any bytes for a header's name, the binding UTF-8 alone: it then raises, for this
    message as often as it is read, and what it hands out when asked again is not whole."""
    try:
        return raw.headers()
    except SystemError as wrapper:
        if not isinstance(wrapper.__cause__, UnicodeDecodeError):
            raise
        logger.warning(
            "headers of %s[%s] at %s left out: a name is no UTF-8",
            raw.topic(), raw.partition(), raw.offset(),
        )  # fmt: skip
        return None


def _pairs(headers: Any) -> Iterable[tuple[str, str | bytes | None]]:
    if headers is None:
        return ()
    pairs: Iterable[tuple[str, str | bytes | None]] = (
        headers.items() if isinstance(headers, dict) else headers
    )
    return pairs


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _listed(partitions: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{at.topic}[{at.partition}]" for at in sorted(partitions)) or "nothing"
