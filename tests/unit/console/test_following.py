"""What follows topics: nothing is lost by a fault, memory is bounded, late lookers are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from console_desk import Desk, Topic
from starlette.testclient import TestClient

from services.console import announcements as announcements_module
from services.console import following, live
from services.console.announcements import Announcements
from services.console.following import follow
from services.console.live import LiveFeed, TooManyWatchers, Watcher
from services.console.recent import RecentRequests
from services.console.timeline import merged
from shared.bus.base import Message
from shared.contracts.events import (
    AnnouncementKind,
    Decision,
    ModelAnnouncement,
    Outcome,
    Reason,
)

AT = datetime(2026, 1, 5, tzinfo=UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(live, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(live, "POLL_SECONDS", 0.01)


def announcement(n: int, kind: AnnouncementKind = AnnouncementKind.PUBLISHED) -> ModelAnnouncement:
    return ModelAnnouncement(
        kind=kind, task="support", announced_at=AT, reason=f"number {n}", epoch=n, actor="maria"
    )


def decision(n: int, task: str = "support") -> Decision:
    return Decision(
        request_id=f"r{n}", task=task, outcome=Outcome.HANDLED, reason=Reason.CERTIFIED,
        decided_at=AT, label="a", accept_score=0.9, threshold=0.8, timings={"router": 1.5},
    )  # fmt: skip


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Running:
    """A thread that is stopped at the end."""

    def __init__(self, work: Callable[[threading.Event], None]) -> None:
        self.stop = threading.Event()
        self._thread = threading.Thread(target=work, args=(self.stop,), daemon=True)

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()


# --- announcements


def test_what_was_said_comes_newest_first_and_goes_on() -> None:
    topic, view = Topic(), Announcements()
    topic.add(announcement(1), announcement(2))
    topic.messages.append(Message("topic", 0, 2, None, b"of a newer release"))
    assert view.trouble
    with Running(lambda stop: follow(view, topic.open, "models", stop)):
        until(lambda: view.trouble is None)
        assert [a.epoch for a in view.of("support")] == [2, 1]
        topic.add(announcement(3))
        until(lambda: len(view.of("support")) == 3)
        assert view.of("support", 1)[0].epoch == 3
        assert view.of("nobody") == []
    assert topic.closed == topic.opened == 1


def test_after_a_fault_everything_is_there_once() -> None:
    topic, view = Topic(), Announcements()
    topic.add(announcement(1))
    with Running(lambda stop: follow(view, topic.open, "the topic", stop)):
        until(lambda: view.trouble is None)
        topic.away = True
        until(lambda: view.trouble is not None)
        assert view.trouble == "the topic cannot be read: no broker answers"
        topic.away = False
        topic.add(announcement(2))
        until(lambda: view.trouble is None)
        assert [a.epoch for a in view.of("support")] == [2, 1]
    assert topic.closed == topic.opened > 1


def test_a_task_that_says_much_does_not_fill_memory() -> None:
    view = Announcements()
    topic = Topic()
    topic.add(*(announcement(n) for n in range(announcements_module.KEPT_PER_TASK + 5)))
    for message in topic.messages:
        view.take(message)
    kept = view.of("support")
    assert len(kept) == announcements_module.KEPT_PER_TASK
    assert kept[0].epoch == announcements_module.KEPT_PER_TASK + 4


def test_the_timeline_has_each_change_once_with_who_made_it() -> None:
    desk = Desk()
    history = desk.registry.history("support")
    said = [announcement(history[0].epoch), announcement(0, AnnouncementKind.REFUSED)]
    timeline = merged(said, history)
    assert [(entry.epoch, entry.announced) for entry in timeline] == [
        (history[0].epoch, True), (history[1].epoch, False), (0, True),
    ]  # fmt: skip
    assert timeline[0].actor == "maria"


# --- live decisions


def test_who_looks_late_sees_the_newest_and_is_told_how_many_it_missed() -> None:
    watcher = Watcher("anna", size=3)
    for n in range(5):
        watcher.offer(decision(n))
    taken, missed = watcher.take()
    assert ([d.request_id for d in taken], missed) == (["r2", "r3", "r4"], 2)
    assert watcher.take() == ([], 0)


def test_the_topic_is_read_only_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "IDLE_SECONDS", 0.05)
    topic = Topic()
    feed = LiveFeed(topic.open, Topic().open, RecentRequests(()))
    with Running(feed.run):
        time.sleep(0.1)
        assert topic.opened == 0
        with feed.watch("support", "anna") as mine, feed.watch("intents", "anna") as others:
            topic.add(decision(1), decision(2, "intents"))
            until(lambda: topic.opened == 1)
            got: list[Decision] = []
            until(lambda: bool(got.extend(mine.take()[0]) or got))
            assert [d.request_id for d in got] == ["r1"]
            until(lambda: bool(others.take()[0]))
        until(lambda: topic.closed == 1)


def test_requests_are_being_read_before_the_first_decision_is_shown() -> None:
    """Else the first ones that somebody clicks have no text: seen on a slow machine."""
    decisions, requests = Topic(), _SlowTopic(turns=5)
    joined_when_opened: list[bool] = []

    def open_decisions() -> following.Reading:
        joined_when_opened.append(requests.turns <= 0)
        return decisions.open()

    feed = LiveFeed(open_decisions, requests.open, RecentRequests(("support",)))
    with Running(feed.run), feed.watch("support", "anna"):
        until(lambda: bool(joined_when_opened))
    assert joined_when_opened == [True]


def test_decisions_are_shown_where_the_requests_never_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "BEGIN_TURNS", 3)
    decisions = Topic()
    decisions.add(decision(1))
    feed = LiveFeed(decisions.open, _SlowTopic(turns=10**9).open, RecentRequests(()))
    with Running(feed.run), feed.watch("support", "anna") as watcher:
        until(lambda: bool(watcher.take()[0]))


class _SlowTopic(Topic):
    """One whose reader needs some polls before it sees what comes."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    def open(self) -> following.Reading:  # type: ignore[override]
        return _SlowTail(self)


class _SlowTail:
    def __init__(self, topic: _SlowTopic) -> None:
        self._topic = topic

    def poll(self, max_messages: int, timeout: float) -> list[Message]:
        self._topic.turns -= 1
        return []

    def caught_up(self) -> bool:
        return self._topic.turns <= 0

    def close(self) -> None:
        self._topic.closed += 1


def test_a_broker_that_is_away_is_said_and_comes_back() -> None:
    topic = Topic()
    topic.away = True
    feed = LiveFeed(topic.open, Topic().open, RecentRequests(()))
    with Running(feed.run), feed.watch("support", "anna") as watcher:
        until(lambda: feed.trouble is not None)
        topic.away = False
        topic.add(decision(1))
        until(lambda: bool(watcher.take()[0]))
        until(lambda: feed.trouble is None)


def test_only_so_many_may_watch() -> None:
    feed = LiveFeed(Topic().open, Topic().open, RecentRequests(()), max_watchers=1)
    with feed.watch("support", "anna"), pytest.raises(TooManyWatchers):
        feed.check_room("ben")
    feed.check_room("ben")


def test_one_caller_leaves_room_for_others() -> None:
    feed = LiveFeed(Topic().open, Topic().open, RecentRequests(()), max_watchers=3, max_of_one=1)
    with feed.watch("support", "anna"):
        with pytest.raises(TooManyWatchers, match="1 pages of yours"):
            feed.check_room("anna")
        feed.check_room("ben")
    feed.check_room("anna")


def test_decisions_are_streamed_as_events_without_texts() -> None:
    desk = Desk()
    desk.decisions.add(decision(1), decision(2, "intents"))
    client: TestClient = desk.client("operator-0123456789")
    with Running(desk.context.feed.run):
        said = client.get("/api/v1/tasks/support/live?seconds=1.5")
    assert said.headers["content-type"].startswith("text/event-stream")
    assert "event: decisions" in said.text
    assert '"request_id":"r1"' in said.text
    assert "r2" not in said.text
    desk.context.stop.set()
    with desk.context.feed.watch("support", "anna"), desk.context.feed.watch("support", "anna"):
        assert client.get("/api/v1/tasks/support/live").status_code == 503
