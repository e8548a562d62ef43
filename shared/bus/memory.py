"""The bus in memory: the ports of `shared.bus.base` over a MemoryBroker.

`crash_next_commit` kills a pipe at a chosen point, to prove what its successor gets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Literal

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Fatal, Retryable
from shared.bus.memory_broker import MemoryBroker

_NOT_POLLED = -1


class CrashPoint(Enum):
    """Where in a commit the process dies.

    AFTER_PUBLISH lies before the offsets in an at-least-once pipe; in an exactly-once pipe, where
    records and offsets are one step, after both.
    """

    BEFORE_PUBLISH = auto()
    AFTER_PUBLISH = auto()


class Crash(Exception):
    """The death of a process, as a test sees it. Nothing should catch it but the test."""


class _Member:
    """One member of a group: its partitions, positions and what it has not committed."""

    def __init__(self, broker: MemoryBroker, group: str, topics: Sequence[str]) -> None:
        self.broker = broker
        self.group = group
        self._alive = True
        self._id = broker.join(group, topics)
        self.generation = _NOT_POLLED
        self._committed: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        self.torn = False

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        self._must_live()
        self.sync()
        if timeout > 0:
            self.broker.wait(self.group, self.generation, self.positions, timeout)
            self.sync()
        batch: list[Message] = []
        for at in list(self.positions):
            found = self.broker.read(at, self.positions[at], max_messages - len(batch))
            batch += found
            if found:
                # To the end of the order, so that a busy partition starves no other.
                self.positions[at] = self.positions.pop(at) + len(found)
        return batch

    def uncommitted(self) -> dict[TopicPartition, int]:
        return {
            at: offset for at, offset in self.positions.items() if offset != self._committed[at]
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        self._committed.update(self.owned(offsets))

    def rewind(self) -> None:
        self.positions = dict(self._committed)
        self.torn = False

    def owned(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {at: offset for at, offset in offsets.items() if at in self.positions}

    def lag(self) -> int:
        return self.broker.behind(self._committed)

    def waiting(self) -> int:
        return self.broker.behind(self.positions)

    def leave(self) -> None:
        self._alive = False
        self.broker.leave(self.group, self._id)

    def sync(self) -> None:
        """Take note of a rebalance: what was uncommitted will be handed out again."""
        if self.broker.generation(self.group) == self.generation:
            return
        self.torn = self.torn or bool(self.uncommitted())
        self.generation, self._committed = self.broker.assignment(self.group, self._id)
        self.positions = dict(self._committed)

    def _must_live(self) -> None:
        if not self._alive:
            raise Fatal("this member has left its group")


class MemoryPipe:
    """A pipe over a MemoryBroker, exactly once unless told otherwise."""

    def __init__(
        self,
        broker: MemoryBroker,
        *,
        group: str,
        topics: Sequence[str],
        delivery: Literal["exactly_once", "at_least_once"] = "exactly_once",
    ) -> None:
        self._broker = broker
        self._exactly_once = delivery == "exactly_once"
        self._member = _Member(broker, group, topics)
        self._crash: CrashPoint | None = None
        self._flight: tuple[Sequence[Record], Mapping[TopicPartition, int]] | None = None

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        return self._member.poll(max_messages, timeout)

    def begin_commit(self, records: Sequence[Record]) -> None:
        self.settled(0.0)
        offsets = self._member.uncommitted()
        if records or offsets or self._member.torn:
            self._flight = records, offsets

    def settled(self, timeout: float) -> bool:
        """Does what is in flight: here is nobody else to do it meanwhile."""
        if self._flight is not None:
            (records, offsets), self._flight = self._flight, None
            self._commit(records, offsets)
        return True

    def commit(self, records: Sequence[Record]) -> None:
        self.begin_commit(records)
        self.settled(0.0)

    def lag(self) -> int:
        return self._member.lag()

    def waiting(self, timeout: float) -> int | None:
        return self._member.waiting()

    def close(self) -> None:
        self._member.leave()

    def crash_next_commit(self, point: CrashPoint) -> None:
        """The next commit that has anything to do raises Crash there; the member is gone then."""
        self._crash = point

    def _commit(self, records: Sequence[Record], offsets: Mapping[TopicPartition, int]) -> None:
        member = self._member
        self._crash_at(CrashPoint.BEFORE_PUBLISH)
        try:
            if self._exactly_once:
                if member.torn:
                    raise Retryable("partitions moved away while their messages were in work")
                self._broker.commit(member.group, member.generation, offsets, records)
                self._crash_at(CrashPoint.AFTER_PUBLISH)
            else:
                self._broker.publish(records)
                self._crash_at(CrashPoint.AFTER_PUBLISH)
                self._broker.commit(member.group, member.generation, offsets)
        except Retryable:
            member.rewind()
            raise
        member.committed(offsets)

    def _crash_at(self, point: CrashPoint) -> None:
        if self._crash is point:
            self._member.leave()
            raise Crash(point.name)


class MemorySource:
    """A source over a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, *, group: str, topics: Sequence[str]) -> None:
        self._member = _Member(broker, group, topics)

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        return self._member.poll(max_messages, timeout)

    def assigned(self) -> frozenset[TopicPartition]:
        """As of the last poll."""
        return frozenset(self._member.positions)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        member = self._member
        member.sync()
        member.broker.commit(member.group, member.generation, member.owned(offsets))

    def close(self) -> None:
        self._member.leave()


class MemoryPublisher:
    """A publisher over a MemoryBroker."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def publish(self, records: Sequence[Record]) -> None:
        self._broker.publish(records)

    def close(self) -> None:
        """Nothing to let go of."""
