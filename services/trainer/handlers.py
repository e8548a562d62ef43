"""Collect traces into windows, store the windows that close, and say which refits are due.

The order of side effects, obeyed everywhere: store the window, then release its offsets, then
refit. A crash in between repeats work; it loses none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Protocol

from shared.admitting import admitted
from shared.bus.base import Message, Record, TopicPartition
from shared.bus.errors import InvalidMessage
from shared.clock import Clock
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.core.window import OffsetBook, WindowBook, WindowKey
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Watch = Callable[[Trace, int, int], None]
DeadLetter = Callable[[Message, InvalidMessage], Record]


class Store(Protocol):
    def write(
        self, task: str, day: date, traces: Iterable[Trace], offsets: Mapping[int, int]
    ) -> int: ...


@dataclass
class Collector:
    """The open windows of all tasks, in memory until they close; texts as the task has them
    redacted, so that nothing else is ever stored or learned.

    `rejected` are dead letters not yet published; what they came from is not released before.
    `accepted` is told of each message that is none; `watch` is shown every trace with its partition
    and offset.
    """

    tasks: Mapping[str, Task]
    store: Store
    windows: WindowBook
    clock: Clock
    dead_letter: DeadLetter
    accepted: Callable[[Message], None] = lambda message: None
    watch: Watch = lambda trace, partition, offset: None
    rejected: list[Record] = field(default_factory=list)
    _offsets: OffsetBook = field(default_factory=OffsetBook)
    _held: dict[WindowKey, dict[str, Trace]] = field(default_factory=dict)
    _reach: dict[WindowKey, dict[int, int]] = field(default_factory=dict)  # next offsets

    def add(self, messages: Sequence[Message], assigned: Iterable[int]) -> None:
        """Put traces in their windows, and those that fit none among the rejected."""
        partitions = sorted(set(assigned))
        for message in messages:
            key = None
            try:
                trace = self._decode(message)
            except InvalidMessage as error:
                self.rejected.append(self.dead_letter(message, error))
            else:
                self.accepted(message)
                key, _ = self.windows.add(
                    trace.task, trace.occurred_at, partition=message.partition,
                    assigned=partitions, now=self.clock.monotonic(),
                )  # fmt: skip
                # A rebalance reads again what is held already.
                self._held.setdefault(key, {}).setdefault(trace.id, trace)
                reach = self._reach.setdefault(key, {})
                reach[message.partition] = max(reach.get(message.partition, 0), message.offset + 1)
                self.watch(trace, message.partition, message.offset)
            self._offsets.read(message.partition, message.offset, key)
        self._count_held()

    def close_due(self) -> Iterator[WindowKey]:
        """Store the windows that are due, oldest first; yields those that call for a refit, each
        as soon as it is stored.

        Late traces of a window closed before are stored with it and count from the next refit. A
        window that cannot be stored holds up no other; the first one's OSError is raised when they
        are through.
        """
        failure: OSError | None = None
        for key in self.windows.due(self.clock.monotonic(), self.clock.now()):
            traces = self._held.get(key, {})
            reach = self._reach.get(key, {})
            try:
                added = self.store.write(key.task, key.day, traces.values(), reach)
            except OSError as error:
                log.warning("window not stored: %s", error, extra={"task": key.task})
                failure = failure or error
                continue
            self._held.pop(key, None)
            self._reach.pop(key, None)
            new = self.windows.close(key)
            self._offsets.stored(key)
            self._count_held()
            log.info(
                "window closed",
                extra={"task": key.task, "window": key.day.isoformat(), "traces": added,
                       "read": len(traces), "late": not new},
            )  # fmt: skip
            if new:
                metrics.WINDOWS_CLOSED.labels(key.task).inc()
                yield key
            else:
                metrics.TRACES_LATE.labels(key.task).inc(added)
        if failure is not None:
            raise failure

    def committable(self, topic: str) -> dict[TopicPartition, int]:
        """The next offset to read after a restart; nothing while dead letters are unpublished."""
        if self.rejected:
            return {}
        return {TopicPartition(topic, p): o for p, o in self._offsets.committable().items()}

    def _count_held(self) -> None:
        metrics.TRACES_HELD.set(sum(map(len, self._held.values())))

    def _decode(self, message: Message) -> Trace:
        try:
            trace = decode(message.value, Trace)
        except InvalidEvent as error:
            raise InvalidMessage(str(error), field=error.field) from error
        if trace.task not in self.tasks:
            known = ", ".join(sorted(self.tasks)) or "none"
            raise InvalidMessage(f"unknown task {trace.task!r}; known: {known}", field="task")
        return admitted(trace, self.tasks[trace.task].redact)
