"""Traces and requests in, decisions and announcements out; every decision is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shared.bus.base import Record
from shared.bus.kafka import KafkaPublisher, KafkaSource
from shared.clock import Clock
from shared.contracts.codec import decode
from shared.contracts.events import Decision, ModelAnnouncement, RawTrace
from shared.contracts.topics import Topic

T = TypeVar("T")

BATCH = 500


class TimedOut(RuntimeError):
    """What was waited for did not come; the message says what and how long."""


@dataclass
class Traffic:
    """One observer of the whole run. `check` is called while waiting and may raise."""

    publisher: KafkaPublisher
    source: KafkaSource
    prefix: str
    clock: Clock
    check: Callable[[], None]
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    announcements: list[ModelAnnouncement] = field(default_factory=list)
    dead_letters: int = 0
    priced: int = 0
    cost: float = 0.0

    def send(self, topic: Topic, events: Iterable[Mapping[str, Any]]) -> int:
        """Publish JSON events keyed by their id; returns how many."""
        records = [
            Record(f"{self.prefix}{topic}", str(e["id"]).encode(), json.dumps(e).encode())
            for e in events
        ]
        for start in range(0, len(records), BATCH):
            self.publisher.publish(records[start : start + BATCH])
        return len(records)

    def wait_for_verdict(self, task: str, window: str, timeout: float) -> ModelAnnouncement:
        """The first announcement of the window. Raises TimedOut."""

        def found() -> ModelAnnouncement | None:
            of_window = [a for a in self.announcements if a.task == task and a.window == window]
            return of_window[0] if of_window else None

        return self._wait(found, timeout, f"the verdict on window {window}")

    def wait_for_decisions(self, ids: Iterable[str], timeout: float) -> list[Decision]:
        """The first decision of each request id, in order. Raises TimedOut."""
        wanted = list(ids)

        def found() -> list[Decision] | None:
            if all(request_id in self.decisions for request_id in wanted):
                return [self.decisions[request_id][0] for request_id in wanted]
            return None

        return self._wait(found, timeout, f"the decisions on {len(wanted)} requests")

    def wait_until(self, condition: Callable[[], bool], timeout: float, what: str) -> None:
        self._wait(lambda: True if condition() else None, timeout, what)

    def settle(self, seconds: float) -> None:
        """Go on reading, so that a decision given twice would be seen."""
        end = self.clock.monotonic() + seconds
        while self.clock.monotonic() < end:
            self._read(0.2)

    def _wait(self, found: Callable[[], T | None], timeout: float, what: str) -> T:
        deadline = self.clock.monotonic() + timeout
        while (result := found()) is None:
            if self.clock.monotonic() > deadline:
                raise TimedOut(f"{what} did not come within {timeout:g} s")
            self.check()
            self._read(0.1)
        return result

    def _read(self, timeout: float) -> None:
        for message in self.source.poll(BATCH, timeout):
            topic = message.topic.removeprefix(self.prefix)
            if topic == Topic.DECISIONS:
                decision = decode(message.value, Decision)
                self.decisions.setdefault(decision.request_id, []).append(decision)
            elif topic == Topic.MODELS:
                self.announcements.append(decode(message.value, ModelAnnouncement))
            elif topic == Topic.TRACES_RAW:
                self._price(message.value)
            else:
                self.dead_letters += 1

    def mean_cost(self) -> float:
        """Dollars per call to the teacher, as its traces say; 0.0 when none said."""
        return self.cost / self.priced if self.priced else 0.0

    def _price(self, value: bytes) -> None:
        cost = decode(value, RawTrace).cost
        if cost is not None:
            self.priced += 1
            self.cost += cost
