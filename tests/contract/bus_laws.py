"""The laws every bus keeps, in memory or on Kafka."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import ClassVar
from uuid import uuid4

import pytest

from shared.bus.base import Message, Pipe, Publisher, Record, Source, TopicPartition
from shared.bus.errors import Retryable

PATIENCE = 20.0
MISSING = "no-such-topic"


class BusLaws(ABC):
    """Subclass with a way to open things and to die; every test has topics of its own."""

    exactly_once: ClassVar[bool]

    @abstractmethod
    def make_topic(self, partitions: int) -> str: ...

    @abstractmethod
    def make_pipe(self, group: str, topic: str, member: str) -> Pipe:
        """A pipe of `group`; `member` is who it is over its restarts."""

    @abstractmethod
    def make_source(self, group: str, topic: str) -> Source: ...

    @abstractmethod
    def make_publisher(self) -> Publisher: ...

    @abstractmethod
    def read(self, topic: str) -> list[Message]:
        """Everything a read_committed reader sees now, in order within each partition."""

    @abstractmethod
    def crash(self, pipe: Pipe) -> None:
        """The process of `pipe` dies, committing nothing."""

    @abstractmethod
    def crash_after_publishing(self, pipe: Pipe, records: Sequence[Record]) -> None:
        """Commit `records`, dying when they are published and the commit is not done."""

    # --- fixtures

    @pytest.fixture(autouse=True)
    def _closing(self) -> Iterator[None]:
        self._opened: list[Pipe | Source | Publisher] = []
        yield
        for opened in self._opened:
            opened.close()

    @pytest.fixture
    def group(self) -> str:
        return f"group-{uuid4().hex[:12]}"

    @pytest.fixture
    def topic(self) -> str:
        return self.make_topic(1)

    @pytest.fixture
    def wide(self) -> str:
        return self.make_topic(4)

    @pytest.fixture
    def out(self) -> str:
        return self.make_topic(2)

    def open(self, group: str, topic: str, member: str = "a") -> Pipe:
        pipe = self.make_pipe(group, topic, member)
        self._opened.append(pipe)
        return pipe

    def publish(self, records: Sequence[Record]) -> None:
        publisher = self.make_publisher()
        publisher.publish(records)
        publisher.close()

    def seen_as_promised(self, topic: str, values: Sequence[bytes]) -> None:
        """Every value is there: once and alone, or where only that is promised at least once."""
        counts = Counter(message.value for message in self.read(topic))
        if self.exactly_once:
            assert counts == Counter(values)
        else:
            assert counts >= Counter(values)

    # --- order and content

    def test_bytes_keys_and_headers_pass_unchanged(self, topic: str, group: str) -> None:
        sent = [
            Record(
                topic, b"\x00\xff", bytes(range(256)), (("h", b"\x00"), ("h", b"2"), ("e", b""))
            ),
            Record(topic, None, b"unkeyed"),
            Record(topic, b"", b""),
        ]
        self.publish(sent)
        got = collect(self.open(group, topic), 3)
        assert [Record(m.topic, m.key, m.value, m.headers) for m in got] == sent
        assert [m.offset for m in got] == [0, 1, 2]
        assert all(m.timestamp_ms > 0 for m in got)

    def test_a_pipe_publishes_bytes_keys_and_headers_unchanged(
        self, topic: str, out: str, group: str
    ) -> None:
        sent = Record(out, b"\x00\xff", bytes(range(256)), (("h", b"\x00"), ("h", b"2")))
        self.open(group, topic).commit([sent])
        (got,) = self.read(out)
        assert Record(got.topic, got.key, got.value, got.headers) == sent

    def test_a_key_stays_in_order(self, wide: str, out: str, group: str) -> None:
        values = numbered(200)
        self.publish([Record(wide, value[-1:], value) for value in values])
        copy_all(self.open(group, wide), out, len(values))
        got = self.read(out)
        for key in {value[-1:] for value in values}:
            of_key = [m for m in got if m.key == key]
            assert [m.value for m in of_key] == [v for v in values if v[-1:] == key]
            assert len({m.partition for m in of_key}) == 1

    def test_a_record_goes_to_the_partition_it_names(self, wide: str, out: str, group: str) -> None:
        self.publish([Record(wide, key, b"v", (), 2) for key in (b"a", b"b", b"c", None, None)])
        assert {m.partition for m in self.read(wide)} == {2}
        pipe = self.open(group, wide)
        pipe.commit([Record(out, m.key, m.value, (), 1) for m in collect(pipe, 5)])
        assert [m.partition for m in self.read(out)] == [1] * 5

    def test_a_poll_returns_no_more_than_asked_for(self, topic: str, group: str) -> None:
        self.publish([Record(topic, b"k", value) for value in numbered(10)])
        pipe = self.open(group, topic)
        sizes, left = [], 10
        while left:
            sizes.append(len(pipe.poll(3, 1.0)))
            left -= sizes[-1]
        assert max(sizes) <= 3

    def test_a_poll_of_nothing_ends_in_time(self, topic: str, group: str) -> None:
        pipe = self.open(group, topic)
        pipe.poll(1, 1.0)
        before = time.monotonic()
        assert pipe.poll(10, 0.2) == []
        assert time.monotonic() - before < 1.0

    # --- commits

    def test_what_is_committed_is_not_delivered_again(self, topic: str, group: str) -> None:
        self.publish([Record(topic, b"k", value) for value in numbered(5)])
        pipe = self.open(group, topic)
        collect(pipe, 5)
        pipe.commit([])
        pipe.close()
        self.publish([Record(topic, b"k", b"marker")])
        assert [m.value for m in collect(self.open(group, topic), 1)] == [b"marker"]

    def test_a_group_does_not_disturb_another(self, topic: str, group: str) -> None:
        self.publish([Record(topic, b"k", value) for value in numbered(5)])
        pipe = self.open(group, topic)
        collect(pipe, 5)
        pipe.commit([])
        other = self.open(f"{group}-other", topic, member="other")
        assert [m.value for m in collect(other, 5)] == numbered(5)

    def test_commits_without_messages_or_records_do_nothing(
        self, topic: str, out: str, group: str
    ) -> None:
        pipe = self.open(group, topic)
        pipe.commit([])
        pipe.commit([Record(out, b"k", b"records alone")])
        pipe.commit([])
        assert [m.value for m in self.read(out)] == [b"records alone"]

    def test_after_a_failed_commit_the_same_messages_come_again(
        self, wide: str, out: str, group: str
    ) -> None:
        values = numbered(20)
        self.publish([Record(wide, value, value) for value in values])
        pipe = self.open(group, wide)
        copy_all(pipe, out, 8, batch=8)
        before = collect(pipe, 12)
        with pytest.raises(Retryable, match=MISSING):
            pipe.commit([Record(MISSING, b"k", b"lost"), Record(out, b"k", b"lost too")])
        again = collect(pipe, 12)
        assert by_partition(again) == by_partition(before)
        pipe.commit([copy(message, out) for message in again])
        self.seen_as_promised(out, values)

    def test_a_commit_in_flight_covers_what_was_polled_before_it(
        self, wide: str, out: str, group: str
    ) -> None:
        values = numbered(30)
        self.publish([Record(wide, value, value) for value in values])
        pipe = self.open(group, wide)
        first = collect(pipe, 10)
        pipe.begin_commit([copy(message, out) for message in first])
        collect(pipe, 10)
        until(lambda: pipe.settled(0.5))
        assert pipe.lag() >= 10  # the second ten; of the third as far as they are fetched
        self.seen_as_promised(out, [m.value for m in first])
        self.crash(pipe)
        successor = self.open(group, wide)
        copy_all(successor, out, 20)
        self.seen_as_promised(out, values)

    def test_commits_follow_each_other_in_flight(self, topic: str, out: str, group: str) -> None:
        values = numbered(40)
        self.publish([Record(topic, b"k", value) for value in values])
        pipe = self.open(group, topic)
        for _ in range(4):
            pipe.begin_commit([copy(message, out) for message in collect(pipe, 10)])
        until(lambda: pipe.settled(0.5))
        assert pipe.lag() == 0
        assert [m.value for m in self.read(out)] == values

    def test_a_commit_in_flight_lands_while_polls_follow_each_other(
        self, topic: str, out: str, group: str
    ) -> None:
        pipe = self.open(group, topic)
        for value in numbered(5):
            self.publish([Record(topic, b"k", value)])
            pipe.begin_commit([copy(message, out) for message in collect(pipe, 1)])
            until(lambda: pipe.poll(1, 0.05) == [] and pipe.settled(0.0))
        assert pipe.lag() == 0
        assert [m.value for m in self.read(out)] == numbered(5)

    def test_when_a_commit_in_flight_fails_what_was_polled_after_it_comes_again_too(
        self, wide: str, out: str, group: str
    ) -> None:
        values = numbered(20)
        self.publish([Record(wide, value, value) for value in values])
        pipe = self.open(group, wide)
        before = collect(pipe, 8)
        pipe.begin_commit([Record(MISSING, b"k", b"lost"), Record(out, b"k", b"lost too")])
        before += collect(pipe, 12)
        with pytest.raises(Retryable, match=MISSING):
            until(lambda: pipe.settled(0.5))
        again = collect(pipe, 20)
        assert by_partition(again) == by_partition(before)
        pipe.commit([copy(message, out) for message in again])
        self.seen_as_promised(out, values)

    def test_what_waits_is_what_was_not_handed_out(self, topic: str, group: str) -> None:
        pipe = self.open(group, topic)
        self.publish([Record(topic, b"k", b"first")])
        collect(pipe, 1)  # so it has the partition
        pipe.commit([])
        assert pipe.waiting(5.0) == 0
        self.publish([Record(topic, b"k", value) for value in numbered(5)])
        assert pipe.waiting(5.0) == 5  # not polled since, so only the broker knows of them
        collect(pipe, 5)
        assert pipe.waiting(5.0) == 0
        assert pipe.lag() == 5

    def test_lag_falls_to_zero(self, topic: str, out: str, group: str) -> None:
        self.publish([Record(topic, b"k", value) for value in numbered(10)])
        first = self.open(group, topic)
        collect(first, 10)
        assert first.lag() == 10
        first.commit([Record(out, b"k", b"one"), Record(out, b"k", b"two")])
        assert first.lag() == 0
        # What `out` holds was written by the pipe: transaction markers are no lag.
        second = self.open(f"{group}-second", out, member="second")
        collect(second, 2)
        second.commit([])
        until(lambda: second.poll(1, 0.1) == [] and second.lag() == 0)

    # --- death

    def test_what_is_uncommitted_comes_again_after_a_crash(
        self, topic: str, out: str, group: str
    ) -> None:
        values = numbered(10)
        self.publish([Record(topic, b"k", value) for value in values])
        pipe = self.open(group, topic)
        copy_all(pipe, out, 4, batch=4)
        collect(pipe, 6)
        self.crash(pipe)
        successor = self.open(group, topic)
        assert [m.value for m in collect(successor, 6)] == values[4:]

    def test_records_and_offsets_are_stored_together(
        self, topic: str, out: str, group: str
    ) -> None:
        values = numbered(10)
        self.publish([Record(topic, b"k", value) for value in values])
        pipe = self.open(group, topic)
        copy_all(pipe, out, 4, batch=4)
        batch = collect(pipe, 6)
        self.crash_after_publishing(pipe, [copy(message, out) for message in batch])
        if self.exactly_once:
            assert [m.value for m in self.read(out)] == values[:4]
        successor = self.open(group, topic)
        copy_all(successor, out, 6)
        self.seen_as_promised(out, values)

    # --- several members

    def test_two_members_share_and_one_hands_over(self, wide: str, out: str, group: str) -> None:
        sent: list[bytes] = []
        first = self.open(group, wide)
        shares = self.rounds(sent, wide, out, [first], until=lambda by: len(by[0]) == 4)
        assert shares == [{0, 1, 2, 3}]

        second = self.open(group, wide, member="b")
        shares = self.rounds(
            sent, wide, out, [first, second], until=lambda by: len(by[0]) == len(by[1]) == 2
        )
        assert shares[0] | shares[1] == {0, 1, 2, 3}

        second.close()
        shares = self.rounds(sent, wide, out, [first], until=lambda by: len(by[0]) == 4)
        assert shares == [{0, 1, 2, 3}]
        self.seen_as_promised(out, sent)

    def test_work_on_partitions_that_moved_away_is_not_doubled(
        self, wide: str, out: str, group: str
    ) -> None:
        values = numbered(40)
        self.publish([Record(wide, value, value) for value in values])
        first = self.open(group, wide)
        held = collect(first, 40)
        second = self.open(group, wide, member="b")
        taken: list[Message] = []

        def second_has_its_share() -> bool:
            held.extend(first.poll(100, 0.05))
            taken.extend(second.poll(100, 0.05))
            return len({m.partition for m in taken}) == 2

        until(second_has_its_share)
        if self.exactly_once:
            with pytest.raises(Retryable):
                first.commit([copy(message, out) for message in held])
        else:
            first.commit([copy(message, out) for message in held])
        second.commit([copy(message, out) for message in taken])

        def all_done() -> bool:
            step(first, out)
            step(second, out)
            return {m.value for m in self.read(out)} == set(values)

        until(all_done)
        self.seen_as_promised(out, values)

    def test_partitions_are_handed_over_with_commits_in_flight(
        self, wide: str, out: str, group: str
    ) -> None:
        sent: list[bytes] = []
        first = self.open(group, wide)
        members, shared = [first], False

        def all_done() -> bool:
            nonlocal shared
            if not shared:
                values = [f"{len(sent) + i:05}".encode() for i in range(20)]
                sent.extend(values)
                self.publish([Record(wide, value, value) for value in values])
            for member in members:
                with suppress(Retryable):
                    shared = (begin(member, out) > 0 and member is not first) or shared
            if len(members) == 1:
                members.append(self.open(group, wide, member="b"))
            return shared and {m.value for m in self.read(out)} == set(sent)

        until(all_done)
        self.seen_as_promised(out, sent)

    def rounds(
        self,
        sent: list[bytes],
        topic: str,
        out: str,
        members: list[Pipe],
        until: Callable[[list[set[int]]], bool],
    ) -> list[set[int]]:
        """Publish and copy round after round; the partitions of each member in the last one."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            values = [f"{len(sent) + i:05}".encode() for i in range(32)]
            sent += values
            self.publish([Record(topic, value, value) for value in values])
            shares: list[set[int]] = [set() for _ in members]
            left = set(values)
            while left and time.monotonic() < deadline:
                for share, member in zip(shares, members, strict=True):
                    done = step(member, out)
                    share |= {m.partition for m in done}
                    left -= {m.value for m in done}
            if until(shares):
                return shares
        pytest.fail(f"not shared out in {PATIENCE} s: {shares}")

    # --- source and publisher

    def test_a_source_goes_on_where_its_caller_committed(self, topic: str, group: str) -> None:
        self.publish([Record(topic, b"k", value) for value in numbered(10)])
        source = self.make_source(group, topic)
        assert source.assigned() == frozenset()
        collect(source, 10)
        at = TopicPartition(topic, 0)
        assert source.assigned() == {at}
        source.commit({at: 7, TopicPartition(topic, 99): 5})
        source.close()
        successor = self.make_source(group, topic)
        self._opened.append(successor)
        assert [m.offset for m in collect(successor, 3)] == [7, 8, 9]

    def test_a_publisher_says_what_was_not_delivered(self) -> None:
        publisher = self.make_publisher()
        self._opened.append(publisher)
        with pytest.raises(Retryable, match=MISSING):
            publisher.publish([Record(MISSING, b"k", b"v")])


def numbered(count: int) -> list[bytes]:
    return [f"{i:05}".encode() for i in range(count)]


def copy(message: Message, topic: str) -> Record:
    return Record(topic, message.key, message.value, message.headers)


def collect(reader: Pipe | Source, count: int) -> list[Message]:
    """Poll, committing nothing, until there are `count` messages."""
    got: list[Message] = []

    def done() -> bool:
        got.extend(reader.poll(count - len(got), 0.5))
        return len(got) == count

    until(done)
    return got


def step(pipe: Pipe, out: str) -> list[Message]:
    """One turn of a copying loop: what was copied and committed, nothing when it is to repeat."""
    messages = pipe.poll(100, 0.05)
    with suppress(Retryable):
        if messages:
            pipe.commit([copy(message, out) for message in messages])
        return messages
    return []


def begin(pipe: Pipe, out: str) -> int:
    """One turn of a loop that polls and copies while the commit before is in flight; how many."""
    messages = pipe.poll(5, 0.02)
    if messages or pipe.settled(0.0):
        pipe.begin_commit([copy(message, out) for message in messages])
    return len(messages)


def copy_all(pipe: Pipe, out: str, count: int, *, batch: int = 100) -> None:
    """Copy `count` messages to `out`, committing after each batch."""
    left = count

    def done() -> bool:
        nonlocal left
        messages = pipe.poll(min(batch, left), 0.5)
        pipe.commit([copy(message, out) for message in messages])
        left -= len(messages)
        return left == 0

    until(done)


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"not done in {PATIENCE} s"


def by_partition(messages: Sequence[Message]) -> dict[int, list[tuple[int, bytes]]]:
    logs: dict[int, list[tuple[int, bytes]]] = {}
    for message in messages:
        logs.setdefault(message.partition, []).append((message.offset, message.value))
    return logs
