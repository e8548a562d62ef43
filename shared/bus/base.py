"""The bus as the services see it: messages in, records out, offsets that never run ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

Headers = tuple[tuple[str, bytes], ...]


class TopicPartition(NamedTuple):
    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Message:
    """One consumed record; `timestamp_ms` is the broker's (milliseconds since the epoch)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers = ()
    timestamp_ms: int = 0

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return len(self.key or b"") + len(self.value) + size_of(self.headers)


# The topics take 1,048,576; Kafka's own framing of a record needs the rest.
MAX_RECORD_BYTES = 1_045_000
# Of the lengths of a header's name and value, each a number of up to four bytes.
_HEADER_FRAME = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One record to produce; `partition` None: where its key belongs, without a key anywhere."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Headers = ()
    partition: int | None = None

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        return len(self.key or b"") + len(self.value) + size_of(self.headers)


def size_of(headers: Headers) -> int:
    """Bytes of the headers and, as there may be very many, of their framing."""
    return sum(len(name.encode()) + len(value) + _HEADER_FRAME for name, value in headers)


class Pipe(Protocol):
    """Consume, transform, produce: records leave and offsets advance together.

    Between two commits a pipe hands out every message at most once; after a crash, an abort or a
    rebalance it hands out again what was not committed. For one thread.
    """

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        """Up to `max_messages`, waiting at most `timeout` seconds for the first. May be empty.

        Raises Fatal when the consumer can't go on.
        """
        ...

    def begin_commit(self, records: Sequence[Record]) -> None:
        """Begin to publish `records` and to mark everything polled so far as done; in that order
        or at once. What is polled from here on belongs to the next commit.

        One commit is in flight at a time: this waits for the one before. Raises as `settled`.
        """
        ...

    def settled(self, timeout: float) -> bool:
        """Whether no commit is in flight, after waiting for its end at most `timeout` seconds.

        Raises Retryable when it failed: the pipe has rewound to the last commit that succeeded,
        and hands out again what was polled since. Or Fatal.
        """
        ...

    def commit(self, records: Sequence[Record]) -> None:
        """`begin_commit`, and wait for its end."""
        ...

    def lag(self) -> int:
        """Messages of the assigned partitions not yet committed, as last known."""
        ...

    def waiting(self, timeout: float) -> int | None:
        """Messages of the assigned partitions that were never handed out, asked of the broker.

        None when it does not answer within `timeout` seconds. For a consumer that suspects
        itself: unlike `lag`, this does not rest on what its own fetches have seen.
        """
        ...

    def close(self) -> None: ...


class Source(Protocol):
    """A consumer whose offsets the caller commits, for work that outlives a batch."""

    def poll(self, max_messages: int, timeout: float) -> list[Message]: ...

    def assigned(self) -> frozenset[TopicPartition]:
        """The partitions this consumer reads now."""
        ...

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Store the next offset to read of each partition. Raises Retryable or Fatal."""
        ...

    def close(self) -> None: ...


class Publisher(Protocol):
    """A producer that returns only when the broker has acknowledged everything."""

    def publish(self, records: Sequence[Record]) -> None:
        """Raises Retryable when a record was not delivered, or Fatal."""
        ...

    def close(self) -> None: ...
