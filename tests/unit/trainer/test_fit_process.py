"""Fits in a process of their own: of what one does there only the result reaches the trainer."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from services.trainer.examination import Examination, FitFailed
from services.trainer.fit_process import FitProcess
from shared.bus.errors import Retryable
from shared.contracts.manifest import Teacher
from shared.contracts.tasks import Task
from shared.registry.base import Artifact

DAY = date(2026, 1, 1)
BUDGET = 60.0


@dataclass(frozen=True)
class Scripted:
    """Does what the task is called after; writes its process id into the folder."""

    folder: Path

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        (self.folder / "pid").write_text(str(os.getpid()))
        if task.name == "fails":
            raise ValueError("no traces to speak of")
        if task.name == "store-away":
            raise OSError("the store is away")
        if task.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        while task.name == "hangs":  # holds the interpreter's lock as often as it can
            pass
        blobs = len(incumbent.blobs) if incumbent else 0
        # A text for a challenger: with the real class every start would import scikit-learn.
        return Examination(blobs, 1, None, Teacher(), day.isoformat(), None)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Make:
    folder: Path

    def __call__(self) -> Scripted:
        return Scripted(self.folder)


def task(name: str, budget: float = BUDGET) -> Task:
    return Task(name=name, fit_budget_s=budget)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fits")


@pytest.fixture(scope="module")
def fits(folder: Path) -> Iterator[FitProcess]:
    """One for all: starting a process, with all that it imports, takes seconds."""
    made = FitProcess(Make(folder))
    yield made
    made.close()


def pid(folder: Path) -> int:
    return int((folder / "pid").read_text())


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_another_process_does_it_and_is_kept(fits: FitProcess, folder: Path) -> None:
    found = fits(task("good"), DAY, Artifact(b"", {"a": b"1", "b": b"2"}))
    assert (found.n_traces, found.challenger) == (2, "2026-01-01")
    first = pid(folder)
    assert first != os.getpid()
    fits(task("good"), DAY, None)
    assert pid(folder) == first


def test_what_fails_says_why_and_the_next_fit_goes_on(fits: FitProcess) -> None:
    with pytest.raises(FitFailed, match="ValueError: no traces to speak of"):
        fits(task("fails"), DAY, None)
    with pytest.raises(Retryable, match="the store is away"):
        fits(task("store-away"), DAY, None)
    assert fits(task("good"), DAY, None).n_evidence == 1


def test_one_whose_process_dies_says_how(fits: FitProcess) -> None:
    with pytest.raises(FitFailed, match="SIGKILL: out of memory"):
        fits(task("dies"), DAY, None)
    assert fits(task("good"), DAY, None).n_evidence == 1


def test_one_that_was_killed_between_two_fits_costs_the_next_one_nothing(
    fits: FitProcess, folder: Path
) -> None:
    """At night, say, for the memory that it keeps."""
    fits(task("good"), DAY, None)
    before = pid(folder)
    os.kill(before, signal.SIGKILL)
    os.waitid(os.P_PID, before, os.WEXITED | os.WNOWAIT)
    assert fits(task("good"), DAY, None).n_evidence == 1
    assert pid(folder) != before


def test_an_answer_that_nobody_waited_for_reaches_no_other_task(fits: FitProcess) -> None:
    with pytest.raises(OverflowError):
        fits(task("long", budget=float("inf")), DAY, Artifact(b"", {"a": b"1"}))
    assert fits(task("good"), DAY, None).n_traces == 0


def test_one_that_hangs_is_ended_and_keeps_nobody_from_turning(
    fits: FitProcess, folder: Path
) -> None:
    fits(task("good"), DAY, None)
    child = pid(folder)
    outcome: list[FitFailed] = []

    def fit() -> None:
        try:
            fits(task("hangs", budget=1.5), DAY, None)
        except FitFailed as error:
            outcome.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.01)
        turns += 1
    (failed,) = outcome
    assert "fit_budget_s = 1.5 seconds" in str(failed)
    assert "lower max_rows" in str(failed)
    assert turns > 15
    assert not is_alive(child)


def test_at_last_closing_amid_a_fit_is_no_failure_of_it(fits: FitProcess, folder: Path) -> None:
    fits(task("good"), DAY, None)
    child = pid(folder)
    timer = threading.Timer(0.5, fits.close)
    timer.start()
    with pytest.raises(Retryable, match="stopping"):
        fits(task("hangs"), DAY, None)
    timer.join()
    assert not is_alive(child)
    with pytest.raises(Retryable, match="stopping"):
        fits(task("good"), DAY, None)
