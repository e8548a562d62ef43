"""A change by hand: made once, announced with who asked, and never announced where nothing was."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.bus.errors import Retryable
from shared.clock import FakeClock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement
from shared.operating import CHANGES, NotAnnounced, ask_alpha, operate
from shared.registry.base import State, StateChanged, UnknownVersion
from shared.registry.memory import MemoryRegistry
from tests.artifacts import make_artifact

AT = datetime(2026, 1, 5, tzinfo=UTC)


class Desk:
    """A registry with two versions of `intents`, and somebody who operates on it."""

    def __init__(self) -> None:
        self.registry = MemoryRegistry()
        self.clock = FakeClock()
        self.announced: list[ModelAnnouncement] = []
        self.away = False
        self.versions = []
        for text in ("a", "b"):
            artifact = make_artifact(text=text)
            fence = self.registry.acquire("intents")
            self.registry.publish(artifact, fence=fence, at=AT, reason="certified")
            self.versions.append(artifact.version)

    def announce(self, announcement: ModelAnnouncement) -> None:
        if self.away:
            raise Retryable("the broker is away")
        self.announced.append(announcement)

    def do(self, change: str, version: str | None = None) -> bool:
        self.clock.sleep(1)
        act = CHANGES[change]("intents", version, "because", "maria")
        return operate(self.registry, self.announce, self.clock, "intents", act).changed


def test_each_change_is_announced_with_who_and_why() -> None:
    desk = Desk()
    first, second = desk.versions
    trial = make_artifact(text="c")
    fence = desk.registry.acquire("intents")
    for change in ("pause", "resume", "rollback", "retire"):
        assert desk.do(change)
    for ending in ("withdraw", "promote"):
        desk.registry.start_trial(trial, mode="shadow", share=0.0, fence=fence, at=AT, reason="")
        assert desk.do(ending)
    assert [(a.kind, a.version) for a in desk.announced] == [
        (AnnouncementKind.PAUSED, second),
        (AnnouncementKind.RESUMED, second),
        (AnnouncementKind.ROLLED_BACK, first),
        (AnnouncementKind.RETIRED, None),
        (AnnouncementKind.WITHDRAWN, trial.version),
        (AnnouncementKind.PROMOTED, trial.version),
    ]
    assert {(a.actor, a.reason, a.task) for a in desk.announced} == {
        ("maria", "because", "intents")
    }
    assert set(CHANGES) == {"pause", "resume", "rollback", "retire", "withdraw", "promote"}


def test_what_is_so_already_is_not_announced() -> None:
    desk = Desk()
    assert desk.do("pause")
    assert not desk.do("pause")
    assert len(desk.announced) == 1


def test_a_change_of_a_version_that_is_no_longer_active_is_refused() -> None:
    desk = Desk()
    with pytest.raises(UnknownVersion):
        desk.do("pause", desk.versions[0])
    assert desk.registry.active("intents").state is State.SERVING
    assert desk.announced == []


def test_alpha_is_asked_for_once_and_by_who_has_seen_the_task() -> None:
    desk = Desk()
    seen = desk.registry.active("intents").epoch

    def ask(alpha: float | None, epoch: int) -> bool:
        act = ask_alpha("intents", alpha, epoch, "stricter", "maria")
        return operate(desk.registry, desk.announce, desk.clock, "intents", act).changed

    assert ask(0.97, seen)
    assert not ask(0.97, seen + 1)
    with pytest.raises(StateChanged):
        ask(0.9, seen)
    (announced,) = desk.announced
    assert (announced.kind, announced.alpha) == (AnnouncementKind.ALPHA, 0.97)
    assert announced.actor == "maria"


def test_a_broker_that_is_away_is_said_not_hidden() -> None:
    desk = Desk()
    desk.away = True
    with pytest.raises(NotAnnounced, match="not announced on `models`: the broker is away") as said:
        desk.do("pause")
    assert said.value.done.changed
    assert desk.registry.active("intents").state is State.PAUSED
