"""A range of a topic, read once from end to end by nobody's group; nothing is committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException

from shared.bus.base import Message
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka_calls import close_client
from shared.bus.kafka_config import ClientConfig, range_config
from shared.bus.kafka_errors import ErrorInbox, client_logger, error_of, fate_of, is_fatal, serving
from shared.bus.kafka_reader import to_message
from shared.clock import Clock, SystemClock

_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TopicRange:
    """Of each partition the offsets from `start` on and before `end`."""

    topic: str
    start: Mapping[int, int]
    end: Mapping[int, int]

    def __len__(self) -> int:
        """Offsets in it; messages may be fewer."""
        return sum(max(0, self.end[p] - start) for p, start in self.start.items())


class RangeReader:
    """Finds ranges and reads them: committed records only, up to the end that open transactions
    have, too, as what was committed beside them is not read before they end.

    `patience` (seconds): a broker silent for so long while more must come is away, or waits for
    a transaction.
    """

    def __init__(
        self,
        *,
        bootstrap: str,
        client_config: ClientConfig | None = None,
        patience: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        self._patience = patience
        self._clock = clock or SystemClock()
        self._errors = ErrorInbox("range reader")
        config: dict[str, Any] = range_config(bootstrap, client_config or {})
        config["error_cb"] = self._errors
        self._consumer = Consumer(config, logger=client_logger())
        # A read_committed consumer is told that a topic ends where its oldest transaction began.
        config["isolation.level"] = "read_uncommitted"
        self._asked = Consumer(config, logger=client_logger())

    def whole(self, topic: str) -> TopicRange:
        """All that is there now. Raises Retryable, or Fatal for a topic that does not exist."""
        start, end = {}, {}
        with self._asking(f"asking for the offsets of {topic}"):
            for partition in self._partitions(topic):
                at = confluent_kafka.TopicPartition(topic, partition)
                low, high = self._asked.get_watermark_offsets(at, timeout=self._patience)
                start[partition], end[partition] = low, high
        return TopicRange(topic, start, end)

    def between(self, topic: str, since: datetime | None, until: datetime | None) -> TopicRange:
        """Messages whose broker timestamp lies in [since, until), as the broker's index has it;
        None: from the first, to the last that is there now. Raises as `whole`."""
        whole = self.whole(topic)
        start, end = dict(whole.start), dict(whole.end)
        if since is not None:
            start |= self._at(whole, since)
        if until is not None:
            end |= self._at(whole, until)
        return TopicRange(topic, start, end)

    def read(self, wanted: TopicRange) -> Iterator[Message]:
        """Every message of the range once; in the order of offsets within a partition. Raises
        Retryable or Fatal; Fatal also where the beginning was deleted by the topic's retention."""
        left = {p: end for p, end in wanted.end.items() if wanted.start[p] < end}
        starts = [
            confluent_kafka.TopicPartition(wanted.topic, p, wanted.start[p]) for p in sorted(left)
        ]
        self._consumer.assign(starts)
        heard = self._clock.monotonic()
        while left:
            raw = self._poll(wanted.topic)
            if raw is None or (raw.partition() or 0) not in left:
                if self._clock.monotonic() - heard > self._patience:
                    raise Retryable(
                        f"not all of {wanted.topic} came: the broker is away, or a transaction is "
                        "open there, as a killed service leaves one for up to a minute"
                    )
                continue
            heard = self._clock.monotonic()
            partition, offset = raw.partition() or 0, raw.offset() or 0
            if raw.error() is None:
                if offset < left[partition]:
                    yield to_message(raw)
                offset += 1
            # The end of the partition has an offset, too: past transaction markers, which are no
            # messages, but before the first record of a transaction that is open.
            if offset >= left[partition]:
                del left[partition]

    def close(self) -> None:
        close_client(self._consumer.close)
        close_client(self._asked.close)

    def _poll(self, topic: str) -> confluent_kafka.Message | None:
        """A message or the end of a partition."""
        try:
            with serving():
                raw = self._consumer.poll(_POLL_SECONDS)
        except KafkaException as exception:
            raise fate_of(error_of(exception), f"reading {topic}") from exception
        self._errors.raise_fatal()
        error = raw.error() if raw is not None else None
        if error is None or error.code() == KafkaError._PARTITION_EOF:
            return raw
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise Fatal(
                f"{topic}: the range's offsets are not there any more (deleted by retention, or "
                "the topic was made anew); choose a later --from"
            )
        if is_fatal(error):
            raise fate_of(error, f"reading {topic}")
        self._errors(error)
        return None

    def _partitions(self, topic: str) -> list[int]:
        found = self._asked.list_topics(topic, timeout=self._patience).topics[topic]
        if found.error is not None or not found.partitions:
            why = found.error.str() if found.error is not None else "it has no partitions"
            raise Fatal(f"topic {topic}: {why}; is TRACER_TOPIC_PREFIX right?")
        return sorted(found.partitions)

    def _at(self, whole: TopicRange, moment: datetime) -> dict[int, int]:
        """Of each partition the first offset stamped `moment` or later, else its end."""
        stamp = round(moment.timestamp() * 1000)
        asked = [confluent_kafka.TopicPartition(whole.topic, p, stamp) for p in whole.start]
        with self._asking(f"asking {whole.topic} for offsets by time"):
            found = self._asked.offsets_for_times(asked, timeout=self._patience)
        return {
            at.partition: min(at.offset, whole.end[at.partition])
            if at.offset >= 0
            else whole.end[at.partition]
            for at in found
        }

    def _asking(self, doing: str) -> _Asking:
        return _Asking(doing)


class _Asking:
    """KafkaException from a question, as the bus's errors."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KafkaException):
            raise fate_of(error_of(error), self._doing) from error
