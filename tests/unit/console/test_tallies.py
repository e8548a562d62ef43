"""Counts of a task's days: every request once, whatever is delivered twice."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from services.console.figures import Share, day_of, totals_of
from services.console.tallies import Counting, Tally, Topics, tallies_of
from services.console.tally_store import RedisTallies
from shared.bus.base import Message, TopicPartition
from shared.bus.errors import Retryable
from shared.clock import FakeClock
from shared.contracts.codec import encode
from shared.contracts.events import (
    Decision,
    Event,
    Opinion,
    Outcome,
    Reason,
    Source,
    Trace,
)
from shared.registry.base import RegistryUnavailable
from shared.telemetry.health import Health

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
DAY = date(2026, 1, 5)
AT = TopicPartition("decisions", 0)

pytestmark = pytest.mark.redis


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisTallies]:
    store = RedisTallies(redis.Redis.from_url(redis_url), max_days=3)
    yield store
    store.close()


@pytest.fixture
def task() -> str:
    return f"t-{uuid4().hex[:12]}"


def decision(task: str, n: int, **more: object) -> Decision:
    fields: dict[str, object] = {
        "request_id": f"r{n}", "task": task, "outcome": Outcome.HANDLED,
        "reason": Reason.CERTIFIED, "decided_at": NOON + timedelta(days=300), "occurred_at": NOON,
    }  # fmt: skip
    return Decision(**(fields | more))  # type: ignore[arg-type]


def trace(task: str, **more: object) -> Trace:
    fields: dict[str, object] = {
        "id": "r", "task": task, "input": "hello", "teacher": "a", "occurred_at": NOON,
        "source": Source.AUDITED, "drawn": True, "version": "v2", "cost": 0.001,
        "opinions": [
            Opinion(version="v2", label="a", handled=True),
            Opinion(version="on-trial", label="b", handled=True),
        ],
    }  # fmt: skip
    return Trace(**(fields | more))  # type: ignore[arg-type]


# --- the store


def test_what_comes_again_is_not_counted_again(store: RedisTallies, task: str) -> None:
    tallies = [Tally(n, DAY, "x", 1) for n in range(10)]
    store.add(task, AT, tallies[:6])
    store.add(task, AT, tallies[3:])
    store.add(task, AT, tallies)
    assert store.days([task], 9) == {task: {DAY: {"x": 10}}}
    store.add(task, TopicPartition("decisions", 1), tallies[:2])  # another partition's offsets
    assert store.days([task], 9) == {task: {DAY: {"x": 12}}}


def test_a_message_with_many_tallies_is_counted_whole(store: RedisTallies, task: str) -> None:
    tallies = [Tally(n // 3, DAY, f"f{n % 3}", 2) for n in range(3_000)]
    store.add(task, AT, tallies)
    assert store.days([task], 1) == {task: {DAY: {"f0": 2_000, "f1": 2_000, "f2": 2_000}}}


def test_the_newest_days_are_kept_and_shown(store: RedisTallies, task: str) -> None:
    days = [DAY + timedelta(days=n) for n in (4, 0, 2, 1, 3)]
    store.add(task, AT, [Tally(n, day, "x", 1) for n, day in enumerate(days)])
    assert sorted(store.days([task], 9)[task]) == [DAY + timedelta(days=n) for n in (2, 3, 4)]
    assert list(store.days([task], 1)[task]) == [DAY + timedelta(days=4)]
    assert store.days([task, "nobody"], 1)["nobody"] == {}


# --- the consumer


class Feed:
    """Hands out messages, and remembers what was committed; the first commits may fail."""

    def __init__(self, messages: Sequence[Message], stop: threading.Event) -> None:
        self.batches = [list(messages)]
        self.stop = stop
        self.committed: dict[TopicPartition, int] = {}
        self.failures = 0
        self.away = 0

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        if self.away:
            self.away -= 1
            raise Retryable("the broker is away")
        if not self.batches:
            self.stop.set()
            return []
        return self.batches.pop(0)

    def assigned(self) -> frozenset[TopicPartition]:
        return frozenset()

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self.failures:
            self.failures -= 1
            raise Retryable("rebalance")
        self.committed |= offsets

    def close(self) -> None: ...


def messages(*events: Event, topic: str = "decisions") -> list[Message]:
    return [Message(topic, 0, n, None, encode(event)) for n, event in enumerate(events)]


def counting(feed: Feed, store: object, task: str, stop: threading.Event) -> Counting:
    clock = FakeClock()
    zones = {task: ZoneInfo("Asia/Tokyo")}
    topics = Topics("decisions", "traces")
    return Counting(feed, store, topics, zones, clock, Health(clock))  # type: ignore[arg-type]


def test_decisions_are_counted_by_the_day_of_the_request_in_the_tasks_zone(
    store: RedisTallies, task: str
) -> None:
    stop = threading.Event()
    late = NOON + timedelta(hours=6)  # tomorrow in Tokyo
    events = [
        decision(task, 0),
        decision(task, 1, outcome=Outcome.AUDITED),
        decision(task, 2, outcome=Outcome.DEFERRED, reason=Reason.BELOW_THRESHOLD, error="why"),
        decision(task, 3, occurred_at=late),
        decision("another-task", 4),
    ]
    feed = Feed([*messages(*events), Message("decisions", 0, 9, None, b"{")], stop)
    feed.failures = 1
    feed.batches.append(list(feed.batches[0]))  # the same again, as after a rebalance
    counting(feed, store, task, stop).run(stop)
    today, tomorrow = (day_of(day, counts) for day, counts in store.days([task], 2)[task].items())
    assert (today.handled, today.audited, today.deferred, today.failed) == (1, 1, 1, 1)
    assert today.coverage == pytest.approx(2 / 3)
    assert today.reasons == {Reason.BELOW_THRESHOLD: 1}
    assert (tomorrow.day, tomorrow.handled) == (date(2026, 1, 6), 1)
    assert feed.committed == {AT: 10}


def test_traces_give_agreement_of_the_active_version_and_the_price(
    store: RedisTallies, task: str
) -> None:
    stop = threading.Event()
    events = [
        trace(task),
        trace(task, teacher="b", cost=0.003),
        trace(task, drawn=False),  # handled, but chosen for what it is
        trace(task, source=Source.DEFERRED, drawn=False, deferral_reason=Reason.PROBATION),
        trace(task, opinions=[], cost=None),
    ]
    counting(Feed(messages(*events, topic="traces"), stop), store, task, stop).run(stop)
    (day,) = (day_of(day, counts) for day, counts in store.days([task], 2)[task].items())
    assert (day.agreement.hits, day.agreement.n) == (2, 3)
    assert (day.priced, day.spent) == (4, pytest.approx(0.006))
    assert totals_of([day]).price == pytest.approx(0.0015)


def test_with_the_store_away_nothing_is_committed_and_nothing_lost(
    store: RedisTallies, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    feed = Feed(messages(decision(task, 0)), stop)
    seen: list[dict[TopicPartition, int]] = []

    class Flaky(RedisTallies):
        def add(self, task: str, source: TopicPartition, tallies: Sequence[Tally]) -> None:
            seen.append(dict(feed.committed))
            if len(seen) < 3:
                raise RegistryUnavailable("away")
            super().add(task, source, tallies)

    monkeypatch.setattr("services.console.tallies.RETRY_SECONDS", 0.0)
    counting(feed, Flaky(store._client), task, stop).run(stop)
    assert seen == [{}, {}, {}]
    assert store.days([task], 1)[task][DAY] == {"decided|handled|certified": 1}
    assert feed.committed == {AT: 1}


def test_with_the_broker_away_for_a_while_it_goes_on(
    store: RedisTallies, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.console.tallies.RETRY_SECONDS", 0.0)
    stop = threading.Event()
    feed = Feed(messages(decision(task, 0)), stop)
    feed.away = 3
    counting(feed, store, task, stop).run(stop)
    assert store.days([task], 1)[task][DAY] == {"decided|handled|certified": 1}


def test_an_event_that_fails_is_counted_as_failed_too() -> None:
    fields = [field for field, _, _ in tallies_of(decision("t", 0, error="the teacher is away"))]
    assert fields == ["decided|handled|certified", "failed"]


# --- figures


@given(st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_share(hits: int, more: int) -> None:
    share = Share(hits, hits + more)
    if not share.n:
        assert share.value is share.lower is share.upper is None
        return
    assert share.value is not None
    assert share.lower is not None
    assert share.upper is not None
    assert 0.0 <= share.lower <= share.value <= share.upper <= 1.0
    assert share.upper - share.lower > 0.0


def test_the_interval_is_wilsons() -> None:
    share = Share(45, 50)
    # statsmodels.stats.proportion.proportion_confint(45, 50, method="wilson")
    assert share.lower == pytest.approx(0.78640, abs=1e-5)
    assert share.upper == pytest.approx(0.95652, abs=1e-5)
    rng = random.Random(0)
    covered = 0
    for _ in range(2_000):
        drawn = Share(sum(rng.random() < 0.9 for _ in range(60)), 60)
        assert drawn.lower is not None
        assert drawn.upper is not None
        covered += drawn.lower <= 0.9 <= drawn.upper
    assert covered / 2_000 > 0.93


def test_no_price_no_dollars() -> None:
    day = day_of(DAY, {"decided|handled|certified": 10, "from a newer release": 3})
    totals = totals_of([day])
    assert (totals.requests, totals.price, totals.saved) == (10, None, None)
    priced = day_of(DAY, {"decided|handled|certified": 10, "priced": 2, "micro_dollars": 3_000})
    assert totals_of([priced]).saved == pytest.approx(0.015)


def test_a_clients_date_far_ahead_of_the_decision_is_not_the_newest_day() -> None:
    """A day of 2099 would be the newest for good, and put one that matters out of the store."""
    ahead = datetime(2099, 1, 1, tzinfo=UTC)
    decided = decision("support", 1, decided_at=NOON, occurred_at=ahead)
    assert [moment for _, _, moment in tallies_of(decided)] == [NOON]
    soon = NOON + timedelta(hours=20)  # a clock that is a little ahead, another time zone
    assert [
        m for _, _, m in tallies_of(decision("support", 1, decided_at=NOON, occurred_at=soon))
    ] == [soon]
