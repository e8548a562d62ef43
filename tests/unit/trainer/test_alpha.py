"""Another α at run time: refitted at once, judged by what is asked for."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from test_monitor import AT, ENCODER
from test_monitor import Bench as Audited
from test_trainer_pipeline import DAY, Bench, during_the_fit, traces

from services.trainer.alpha import AlphaWatch
from services.trainer.examination import FitFailed
from services.trainer.examine import Examiner
from services.trainer.pipeline import Refit
from shared.bus.errors import Retryable
from shared.contracts.events import AnnouncementKind
from shared.contracts.tasks import Task
from shared.core.window import WindowKey
from shared.registry.base import RegistryUnavailable, State
from tests.surrogates import make_surrogate

KEY = WindowKey("support", DAY)


class Watched:
    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder)
        self.submitted: list[WindowKey] = []
        self.watch = self.another()

    def another(self) -> AlphaWatch:
        """As after a restart."""
        bench = self.bench
        return AlphaWatch(bench.refit.tasks, bench.registry, bench.store, self.submitted.append)

    def ask(self, alpha: float | None) -> None:
        self.bench.registry.set_alpha("support", alpha, at=AT, reason="test")


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_another_alpha_calls_for_a_refit_of_the_newest_window(watched: Watched) -> None:
    earlier = DAY - timedelta(days=1)
    for day in (earlier, DAY):
        watched.bench.store.write("support", day, traces(300, day=day))
        watched.bench.refit(WindowKey("support", day))
    watched.watch.look()
    assert watched.submitted == []
    watched.ask(0.95)
    watched.watch.look()
    watched.watch.look()
    assert watched.submitted == [KEY]
    watched.ask(None)
    watched.watch.look()
    # The refit for 0.95 has not been made yet, so the verdict is of the tasks file's already.
    assert watched.submitted == [KEY]


def test_a_change_while_no_trainer_ran_is_noticed(watched: Watched) -> None:
    watched.bench.store.write("support", DAY, traces(600))
    watched.bench.refit(KEY)
    watched.ask(0.95)
    watched.another().look()
    assert watched.submitted == [KEY]
    watched.bench.refit(KEY)
    watched.another().look()
    assert watched.submitted == [KEY]


def test_without_a_window_or_a_verdict_there_is_nothing_to_refit(watched: Watched) -> None:
    watched.ask(0.95)
    watched.watch.look()
    watched.bench.store.write("support", DAY, traces(30))
    watched.ask(0.97)
    watched.watch.look()
    assert watched.submitted == []


def test_an_alpha_that_is_asked_for_during_a_fit_is_not_forgotten(watched: Watched) -> None:
    watched.bench.store.write("support", DAY, traces(600))
    watched.ask(0.95)
    watched.watch.look()  # the fit for the alpha of before is under way
    watched.bench.store.write_verdict("support", DAY, {"kind": "published", "alpha": 0.9})
    watched.watch.look()
    watched.watch.look()
    assert watched.submitted == [KEY]


def test_thinking_better_of_an_alpha_during_its_fit_keeps_the_version_that_answers(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was replaced by one certified for less than is asked for again, and all was deferred."""
    bench = watched.bench
    bench.store.write("support", DAY, traces(600))
    version = bench.refit(KEY).version
    watched.ask(0.85)
    during_the_fit(monkeypatch, lambda: watched.ask(None))
    with pytest.raises(Retryable, match="was asked for during the fit"):
        bench.refit(KEY)
    assert bench.registry.active("support").version == version
    assert bench.refit(KEY).version == version  # the worker's next try
    assert (bench.store.verdict("support", DAY) or {})["alpha"] == 0.9


def test_an_alpha_that_is_asked_for_while_the_report_is_made_is_fitted_for_too(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = watched.bench
    bench.store.write("support", DAY, traces(600))
    monkeypatch.setattr(Refit, "_report", lambda *_: watched.ask(0.95))
    with pytest.raises(Retryable, match="was asked for"):
        bench.refit(KEY)
    assert (bench.store.verdict("support", DAY) or {})["alpha"] == 0.9
    assert bench.refit(KEY).certificate.alpha == 0.95  # type: ignore[union-attr]


def test_after_a_refit_that_failed_another_alpha_can_be_asked_for(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise FitFailed("out of memory")

    bench = watched.bench
    bench.store.write("support", DAY, traces(600))
    bench.refit(KEY)
    watched.ask(0.97)
    watched.watch.look()
    monkeypatch.setattr(Examiner, "__call__", fail)
    with pytest.raises(FitFailed) as failed:
        bench.refit(KEY)
    bench.refit.give_up(KEY, failed.value)
    watched.watch.look()
    watched.another().look()
    assert watched.submitted == [KEY]  # of itself it is not tried again
    for alpha in (0.96, 0.97, None):
        watched.ask(alpha)
        watched.another().look()
        watched.watch.look()
    assert len(watched.submitted) > 3


def test_a_verdict_that_cannot_be_read_keeps_no_other_task_from_its_alpha(
    watched: Watched, tmp_path: Path
) -> None:
    tasks = {name: Task(name=name, alpha=0.9) for name in ("support", "other")}
    for name in tasks:
        watched.bench.store.write(name, DAY, traces(3))
        watched.bench.store.write_verdict(name, DAY, {"kind": "refused", "alpha": 0.8})
    path = tmp_path / "task=support" / f"day={DAY.isoformat()}" / "verdict.json"
    path.write_text('{"kind"')
    watch = replace(watched.watch, tasks=tasks)
    with pytest.raises(OSError, match=re.escape(str(path))):
        watch.look()
    assert watched.submitted == [WindowKey("other", DAY)]


def test_a_registry_that_is_away_is_asked_again(watched: Watched) -> None:
    watched.bench.store.write("support", DAY, traces(600))
    watched.bench.refit(KEY)
    watched.ask(0.95)
    watched.bench.registry.available = False
    with pytest.raises(RegistryUnavailable):
        watched.watch.look()
    stop = threading.Event()
    thread = threading.Thread(target=watched.watch.follow, args=(stop, 0.01))
    thread.start()
    watched.bench.registry.available = True
    for _ in range(500):
        if watched.submitted:
            break
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert watched.submitted == [KEY]


def test_the_refit_is_certified_for_what_is_asked(watched: Watched) -> None:
    bench = watched.bench
    bench.store.write("support", DAY, traces(600))
    first = bench.refit(KEY)
    watched.ask(0.95)
    second = bench.refit(KEY)
    assert first.certificate is not None
    assert second.certificate is not None
    assert (first.certificate.alpha, second.certificate.alpha) == (0.9, 0.95)
    assert second.kind is AnnouncementKind.PUBLISHED
    assert bench.registry.active("support").version == second.version != first.version
    assert (bench.store.verdict("support", DAY) or {})["alpha"] == 0.95


def test_what_cannot_be_certified_leaves_the_pointer_for_another_word(watched: Watched) -> None:
    """The routers defer; α lowered again, the version serves at once."""
    bench = watched.bench
    bench.store.write("support", DAY, traces(600))
    version = bench.refit(KEY).version
    watched.ask(0.9999)
    later = DAY + timedelta(days=1)
    bench.store.write("support", later, traces(300, day=later, first=900))
    announced = bench.refit(WindowKey("support", later))
    assert announced.kind is AnnouncementKind.REFUSED
    assert bench.registry.active("support").version == version


def test_the_live_certificate_is_held_to_what_was_certified_at_most() -> None:
    bench = Audited()
    version = bench.publish()
    bench.registry.set_alpha("support", 0.99, at=AT, reason="")
    bench.audit(version, 400, 0.96)
    assert bench.registry.active("support").state is State.SERVING
    assert bench.registry.active("support").version == version


def test_a_trial_certified_for_less_than_is_asked_is_not_promoted() -> None:
    bench = Audited(promote_after=20)
    bench.publish()
    artifact = make_surrogate(ENCODER, window="2026-01-06", alpha=0.92)
    fence = bench.registry.acquire("support")
    bench.registry.start_trial(artifact, mode="shadow", share=0.0, fence=fence, at=AT, reason="")
    bench.registry.set_alpha("support", 0.95, at=AT, reason="")
    bench.audit(artifact.version, 60, 1.0)
    assert bench.registry.active("support").trial is not None
    bench.registry.set_alpha("support", 0.92, at=AT, reason="")
    bench.audit(artifact.version, 1, 1.0)
    assert bench.registry.active("support").version == artifact.version
