from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import pytest
from artifacts import make_artifact
from doubles import HashEncoder
from prometheus_client import REGISTRY
from surrogates import make_surrogate

from services.router.loading import Loading, too_old
from services.router.models import Models
from services.router.remembering import Remembered
from services.router.serving import NOBODY, Serving
from shared.clock import FakeClock
from shared.contracts.events import Reason
from shared.registry.base import (
    Active,
    Artifact,
    CorruptArtifact,
    RegistryError,
    RegistryUnavailable,
    State,
)
from shared.registry.disk import DiskCopy
from shared.registry.memory import MemoryRegistry

AT = datetime(2026, 1, 5, tzinfo=UTC)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.registry = MemoryRegistry()
        self.encoder = HashEncoder()
        self.folder = folder
        self.tasks = ["support", "other"]

    def models(self) -> Models:
        return Models(
            self.tasks, self.registry, DiskCopy(self.folder), Loading(self.encoder, threads=1)
        )

    def publish(self, artifact: Artifact) -> str:
        fence = self.registry.acquire("support")
        self.registry.publish(artifact, fence=fence, at=AT, reason="test")
        return artifact.version


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def serving(models: Models) -> str | None:
    return version_in(models.snapshot())


def version_in(snapshot: Mapping[str, Serving]) -> str | None:
    version = snapshot.get("support", NOBODY).version
    return version.version if version else None


class Away(MemoryRegistry):
    """From the start."""

    def pointers(self, tasks: Sequence[str]) -> Mapping[str, Active | RegistryError]:
        raise RegistryUnavailable("away")


def test_a_registry_that_never_answered_is_silent_since_the_start(bench: Bench) -> None:
    """Without a value the alert TracerRegistryAway would see nothing: a router with a disk copy
    serves on, and is ready."""
    models = Models(bench.tasks, Away(), DiskCopy(bench.folder), Loading(bench.encoder, threads=1))
    before = time.time()
    models.start_from_copies()
    with pytest.raises(RegistryUnavailable):
        models.refresh()
    told = REGISTRY.get_sample_value(
        "tracer_registry_answered_timestamp_seconds", {"service": "router"}
    )
    assert told is not None
    assert before <= told <= time.time()


def test_answers_are_remembered_of_one_version_only(bench: Bench) -> None:
    models = bench.models()
    models.loading.remembered = Remembered(1_000_000)
    said = []
    for threshold, window in ((0.5, "2026-01-05"), (1.0, "2026-01-06")):
        bench.publish(make_surrogate(bench.encoder, threshold=threshold, window=window))
        models.refresh()
        version = models.snapshot()["support"].version
        assert version is not None
        said.append([version.answer([("invoice",)], bench.encoder)[0].reason for _ in range(2)])
    assert said == [[Reason.CERTIFIED] * 2, [Reason.BELOW_THRESHOLD] * 2]
    assert len(models.loading.remembered) == 2


def test_nothing_published_nothing_served(bench: Bench) -> None:
    models = bench.models()
    models.start_from_copies()
    models.refresh()
    assert models.snapshot() == {}


def test_a_new_version_is_swapped_in_and_a_snapshot_never_changes(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    before = models.snapshot()
    second = bench.publish(make_surrogate(bench.encoder, window="2026-01-06"))
    models.refresh()
    assert serving(models) == second
    assert version_in(before) == first


def test_metrics_tell_of_loading_and_of_the_registry(bench: Bench) -> None:
    def told(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    loads, answered = told("tracer_router_load_seconds_count"), time.time()
    models = bench.models()
    bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    models.refresh()
    assert told("tracer_router_load_seconds_count") - loads == 1
    last = told("tracer_registry_answered_timestamp_seconds", service="router")
    assert last >= answered
    bench.registry.available = False
    with pytest.raises(RegistryUnavailable):
        models.refresh()
    assert told("tracer_registry_answered_timestamp_seconds", service="router") == last


def test_counters_that_alerts_watch_begin_at_0(bench: Bench) -> None:
    """`increase` sees nothing in a series that is born at 1."""
    bench.tasks = ["never-seen"]
    models = bench.models()
    models.start_from_copies()
    for name in ("rejected_artifacts", "pointer_doubts"):
        told = REGISTRY.get_sample_value(f"tracer_router_{name}_total", {"task": "never-seen"})
        assert told == 0


def test_an_unchanged_version_is_not_loaded_again(bench: Bench) -> None:
    models = bench.models()
    bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    before = models.snapshot()
    models.refresh()
    assert models.snapshot() is before


def test_rollback_and_retirement_are_followed(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    bench.publish(make_surrogate(bench.encoder, window="2026-01-06"))
    models.refresh()
    bench.registry.rollback("support", to=None, at=AT, reason="test")
    models.refresh()
    assert serving(models) == first
    bench.registry.retire("support", at=AT, reason="test")
    models.refresh()
    assert serving(models) is None


def test_a_version_for_another_encoder_leaves_the_old_one(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    bench.publish(make_surrogate(HashEncoder(digest="f" * 64), window="2026-01-06"))
    models.refresh()
    assert serving(models) == first


def test_what_stays_for_a_version_that_cannot_be_loaded_obeys_its_pointer(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    stranger = HashEncoder(digest="f" * 64)
    second = bench.publish(make_surrogate(stranger, window="2026-01-06"))
    models.refresh()
    bench.registry.set_state("support", State.PAUSED, version=second, at=AT, reason="test")
    bench.registry.set_alpha("support", 0.999, at=AT, reason="test")
    models.refresh()
    found = models.snapshot()["support"]
    assert serving(models) == first
    assert (found.state, found.alpha) == (State.PAUSED, 0.999)
    bench.registry.set_state("support", State.SERVING, version=second, at=AT, reason="test")
    models.refresh()
    assert models.snapshot()["support"].state is State.SERVING


@pytest.mark.parametrize("state", [State.TRIPPED, State.PAUSED, State.PROBATION])
def test_so_it_does_after_a_restart_without_the_registry(bench: Bench, state: State) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    stranger = HashEncoder(digest="f" * 64)
    second = bench.publish(make_surrogate(stranger, window="2026-01-06"))
    bench.registry.set_state("support", state, version=second, at=AT, reason="test")
    bench.registry.set_alpha("support", 0.999, at=AT, reason="test")
    models.refresh()
    assert models.snapshot()["support"].state is state
    bench.registry.available = False
    restarted = bench.models()
    restarted.start_from_copies()
    found = restarted.snapshot()["support"]
    assert serving(restarted) == first
    assert found.state is (State.PROBATION if state is State.PROBATION else State.PAUSED)
    assert found.alpha == 0.999
    bench.registry.available = True
    bench.registry.rollback("support", to=first, at=AT, reason="it was never tripped itself")
    restarted.refresh()
    assert restarted.snapshot()["support"].state is State.SERVING


def test_a_trip_of_its_own_stays_on_disk(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    bench.registry.set_state("support", State.TRIPPED, version=first, at=AT, reason="test")
    models.refresh()
    stranger = HashEncoder(digest="f" * 64)
    second = bench.publish(make_surrogate(stranger, window="2026-01-06"))
    bench.registry.set_state("support", State.PAUSED, version=second, at=AT, reason="test")
    models.refresh()
    restarted = bench.models()
    restarted.start_from_copies()
    assert restarted.snapshot()["support"].state is State.TRIPPED


def test_a_graph_that_cannot_be_loaded_leaves_the_old_one(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    bench.publish(make_artifact(task="support", window="2026-01-06", text="junk"))
    models.refresh()
    assert serving(models) == first


def test_without_the_registry_what_is_loaded_goes_on(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    bench.registry.available = False
    with pytest.raises(RegistryUnavailable):
        models.refresh()
    assert serving(models) == first


def test_a_restart_without_the_registry_serves_the_disk_copy(bench: Bench) -> None:
    first = bench.publish(make_surrogate(bench.encoder))
    bench.models().refresh()
    bench.registry.available = False
    restarted = bench.models()
    restarted.start_from_copies()
    assert serving(restarted) == first


def test_a_retired_version_is_not_served_again_from_disk(bench: Bench) -> None:
    bench.publish(make_surrogate(bench.encoder))
    models = bench.models()
    models.refresh()
    bench.registry.retire("support", at=AT, reason="test")
    models.refresh()
    restarted = bench.models()
    restarted.start_from_copies()
    assert serving(restarted) is None


def test_a_retired_version_beside_a_trial_is_not_served_again_from_disk(bench: Bench) -> None:
    bench.publish(make_surrogate(bench.encoder))
    bench.models().refresh()
    bench.registry.retire("support", at=AT, reason="test")
    start_trial(bench, "shadow")
    models = bench.models()  # was away while it was retired
    models.start_from_copies()
    models.refresh()
    assert serving(models) is None
    restarted = bench.models()
    restarted.start_from_copies()
    assert serving(restarted) is None


def test_following_notices_without_a_hint_and_after_an_outage(bench: Bench) -> None:
    models = bench.models()
    stop = threading.Event()
    bench.registry.available = False
    thread = threading.Thread(target=models.follow, args=(stop, 0.05))
    thread.start()
    try:
        bench.registry.available = True
        first = bench.publish(make_surrogate(bench.encoder))
        deadline = threading.Event()
        for _ in range(100):
            if serving(models) == first:
                break
            deadline.wait(0.05)
        assert serving(models) == first
    finally:
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_a_registry_that_lost_its_data_is_no_reason_to_stop(bench: Bench) -> None:
    first = bench.publish(make_surrogate(bench.encoder))
    models = bench.models()
    models.refresh()
    vars(bench.registry).update(vars(MemoryRegistry()))
    models.refresh()
    assert serving(models) == first
    restarted = bench.models()
    restarted.start_from_copies()
    restarted.refresh()
    assert serving(restarted) == first
    second = bench.publish(make_surrogate(bench.encoder, window="2026-01-07"))
    models.refresh()
    assert serving(models) == second


def test_a_corrupt_version_is_looked_at_again(bench: Bench) -> None:
    models = bench.models()
    artifact = make_surrogate(bench.encoder)
    version = bench.publish(artifact)
    load = bench.registry.load

    def corrupt(task: str, version: str) -> Artifact:
        raise CorruptArtifact("flipped")

    bench.registry.load = corrupt  # type: ignore[method-assign]
    models.refresh()
    models.refresh()
    assert serving(models) is None
    bench.registry.load = load  # type: ignore[method-assign]
    models.refresh()
    assert serving(models) == version


def test_following_survives_what_it_does_not_know(bench: Bench) -> None:
    models = bench.models()
    stop = threading.Event()
    wait = bench.registry.wait_for_change

    def fail_once(timeout: float) -> bool:
        bench.registry.wait_for_change = wait  # type: ignore[method-assign]
        raise RegistryError("NOPERM")

    bench.registry.wait_for_change = fail_once  # type: ignore[method-assign]
    thread = threading.Thread(target=models.follow, args=(stop, 0.05))
    thread.start()
    try:
        first = bench.publish(make_surrogate(bench.encoder))
        waiting = threading.Event()
        for _ in range(100):
            if serving(models) == first:
                break
            waiting.wait(0.05)
        assert serving(models) == first
    finally:
        stop.set()
        thread.join(5)


def test_a_change_of_state_is_followed_without_loading_again(bench: Bench) -> None:
    models = bench.models()
    version = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    loaded = models.snapshot()["support"].version
    bench.registry.set_state("support", State.TRIPPED, version=version, at=AT, reason="test")
    models.refresh()
    serving = models.snapshot()["support"]
    assert serving.state is State.TRIPPED
    assert serving.version is loaded


def test_a_tripped_version_does_not_answer_after_a_restart_without_the_registry(
    bench: Bench,
) -> None:
    models = bench.models()
    version = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    bench.registry.set_state("support", State.TRIPPED, version=version, at=AT, reason="test")
    models.refresh()
    bench.registry.available = False
    restarted = bench.models()
    restarted.start_from_copies()
    assert restarted.snapshot()["support"].state is State.TRIPPED


def start_trial(bench: Bench, mode: Literal["shadow", "canary"] = "canary") -> str:
    artifact = make_surrogate(bench.encoder, window="2026-01-07")
    fence = bench.registry.acquire("support")
    bench.registry.start_trial(artifact, mode=mode, share=0.2, fence=fence, at=AT, reason="test")
    return artifact.version


def test_a_trial_is_loaded_beside_the_active_version_and_promoted(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    models.refresh()
    second = start_trial(bench)
    models.refresh()
    serving_now = models.snapshot()["support"]
    trial = serving_now.trial
    assert serving(models) == first
    assert trial is not None
    assert (trial.version.version, trial.mode, trial.share) == (second, "canary", 0.2)
    bench.registry.promote("support", at=AT, reason="test")
    models.refresh()
    assert serving(models) == second
    assert models.snapshot()["support"].trial is None
    assert models.snapshot()["support"].version is trial.version
    bench.registry.rollback("support", to=None, at=AT, reason="test")
    models.refresh()
    assert serving(models) == first


def test_a_first_version_can_be_on_trial_with_none_active(bench: Bench) -> None:
    models = bench.models()
    version = start_trial(bench, "shadow")
    models.refresh()
    serving_now = models.snapshot()["support"]
    assert serving_now.version is None
    assert serving_now.trial is not None
    assert serving_now.trial.version.version == version


def test_a_trial_that_cannot_be_loaded_leaves_the_active_version(bench: Bench) -> None:
    models = bench.models()
    first = bench.publish(make_surrogate(bench.encoder))
    artifact = make_surrogate(HashEncoder(digest="f" * 64), window="2026-01-07")
    fence = bench.registry.acquire("support")
    bench.registry.start_trial(
        artifact, mode="shadow", share=0.2, fence=fence, at=AT, reason="test"
    )
    models.refresh()
    assert serving(models) == first
    assert models.snapshot()["support"].trial is None


def test_the_state_is_known_when_the_registry_was_reached_once(bench: Bench) -> None:
    models = bench.models()
    bench.registry.available = False
    models.start_from_copies()
    with pytest.raises(RegistryUnavailable):
        models.refresh()
    assert models.unknown() == "not ready: registry not reached and no disk copy"
    bench.registry.available = True
    models.refresh()
    assert models.unknown() is None  # though nothing is published: that is known now
    bench.registry.available = False
    with pytest.raises(RegistryUnavailable):
        models.refresh()
    assert models.unknown() is None


def test_the_state_is_known_from_a_disk_copy(bench: Bench) -> None:
    bench.publish(make_surrogate(bench.encoder))
    bench.models().refresh()
    bench.registry.available = False
    restarted = bench.models()
    assert restarted.unknown() is not None
    restarted.start_from_copies()
    assert restarted.unknown() is None


def rejections() -> float:
    name = "tracer_router_rejected_artifacts_total"
    return REGISTRY.get_sample_value(name, {"task": "support"}) or 0.0


def test_an_old_version_is_not_brought_back_however_well_it_is_signed(bench: Bench) -> None:
    """By the pointer, by a trial or from disk; what is loaded goes on. A rollback within the days
    allowed is one."""
    clock = FakeClock(datetime(2026, 3, 1, tzinfo=UTC))
    models = bench.models()
    models.loading.clock, models.loading.max_age_days = clock, 30
    old = bench.publish(make_surrogate(bench.encoder, window="2026-01-05"))
    models.refresh()
    assert serving(models) is None
    recent = bench.publish(make_surrogate(bench.encoder, window="2026-02-20"))
    newest = bench.publish(make_surrogate(bench.encoder, window="2026-02-28"))
    models.refresh()
    assert serving(models) == newest
    bench.registry.rollback("support", to=recent, at=AT, reason="test")
    models.refresh()
    assert serving(models) == recent
    before = rejections()
    bench.registry.rollback("support", to=old, at=AT, reason="replayed")
    for _ in range(3):
        models.refresh()
    assert serving(models) == recent
    assert rejections() == before + 1
    clock.sleep(86_400 * 60)
    models.refresh()
    assert serving(models) == recent  # grown old while it was served
    later = bench.models()
    later.loading.clock, later.loading.max_age_days = clock, 30
    later.start_from_copies()
    assert serving(later) is None
    unbounded = bench.models()
    unbounded.start_from_copies()
    assert serving(unbounded) == recent


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("2026-01-31-abcdef012345", False),
        ("2026-01-30-abcdef012345", True),
        ("2026-03-05-abcdef012345", False),
        ("v1", True),
        ("2026-02-30-abcdef012345", True),
    ],
)
def test_how_old_a_version_is_says_its_name(version: str, refused: bool) -> None:
    assert (too_old(version, date(2026, 3, 2), 30) is not None) == refused


def test_a_disk_copy_that_breaks_its_reader_ends_no_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.publish(make_surrogate(bench.encoder))
    bench.models().refresh()

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    later = bench.models()
    monkeypatch.setattr("services.router.loading.load_version", broken)
    later.start_from_copies()
    assert serving(later) is None
    assert "local copy not used" in caplog.text
