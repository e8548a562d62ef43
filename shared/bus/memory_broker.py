"""A broker in memory: topics, partitions, consumer groups with generations and commits.

A double for tests and offline runs, held to the same laws as Kafka (tests/contract/bus_laws.py).
Rebalances are eager: whoever joins or leaves starts a new generation, and what a member had not
committed in the old one is handed out again.
"""

from __future__ import annotations

import itertools
import threading
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import Retryable
from shared.clock import Clock, SystemClock


@dataclass(slots=True)
class _Group:
    generation: int = 0
    members: dict[int, tuple[str, ...]] = field(default_factory=dict)
    committed: dict[TopicPartition, int] = field(default_factory=dict)


class MemoryBroker:
    """Thread-safe. Topics must be created; records for unknown ones raise Retryable."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._changed = threading.Condition()
        self._topics: dict[str, list[list[Message]]] = {}
        self._groups: dict[str, _Group] = {}
        self._member_ids = itertools.count(1)
        self._unkeyed = itertools.count()

    def create_topic(self, name: str, partitions: int = 1) -> None:
        with self._changed:
            if name not in self._topics:
                self._topics[name] = [[] for _ in range(partitions)]
                for group in self._groups.values():
                    group.generation += 1
            self._changed.notify_all()

    def publish(self, records: Iterable[Record]) -> None:
        """Append all records or none. Raises Retryable when a topic does not exist."""
        with self._changed:
            self._append(list(records))

    def messages(self, topic: str) -> list[Message]:
        """Everything in `topic`, partition after partition."""
        with self._changed:
            return [message for log in self._topics[topic] for message in log]

    def committed(self, group: str) -> Mapping[TopicPartition, int]:
        with self._changed:
            return dict(self._group(group).committed)

    # --- for members

    def join(self, group: str, topics: Sequence[str]) -> int:
        """A new member's id; everyone in the group is assigned anew."""
        with self._changed:
            member = next(self._member_ids)
            self._group(group).members[member] = tuple(topics)
            self._rebalance(group)
            return member

    def leave(self, group: str, member: int) -> None:
        with self._changed:
            if self._group(group).members.pop(member, None) is not None:
                self._rebalance(group)

    def assignment(self, group: str, member: int) -> tuple[int, dict[TopicPartition, int]]:
        """The generation, and the committed offset of each partition the member now owns."""
        with self._changed:
            state = self._group(group)
            owned = [
                at
                for topic in sorted({t for topics in state.members.values() for t in topics})
                for at in self._dealt(state, topic).get(member, [])
            ]
            return state.generation, {at: state.committed.get(at, 0) for at in owned}

    def generation(self, group: str) -> int:
        with self._changed:
            return self._group(group).generation

    def wait(
        self,
        group: str,
        generation: int,
        positions: Mapping[TopicPartition, int],
        timeout: float,
    ) -> None:
        """Block until there is something past `positions`, or another generation, or `timeout`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.generation(group) != generation or self.behind(positions) > 0,
                timeout,
            )

    def read(self, at: TopicPartition, offset: int, limit: int) -> list[Message]:
        with self._changed:
            return self._topics[at.topic][at.partition][offset : offset + limit]

    def behind(self, positions: Mapping[TopicPartition, int]) -> int:
        """Messages at or past `positions`."""
        with self._changed:
            return sum(
                len(self._topics[at.topic][at.partition]) - offset
                for at, offset in positions.items()
            )

    def commit(
        self,
        group: str,
        generation: int,
        offsets: Mapping[TopicPartition, int],
        records: Collection[Record] = (),
    ) -> None:
        """Append `records` and store `offsets`, both or neither.

        Raises Retryable when the offsets are of another generation than the group's.
        """
        with self._changed:
            state = self._group(group)
            if offsets and state.generation != generation:
                raise Retryable(f"group {group} was rebalanced")
            self._append(list(records))
            state.committed.update(offsets)

    def _append(self, records: list[Record]) -> None:
        unknown = sorted({record.topic for record in records} - self._topics.keys())
        if unknown:
            raise Retryable(f"no such topic: {', '.join(unknown)}")
        now = int(self._clock.now().timestamp() * 1000)
        for record in records:
            logs = self._topics[record.topic]
            partition = record.partition
            if partition is None:
                spread = next(self._unkeyed) if record.key is None else zlib.crc32(record.key)
                partition = spread % len(logs)
            logs[partition].append(
                Message(
                    topic=record.topic,
                    partition=partition,
                    offset=len(logs[partition]),
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    timestamp_ms=now,
                )
            )
        self._changed.notify_all()

    def _group(self, name: str) -> _Group:
        return self._groups.setdefault(name, _Group())

    def _rebalance(self, group: str) -> None:
        self._group(group).generation += 1
        self._changed.notify_all()

    def _dealt(self, state: _Group, topic: str) -> dict[int, list[TopicPartition]]:
        """The partitions of `topic`, dealt in turn to the members that read it."""
        readers = [member for member, topics in sorted(state.members.items()) if topic in topics]
        hands: dict[int, list[TopicPartition]] = {reader: [] for reader in readers}
        for partition in range(len(self._topics.get(topic, ()))):
            hands[readers[partition % len(readers)]].append(TopicPartition(topic, partition))
        return hands
