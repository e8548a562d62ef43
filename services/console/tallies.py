"""Counting what happens to requests, by task and day, while it happens.

A page must not scan a topic. One consumer group of all consoles reads `decisions` and `traces`
once and adds to counters, which remember how far they have counted: a redelivery counts nothing
twice. The order of side effects: count, then commit.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from shared.bus.base import Message, Source, TopicPartition
from shared.bus.errors import Retryable
from shared.clock import Clock
from shared.contracts.audits import is_audit
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import MOST_DOLLARS, Decision, Trace
from shared.registry.base import RegistryError
from shared.telemetry.health import Health

log = logging.getLogger(__name__)

BATCH = 2_000
POLL_SECONDS = 0.5
RETRY_SECONDS = 1.0
FUTURE_TOLERANCE = timedelta(days=1)  # what ingest grants a trace
_FIRST_YEAR, _LAST_YEAR = 2, 9998


class Tally(NamedTuple):
    """`n` more of `field` on `day`, by the message at `offset`."""

    offset: int
    day: date
    field: str
    n: int


class TallyStore(Protocol):
    """Every method raises RegistryError when the store is away."""

    def add(self, task: str, source: TopicPartition, tallies: Sequence[Tally]) -> None:
        """Add those behind the highest offset that was added before of the task and source."""
        ...

    def days(self, tasks: Sequence[str], limit: int) -> dict[str, dict[date, dict[str, int]]]:
        """By task: the counters of its newest `limit` days."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Topics:
    decisions: str
    traces: str


@dataclass
class Counting:
    """One member of the group. `run` turns until stopped; nothing it does holds up a page."""

    source: Source
    store: TallyStore
    topics: Topics
    zones: Mapping[str, ZoneInfo]
    clock: Clock
    health: Health

    def run(self, stop: threading.Event) -> None:
        """Raises Fatal when the consumer cannot go on."""
        while not stop.is_set():
            self.health.beat()
            try:
                messages = self.source.poll(BATCH, POLL_SECONDS)
            except Retryable as error:
                log.warning("counts wait for the broker: %s", error)
                stop.wait(RETRY_SECONDS)
                continue
            if messages:
                self._count(messages, stop)

    def _count(self, messages: Sequence[Message], stop: threading.Event) -> None:
        batches = self._batches(messages)
        while not stop.is_set():
            try:
                for (task, at), tallies in batches.items():
                    self.store.add(task, at, tallies)
                self.source.commit(next_offsets(messages))
            except RegistryError as error:
                log.warning("counts wait: %s", error)
                self.health.beat()
                stop.wait(RETRY_SECONDS)
            except Retryable as error:  # counted already; a redelivery is known by its offset
                log.warning("the counts' offsets are not committed: %s", error)
                return
            else:
                return

    def _batches(
        self, messages: Sequence[Message]
    ) -> dict[tuple[str, TopicPartition], list[Tally]]:
        batches: dict[tuple[str, TopicPartition], list[Tally]] = defaultdict(list)
        for message in messages:
            event = self._event(message)
            if event is None or event.task not in self.zones:
                continue
            at = TopicPartition(message.topic, message.partition)
            zone = self.zones[event.task]
            for field, n, moment in tallies_of(event):
                # At the calendar's ends a moment has no day in some time zones.
                if _FIRST_YEAR <= moment.year <= _LAST_YEAR:
                    tally = Tally(message.offset, moment.astimezone(zone).date(), field, n)
                    batches[event.task, at].append(tally)
        return batches

    def _event(self, message: Message) -> Decision | Trace | None:
        """None for what cannot be read: other services make a dead letter of it."""
        try:
            if message.topic == self.topics.decisions:
                return decode(message.value, Decision)
            return decode(message.value, Trace)
        except InvalidEvent as error:
            log.debug("not counted: %s", error)
            return None


def tallies_of(event: Decision | Trace) -> Iterator[tuple[str, int, datetime]]:
    """Fields, how many, and when; `figures.day_of` reads them."""
    if isinstance(event, Decision):
        moment = event.occurred_at or event.decided_at
        if moment > event.decided_at + FUTURE_TOLERANCE:  # a client's clock: it would stay newest
            moment = event.decided_at
        yield f"decided|{event.outcome.value}|{event.reason.value}", 1, moment
        if event.error is not None:
            yield "failed", 1, moment
        return
    if event.cost is not None and event.cost <= MOST_DOLLARS:
        yield "priced", 1, event.occurred_at
        yield "micro_dollars", round(event.cost * 1e6), event.occurred_at
    for opinion in event.opinions:
        if opinion.version == event.version and is_audit(event, opinion):
            verdict = "agree" if opinion.label == event.teacher else "differ"
            yield f"audit|{opinion.version}|{verdict}", 1, event.occurred_at


def next_offsets(messages: Sequence[Message]) -> dict[TopicPartition, int]:
    offsets: dict[TopicPartition, int] = {}
    for message in messages:
        at = TopicPartition(message.topic, message.partition)
        offsets[at] = max(offsets.get(at, 0), message.offset + 1)
    return offsets
