from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import pytest

from shared.bus.base import Message, Pipe, Record
from shared.bus.errors import Fatal
from shared.bus.memory import Crash, CrashPoint, MemoryPipe, MemoryPublisher, MemorySource
from shared.bus.memory_broker import MemoryBroker
from tests.contract.bus_laws import BusLaws


class _MemoryLaws(BusLaws):
    @pytest.fixture(autouse=True)
    def _broker(self) -> None:
        self.broker = MemoryBroker()

    def make_topic(self, partitions: int) -> str:
        name = f"topic-{uuid4().hex[:12]}"
        self.broker.create_topic(name, partitions)
        return name

    def make_pipe(self, group: str, topic: str, member: str) -> MemoryPipe:
        return MemoryPipe(
            self.broker,
            group=group,
            topics=[topic],
            delivery="exactly_once" if self.exactly_once else "at_least_once",
        )

    def make_source(self, group: str, topic: str) -> MemorySource:
        return MemorySource(self.broker, group=group, topics=[topic])

    def make_publisher(self) -> MemoryPublisher:
        return MemoryPublisher(self.broker)

    def read(self, topic: str) -> list[Message]:
        return self.broker.messages(topic)

    def crash(self, pipe: Pipe) -> None:
        assert isinstance(pipe, MemoryPipe)
        pipe.crash_next_commit(CrashPoint.BEFORE_PUBLISH)
        with pytest.raises(Crash):
            pipe.commit([])

    def crash_after_publishing(self, pipe: Pipe, records: Sequence[Record]) -> None:
        assert isinstance(pipe, MemoryPipe)
        # In memory a transaction is one step: until it is taken, nothing has happened.
        point = CrashPoint.BEFORE_PUBLISH if self.exactly_once else CrashPoint.AFTER_PUBLISH
        pipe.crash_next_commit(point)
        with pytest.raises(Crash):
            pipe.commit(records)
        with pytest.raises(Fatal):
            pipe.poll(1, 0.0)


class TestMemoryExactlyOnce(_MemoryLaws):
    exactly_once = True


class TestMemoryAtLeastOnce(_MemoryLaws):
    exactly_once = False
