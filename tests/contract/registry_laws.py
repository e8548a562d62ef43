"""The laws every registry keeps, whatever it stores things in; registry_state_laws has more."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

import pytest

from shared.contracts.events import AnnouncementKind
from shared.registry.base import (
    MAX_ARTIFACT_BYTES,
    Active,
    Artifact,
    ArtifactTooLarge,
    CorruptArtifact,
    Hint,
    Registry,
    StaleEpoch,
    UnknownVersion,
)
from shared.registry.fit_note import FitNote
from tests.artifacts import make_artifact

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
NO_VERSION = "2026-01-01-000000000000"


class RegistryLaws(ABC):
    """Subclass with `make` and `corrupt`; every test has a task of its own."""

    @abstractmethod
    def make(self, keep_versions: int = 20) -> Registry:
        """A registry over the store of this test class."""

    @abstractmethod
    def corrupt(self, registry: Registry, task: str, version: str) -> None:
        """Flip one bit of a stored blob, behind the registry's back."""

    @pytest.fixture
    def task(self) -> str:
        return f"task-{uuid4().hex[:12]}"

    @pytest.fixture
    def registry(self) -> Iterator[Registry]:
        registry = self.make()
        yield registry
        registry.close()

    # --- a task nobody ever published to

    def test_a_new_task_has_nothing(self, registry: Registry, task: str) -> None:
        assert registry.active(task) == Active(None, 0)
        assert registry.versions(task) == []
        assert registry.history(task) == []
        with pytest.raises(UnknownVersion):
            registry.rollback(task, to=None, at=AT, reason="")
        with pytest.raises(UnknownVersion):
            registry.retire(task, at=AT, reason="")
        assert registry.active(task) == Active(None, 0)

    @pytest.mark.parametrize("name", ["", "a}b", "../etc", "A", "a:b", "a\n", "x" * 64])
    def test_names_that_are_no_task_are_refused(self, registry: Registry, name: str) -> None:
        with pytest.raises(ValueError, match="not a task name"):
            registry.active(name)
        with pytest.raises(ValueError, match="not a task name"):
            registry.acquire(name)

    # --- publish, active, load

    def test_what_was_published_is_active_and_loads_unchanged(
        self, registry: Registry, task: str
    ) -> None:
        artifact = make_artifact(task)
        active = publish(registry, artifact)
        assert active == Active(artifact.version, 1) == registry.active(task)
        loaded = registry.load(task, artifact.version)
        assert loaded.manifest_bytes == artifact.manifest_bytes
        assert dict(loaded.blobs) == dict(artifact.blobs)

    def test_blobs_the_manifest_does_not_name_are_not_kept(
        self, registry: Registry, task: str
    ) -> None:
        artifact = make_artifact(task)
        publish(registry, Artifact(artifact.manifest_bytes, {**artifact.blobs, "0" * 64: b"?"}))
        assert dict(registry.load(task, artifact.version).blobs) == dict(artifact.blobs)

    def test_tasks_do_not_see_each_other(self, registry: Registry, task: str) -> None:
        publish(registry, make_artifact(task))
        assert registry.active(f"{task}-2") == Active(None, 0)
        with pytest.raises(UnknownVersion):
            registry.load(f"{task}-2", make_artifact(task).version)

    def test_unknown_versions_are_named(self, registry: Registry, task: str) -> None:
        publish(registry, make_artifact(task))
        before = registry.active(task)
        with pytest.raises(UnknownVersion, match=NO_VERSION):
            registry.load(task, NO_VERSION)
        with pytest.raises(UnknownVersion, match=NO_VERSION):
            registry.rollback(task, to=NO_VERSION, at=AT, reason="")
        assert registry.active(task) == before

    def test_an_artifact_that_is_not_whole_is_refused(self, registry: Registry, task: str) -> None:
        artifact = make_artifact(task)
        fence = registry.acquire(task)
        wrong = dict.fromkeys(artifact.blobs, b"other bytes")
        for broken in (
            Artifact(artifact.manifest_bytes, {}),
            Artifact(artifact.manifest_bytes, wrong),
            Artifact(b"{}", artifact.blobs),
            Artifact(b"\xff", artifact.blobs),
        ):
            with pytest.raises(CorruptArtifact):
                registry.publish(broken, fence=fence, at=AT, reason="")
        assert registry.active(task) == Active(None, 0)
        assert registry.versions(task) == []

    def test_an_artifact_that_is_too_large_is_refused(self, registry: Registry, task: str) -> None:
        artifact = make_artifact(task, size=MAX_ARTIFACT_BYTES)
        with pytest.raises(ArtifactTooLarge, match="exceeds the limit of 67,108,864"):
            publish(registry, artifact)
        assert registry.versions(task) == []

    # --- idempotence

    def test_publishing_the_active_version_again_changes_nothing(
        self, registry: Registry, task: str
    ) -> None:
        artifact = make_artifact(task)
        active = publish(registry, artifact)
        history = registry.history(task)
        assert publish(registry, artifact, at=AT + timedelta(days=1), reason="again") == active
        assert registry.active(task) == active
        assert registry.history(task) == history
        assert registry.versions(task) == [artifact.version]

    def test_publishing_a_stored_version_activates_it(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        assert publish(registry, window_artifact(task, 0)) == Active(first, 3)
        assert registry.versions(task) == [first, second]
        assert registry.rollback(task, to=None, at=AT, reason="").version == second
        with pytest.raises(UnknownVersion):
            registry.rollback(task, to=None, at=AT, reason="")

    # --- corruption

    def test_flipped_bytes_are_never_loaded(self, registry: Registry, task: str) -> None:
        artifact = make_artifact(task)
        publish(registry, artifact)
        self.corrupt(registry, task, artifact.version)
        with pytest.raises(CorruptArtifact, match=artifact.version):
            registry.load(task, artifact.version)

    def test_publishing_again_repairs(self, registry: Registry, task: str) -> None:
        artifact = make_artifact(task)
        active = publish(registry, artifact)
        self.corrupt(registry, task, artifact.version)
        assert publish(registry, artifact) == active
        assert dict(registry.load(task, artifact.version).blobs) == dict(artifact.blobs)

    # --- fencing

    def test_a_fence_is_larger_than_all_before_it(self, registry: Registry, task: str) -> None:
        fences = [registry.acquire(task) for _ in range(5)]
        assert fences == sorted(set(fences))

    def test_a_stale_trainer_publishes_nothing(self, registry: Registry, task: str) -> None:
        stale = registry.acquire(task)
        fence = registry.acquire(task)
        active = registry.publish(make_artifact(task), fence=fence, at=AT, reason="")
        for artifact in (make_artifact(task, text="late"), make_artifact(task)):
            with pytest.raises(StaleEpoch, match=str(stale)):
                registry.publish(artifact, fence=stale, at=AT, reason="")
        assert registry.active(task) == active
        assert registry.versions(task) == [active.version]

    def test_a_fence_nobody_acquired_is_stale(self, registry: Registry, task: str) -> None:
        with pytest.raises(StaleEpoch):
            registry.publish(make_artifact(task), fence=7, at=AT, reason="")

    def test_fences_belong_to_one_task(self, registry: Registry, task: str) -> None:
        fence = registry.acquire(task)
        registry.acquire(f"{task}-2")
        registry.publish(make_artifact(task), fence=fence, at=AT, reason="")

    # --- history and epoch

    def test_history_tells_all_newest_first(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        registry.rollback(task, to=None, at=AT + timedelta(hours=1), reason='it "broke" – again')
        registry.retire(task, at=AT + timedelta(hours=2), reason="")
        kinds = [(e.kind, e.version, e.previous, e.epoch) for e in registry.history(task)]
        assert kinds == [
            (AnnouncementKind.RETIRED, None, first, 4),
            (AnnouncementKind.ROLLED_BACK, first, second, 3),
            (AnnouncementKind.PUBLISHED, second, first, 2),
            (AnnouncementKind.PUBLISHED, first, None, 1),
        ]
        rolled_back = registry.history(task)[1]
        assert rolled_back.at == AT + timedelta(hours=1)
        assert rolled_back.reason == 'it "broke" – again'
        assert registry.history(task, limit=1) == registry.history(task)[:1]
        assert registry.history(task, limit=0) == []

    def test_the_epoch_grows_with_every_change(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        epochs = [registry.active(task).epoch]
        for act in (
            lambda: registry.rollback(task, to=None, at=AT, reason=""),
            lambda: registry.rollback(task, to=second, at=AT, reason=""),
            lambda: registry.retire(task, at=AT, reason=""),
            lambda: registry.rollback(task, to=first, at=AT, reason=""),
            lambda: publish(registry, window_artifact(task, 1)),
        ):
            assert act().epoch == registry.active(task).epoch
            epochs.append(registry.active(task).epoch)
        assert epochs == sorted(set(epochs))
        assert [entry.epoch for entry in registry.history(task)] == [
            *reversed(epochs),
            epochs[0] - 1,
        ]

    # --- rollback and retire

    def test_rollbacks_in_a_row_go_further_back(self, registry: Registry, task: str) -> None:
        first, second, third = publish_windows(registry, task, 3)
        entry = registry.rollback(task, to=None, at=AT, reason="bad")
        assert (entry.version, entry.previous) == (second, third)
        assert registry.rollback(task, to=None, at=AT, reason="worse").version == first
        with pytest.raises(UnknownVersion, match="no earlier version"):
            registry.rollback(task, to=None, at=AT, reason="no more")
        assert registry.active(task).version == first
        assert registry.history(task)[0].version == first

    def test_a_publish_after_a_rollback_returns_to_what_it_replaced(
        self, registry: Registry, task: str
    ) -> None:
        first, second = publish_windows(registry, task, 2)
        registry.rollback(task, to=None, at=AT, reason="")
        publish(registry, window_artifact(task, 2))
        # Not `second`: that one was rolled back from.
        assert registry.rollback(task, to=None, at=AT, reason="").version == first
        assert second in registry.versions(task)

    def test_rollback_to_an_earlier_version_goes_on_from_there(
        self, registry: Registry, task: str
    ) -> None:
        versions = publish_windows(registry, task, 4)
        assert registry.rollback(task, to=versions[1], at=AT, reason="").version == versions[1]
        assert registry.rollback(task, to=None, at=AT, reason="").version == versions[0]

    def test_rollback_forward_can_be_undone(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        registry.rollback(task, to=None, at=AT, reason="")
        assert registry.rollback(task, to=second, at=AT, reason="").previous == first
        assert registry.rollback(task, to=None, at=AT, reason="").version == first

    def test_rollback_to_the_active_version_changes_nothing(
        self, registry: Registry, task: str
    ) -> None:
        _, second = publish_windows(registry, task, 2)
        before = registry.active(task), registry.history(task)
        assert registry.rollback(task, to=second, at=AT, reason="") == before[1][0]
        assert (registry.active(task), registry.history(task)) == before

    def test_a_retired_version_comes_back_only_by_name(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        entry = registry.retire(task, at=AT, reason="agreement fell")
        assert (entry.kind, entry.version, entry.previous) == ("retired", None, second)
        assert registry.active(task) == Active(None, 3)
        with pytest.raises(UnknownVersion):
            registry.retire(task, at=AT, reason="")
        assert registry.load(task, second).version == second
        assert registry.rollback(task, to=None, at=AT, reason="").version == first
        assert registry.rollback(task, to=second, at=AT, reason="").version == second

    def test_only_the_version_meant_is_retired(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        before = registry.active(task), registry.history(task)
        with pytest.raises(UnknownVersion, match=first):
            registry.retire(task, version=first, at=AT, reason="")
        assert (registry.active(task), registry.history(task)) == before
        assert registry.retire(task, version=second, at=AT, reason="").previous == second
        with pytest.raises(UnknownVersion, match=second):
            registry.retire(task, version=second, at=AT, reason="")

    # --- retention

    def test_the_oldest_versions_are_deleted(self, task: str) -> None:
        registry = self.make(keep_versions=3)
        versions = publish_windows(registry, task, 6)
        assert registry.versions(task) == versions[-3:]
        for gone in versions[:-3]:
            with pytest.raises(UnknownVersion):
                registry.load(task, gone)
        for kept in versions[-3:]:
            assert registry.load(task, kept).version == kept
        assert len(registry.history(task)) == 6
        registry.rollback(task, to=None, at=AT, reason="")
        registry.rollback(task, to=None, at=AT, reason="")
        with pytest.raises(UnknownVersion):
            registry.rollback(task, to=None, at=AT, reason="")  # to a deleted one
        registry.close()

    def test_what_a_rollback_would_return_to_is_never_deleted(self, task: str) -> None:
        registry = self.make(keep_versions=2)
        first, second, third = publish_windows(registry, task, 3)
        assert registry.versions(task) == [second, third]
        registry.rollback(task, to=None, at=AT, reason="")
        fourth = publish(registry, window_artifact(task, 3)).version
        # `third` is newer than `second`, but `second` is what was active before.
        assert registry.versions(task) == [second, fourth]
        assert registry.rollback(task, to=None, at=AT, reason="").version == second
        assert first not in registry.versions(task)
        registry.close()

    def test_keeping_one_keeps_the_way_back(self, task: str) -> None:
        registry = self.make(keep_versions=1)
        versions = publish_windows(registry, task, 4)
        assert registry.versions(task) == versions[-2:]
        registry.close()

    # --- many at once

    def test_concurrent_publishers_leave_one_consistent_story(
        self, registry: Registry, task: str
    ) -> None:
        fence = registry.acquire(task)

        def publish_one(number: int) -> Active:
            artifact = window_artifact(task, number)
            return registry.publish(artifact, fence=fence, at=AT, reason="")

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(publish_one, range(16)))
        history = registry.history(task)
        assert [entry.epoch for entry in history] == list(range(16, 0, -1))
        for newer, older in pairwise(history):
            assert newer.previous == older.version
        assert {(e.version, e.epoch) for e in history} == {(r.version, r.epoch) for r in results}
        assert registry.active(task) == Active(history[0].version, 16)
        for version in registry.versions(task):
            registry.load(task, version)

    def test_of_concurrent_trainers_only_the_last_to_acquire_publishes(
        self, registry: Registry, task: str
    ) -> None:
        fences = [registry.acquire(task) for _ in range(8)]

        def attempt(fence: int) -> bool:
            artifact = window_artifact(task, fence)
            try:
                registry.publish(artifact, fence=fence, at=AT, reason="")
            except StaleEpoch:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(attempt, fences))
        assert outcomes == [False] * 7 + [True]
        assert len(registry.versions(task)) == 1

    # --- hints

    def test_every_change_gives_a_hint(self, registry: Registry, task: str) -> None:
        settle(registry)
        publish_windows(registry, task, 2)
        for act in (
            lambda: None,
            lambda: registry.rollback(task, to=None, at=AT, reason=""),
            lambda: registry.retire(task, at=AT, reason=""),
        ):
            act()
            assert registry.wait_for_change(5.0)
            settle(registry)

    def test_the_first_wait_tells_to_look_at_everything(self) -> None:
        registry = self.make()
        assert registry.wait_for_change(5.0).everything
        registry.close()

    def test_a_hint_names_the_tasks_that_changed(self, registry: Registry, task: str) -> None:
        other = f"{task}-other"
        settle(registry)
        publish(registry, make_artifact(other))
        publish_windows(registry, task, 2)
        heard: set[str] = set()
        while hint := registry.wait_for_change(0.5):
            assert not hint.everything
            heard |= hint.tasks
        assert heard == {task, other}
        registry.retire(other, at=AT, reason="")
        assert registry.wait_for_change(5.0) == Hint(frozenset({other}))

    def test_pointers_of_many_tasks_are_those_of_each(self, registry: Registry, task: str) -> None:
        publish_windows(registry, task, 2)
        publish(registry, make_artifact(f"{task}-other"))
        tasks = [f"{task}-other", *(f"{task}-{n}" for n in range(450)), task]
        found = registry.pointers(tasks)
        assert list(found) == tasks
        assert found == {name: registry.active(name) for name in tasks}
        assert registry.pointers([]) == {}
        with pytest.raises(ValueError, match="not a task name"):
            registry.pointers([task, "a}b"])

    def test_a_hint_ends_the_wait(self, registry: Registry, task: str) -> None:
        settle(registry)
        timer = threading.Timer(0.3, publish, (registry, make_artifact(task)))
        started = time.monotonic()
        timer.start()
        assert registry.wait_for_change(10.0)
        assert 0.2 < time.monotonic() - started < 3.0
        timer.join()
        assert registry.active(task).epoch == 1

    def test_without_a_change_the_wait_times_out(self, registry: Registry, task: str) -> None:
        settle(registry)
        registry.acquire(task)
        started = time.monotonic()
        assert not registry.wait_for_change(0.3)
        assert 0.25 < time.monotonic() - started < 2.0

    # --- the last refit

    def test_the_last_refit_is_noted_and_no_change(self, registry: Registry, task: str) -> None:
        assert registry.last_fit(task) is None
        (version,) = publish_windows(registry, task, 1)
        before, history = registry.active(task), registry.history(task)
        settle(registry)
        for number, verdict in enumerate(("failed", "kept")):
            note = FitNote(
                window=f"2026-01-0{number + 1}", verdict=verdict, reason="so ≥ it is", at=AT
            )
            registry.note_fit(task, note)
            assert registry.last_fit(task) == note
        assert registry.active(task) == before
        assert before.version == version
        assert registry.history(task) == history
        assert not registry.wait_for_change(0.1)
        assert registry.last_fit(f"{task}-other") is None


def settle(registry: Registry) -> None:
    """Take the hints that are due anyway: the first wait always gives one."""
    while registry.wait_for_change(0.1):
        pass


def publish(
    registry: Registry, artifact: Artifact, *, at: datetime = AT, reason: str = "certified"
) -> Active:
    fence = registry.acquire(artifact.manifest.task)
    return registry.publish(artifact, fence=fence, at=at, reason=reason)


def window_artifact(task: str, number: int) -> Artifact:
    return make_artifact(task, window=f"2026-01-{number + 1:02d}", text=f"window {number}")


def publish_windows(registry: Registry, task: str, count: int) -> list[str]:
    """Publish `count` windows in turn; their versions."""
    artifacts = [window_artifact(task, number) for number in range(count)]
    for artifact in artifacts:
        publish(registry, artifact)
    return [artifact.version for artifact in artifacts]
