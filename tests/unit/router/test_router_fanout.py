"""Many tasks: a hint costs its own task, a poll a bounded number, whatever the tasks file holds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles import HashEncoder
from surrogates import make_surrogate

from services.router.loading import Loading
from services.router.models import POINTERS_PER_POLL, Models
from services.router.serving import NOBODY
from shared.registry.base import Artifact, Hint, Pointers, RegistryError, RegistryUnavailable
from shared.registry.disk import DiskCopy
from shared.registry.memory import MemoryRegistry

AT = datetime(2026, 1, 5, tzinfo=UTC)
ENCODER = HashEncoder()
TASKS = ["support", *(f"task-{number:04}" for number in range(2 * POINTERS_PER_POLL + 50))]


class Asked(MemoryRegistry):
    """Writes down whose pointers were asked for; can lose hints, and keep a pointer to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.looked: list[list[str]] = []
        self.deaf = False
        self.unreadable: str | None = None

    def pointers(self, tasks: Sequence[str]) -> Pointers:
        self.looked.append(list(tasks))
        return {
            task: found if task != self.unreadable else RegistryError("newer")
            for task, found in super().pointers(tasks).items()
        }

    def wait_for_change(self, timeout: float) -> Hint:
        hint = super().wait_for_change(timeout)
        return Hint() if self.deaf and not hint.everything else hint


@pytest.fixture
def registry() -> Asked:
    return Asked()


@pytest.fixture
def models(registry: Asked, tmp_path: Path) -> Models:
    return Models(
        tasks=TASKS,
        registry=registry,
        copies=DiskCopy(tmp_path),
        loading=Loading(ENCODER, threads=1),
    )


@pytest.fixture(scope="module")
def surrogate() -> Callable[[str], Artifact]:
    made: dict[str, Artifact] = {}

    def of(task: str) -> Artifact:
        if task not in made:
            made[task] = make_surrogate(ENCODER, task=task, lexical=False)
        return made[task]

    return of


def publish(registry: MemoryRegistry, artifact: Artifact) -> str:
    task = artifact.manifest.task
    registry.publish(artifact, fence=registry.acquire(task), at=AT, reason="test")
    return artifact.version


def serving(models: Models, task: str) -> str | None:
    version = models.snapshot().get(task, NOBODY).version
    return version.version if version else None


@contextmanager
def following(models: Models, poll: float) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=models.follow, args=(stop, poll))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hint_swaps_before_the_next_poll_and_looks_at_its_task_only(
    models: Models, registry: Asked, surrogate: Callable[[str], Artifact]
) -> None:
    artifact = surrogate("support")
    with following(models, poll=3.0):
        until(lambda: models.unknown() is None)
        assert registry.looked == [TASKS]  # nothing is known yet
        version = publish(registry, artifact)
        until(lambda: serving(models, "support") == version, seconds=2.0)
        assert registry.looked[1:] == [["support"]]


def test_hints_of_other_routers_tasks_cost_nothing(models: Models, registry: Asked) -> None:
    with following(models, poll=0.3):
        until(lambda: models.unknown() is None)
        registry.set_alpha("elsewhere", 0.9, at=AT, reason="test")
        until(lambda: len(registry.looked) >= 3)
        assert all("elsewhere" not in looked for looked in registry.looked)


def test_a_lost_hint_is_caught_by_the_polls_in_turn(
    models: Models, registry: Asked, surrogate: Callable[[str], Artifact]
) -> None:
    artifact = surrogate(TASKS[-1])
    with following(models, poll=0.02):
        until(lambda: models.unknown() is None)
        registry.deaf = True
        version = publish(registry, artifact)
        until(lambda: serving(models, TASKS[-1]) == version)
    assert max(map(len, registry.looked[1:])) == POINTERS_PER_POLL


def test_polls_in_turn_leave_no_task_out(models: Models, registry: Asked) -> None:
    for _ in range(4):
        models.poll()
    assert [task for looked in registry.looked[:3] for task in looked] == TASKS
    assert registry.looked[3] == registry.looked[0]


def test_hints_without_end_do_not_hold_up_the_polls(
    models: Models, registry: Asked, surrogate: Callable[[str], Artifact]
) -> None:
    chatter = threading.Event()

    def chat() -> None:
        alphas = (0.9, 0.91)
        while not chatter.wait(0.002):
            alphas = alphas[::-1]
            registry.set_alpha("elsewhere", alphas[0], at=AT, reason="test")

    thread = threading.Thread(target=chat)
    thread.start()
    try:
        with following(models, poll=0.05):
            until(lambda: sum(len(looked) > 1 for looked in registry.looked) > 4)
    finally:
        chatter.set()
        thread.join(5)


def test_after_an_outage_every_task_is_looked_at(models: Models, registry: Asked) -> None:
    with following(models, poll=0.05):
        until(lambda: models.unknown() is None)
        registry.available = False
        time.sleep(0.3)  # several polls, all in vain
        before = len(registry.looked)
        registry.available = True
        until(lambda: TASKS in registry.looked[before:])


def test_a_pointer_that_cannot_be_read_holds_up_no_other(
    models: Models,
    registry: Asked,
    surrogate: Callable[[str], Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = publish(registry, surrogate("support"))
    models.refresh()
    asked = registry.active

    def active(task: str) -> object:
        if task == registry.unreadable:
            raise RegistryError("newer")
        return asked(task)

    monkeypatch.setattr(registry, "active", active)
    registry.unreadable = "support"
    last = publish(registry, surrogate(TASKS[-1]))
    registry.set_alpha("support", 0.97, at=AT, reason="test")
    models.refresh()
    models.refresh()
    assert serving(models, "support") == first
    assert models.snapshot()["support"].alpha is None
    assert serving(models, TASKS[-1]) == last
    registry.unreadable = None
    models.refresh()
    assert models.snapshot()["support"].alpha == 0.97


def test_a_pointer_is_followed_as_it_is_now_not_as_it_was_when_all_were_asked(
    models: Models,
    registry: Asked,
    surrogate: Callable[[str], Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loading those before it takes time, in which it may have been retired."""
    publish(registry, surrogate("support"))
    publish(registry, surrogate(TASKS[-1]))
    load = registry.load

    def slow(task: str, version: str) -> Artifact:
        if task == "support":
            registry.retire(TASKS[-1], at=AT, reason="test")
        return load(task, version)

    monkeypatch.setattr(registry, "load", slow)
    models.refresh()
    assert serving(models, "support") is not None
    assert serving(models, TASKS[-1]) is None


def test_away_is_away(models: Models, registry: Asked) -> None:
    registry.available = False
    with pytest.raises(RegistryUnavailable):
        models.poll()
