"""The laws of states, trials and audits, kept by every registry beside those of registry_laws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.contracts.events import AnnouncementKind
from shared.registry.base import (
    MAX_AUDITS_PER_CALL,
    Active,
    Artifact,
    CorruptArtifact,
    HistoryEntry,
    Mode,
    Registry,
    StaleEpoch,
    State,
    StateChanged,
    Trial,
    TrippedVersion,
    UnknownVersion,
)
from tests.contract.registry_laws import (
    AT,
    NO_VERSION,
    publish,
    publish_windows,
    settle,
    window_artifact,
)

# What a move is called in the history. Every other move is out of TRIPPED, or none.
MOVES = {
    (State.SERVING, State.PROBATION): AnnouncementKind.PROBATION,
    (State.SERVING, State.PAUSED): AnnouncementKind.PAUSED,
    (State.SERVING, State.TRIPPED): AnnouncementKind.TRIPPED,
    (State.PROBATION, State.SERVING): AnnouncementKind.CLEARED,
    (State.PROBATION, State.PAUSED): AnnouncementKind.PAUSED,
    (State.PROBATION, State.TRIPPED): AnnouncementKind.TRIPPED,
    (State.PAUSED, State.SERVING): AnnouncementKind.RESUMED,
    (State.PAUSED, State.PROBATION): AnnouncementKind.PROBATION,
    (State.PAUSED, State.TRIPPED): AnnouncementKind.TRIPPED,
}


class StateLaws(ABC):
    """A mixin to RegistryLaws, which has the fixtures."""

    @abstractmethod
    def make(self, keep_versions: int = 20) -> Registry: ...

    @abstractmethod
    def corrupt(self, registry: Registry, task: str, version: str) -> None: ...

    # --- states

    @pytest.mark.parametrize(("move", "kind"), MOVES.items(), ids=lambda m: str(m))
    def test_a_move_is_a_change(
        self,
        registry: Registry,
        task: str,
        move: tuple[State, State],
        kind: AnnouncementKind,
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        before, after = move
        set_state(registry, task, before, version)
        epoch = registry.active(task).epoch
        settle(registry)
        entry = set_state(registry, task, after, version, reason="why")
        assert entry == HistoryEntry(kind, version, version, epoch + 1, AT, "why")
        assert registry.active(task) == Active(version, epoch + 1, after)
        assert registry.history(task)[0] == entry
        assert registry.wait_for_change(5.0)

    @pytest.mark.parametrize("state", list(State))
    def test_the_state_it_has_already_changes_nothing(
        self, registry: Registry, task: str, state: State
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        set_state(registry, task, state, version)
        before = registry.active(task), registry.history(task)
        assert set_state(registry, task, state, version, reason="again") == before[1][0]
        assert (registry.active(task), registry.history(task)) == before

    def test_only_the_active_version_has_a_state(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        for version in (first, NO_VERSION):
            with pytest.raises(UnknownVersion, match=f"{version} is no longer active"):
                set_state(registry, task, State.TRIPPED, version)
        assert registry.active(task) == Active(second, 2)
        registry.retire(task, at=AT, reason="")
        with pytest.raises(UnknownVersion, match="no longer active"):
            set_state(registry, task, State.PAUSED, second)
        assert registry.active(task) == Active(None, 3)

    def test_a_rule_cannot_undo_a_pause_it_has_not_seen(
        self, registry: Registry, task: str
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        set_state(registry, task, State.PROBATION, version, was=State.SERVING)
        set_state(registry, task, State.PAUSED, version)
        before = registry.active(task)
        with pytest.raises(StateChanged, match="is paused, not probation"):
            set_state(registry, task, State.SERVING, version, was=State.PROBATION)
        assert registry.active(task) == before
        assert set_state(registry, task, State.SERVING, version, was=State.PAUSED).kind == "resumed"

    @pytest.mark.parametrize("state", [State.PAUSED, State.PROBATION])
    def test_another_version_serves_whatever_the_one_before_did(
        self, registry: Registry, task: str, state: State
    ) -> None:
        first, second = publish_windows(registry, task, 2)
        set_state(registry, task, state, second)
        assert publish(registry, window_artifact(task, 2)).state is State.SERVING
        set_state(registry, task, state, window_artifact(task, 2).version)
        registry.rollback(task, to=first, at=AT, reason="")
        assert registry.active(task).state is State.SERVING
        set_state(registry, task, state, first)
        registry.retire(task, at=AT, reason="")
        assert registry.active(task).state is State.SERVING

    def test_publishing_a_paused_version_again_leaves_it_paused(
        self, registry: Registry, task: str
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        set_state(registry, task, State.PAUSED, version)
        active = registry.active(task)
        assert publish(registry, window_artifact(task, 0)) == active == registry.active(task)

    # --- tripped versions

    def test_a_tripped_version_never_moves_again(self, registry: Registry, task: str) -> None:
        (version,) = publish_windows(registry, task, 1)
        set_state(registry, task, State.TRIPPED, version)
        before = registry.active(task), registry.history(task)
        for state in (State.SERVING, State.PROBATION, State.PAUSED):
            with pytest.raises(TrippedVersion, match=version):
                set_state(registry, task, state, version)
        with pytest.raises(TrippedVersion, match=version):
            registry.rollback(task, to=version, at=AT, reason="")
        assert (registry.active(task), registry.history(task)) == before

    def test_publishing_a_tripped_version_repairs_it_and_no_more(
        self, registry: Registry, task: str
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        set_state(registry, task, State.TRIPPED, version)
        active = registry.active(task)
        self.corrupt(registry, task, version)
        assert publish(registry, window_artifact(task, 0)) == active == registry.active(task)
        assert registry.load(task, version).version == version
        other = publish(registry, window_artifact(task, 1))
        assert publish(registry, window_artifact(task, 0)) == other == registry.active(task)
        retired = registry.retire(task, at=AT, reason="")
        assert publish(registry, window_artifact(task, 0)) == Active(None, retired.epoch)

    def test_a_tripped_version_cannot_come_back_by_name(
        self, registry: Registry, task: str
    ) -> None:
        first, second = publish_windows(registry, task, 2)
        set_state(registry, task, State.TRIPPED, second)
        registry.rollback(task, to=None, at=AT, reason="")
        assert registry.active(task) == Active(first, 4)
        before = registry.active(task), registry.history(task)
        with pytest.raises(TrippedVersion, match=second):
            registry.rollback(task, to=second, at=AT, reason="")
        with pytest.raises(TrippedVersion, match=second):
            start_trial(registry, window_artifact(task, 1))
        assert (registry.active(task), registry.history(task)) == before

    def test_a_rollback_passes_over_tripped_versions(self, registry: Registry, task: str) -> None:
        first, _ = publish_windows(registry, task, 2)
        for number in (1, 2):
            version = publish(registry, window_artifact(task, number)).version
            assert version is not None
            set_state(registry, task, State.TRIPPED, version)
        publish(registry, window_artifact(task, 3))
        assert registry.rollback(task, to=None, at=AT, reason="").version == first
        with pytest.raises(UnknownVersion, match="no earlier version"):
            registry.rollback(task, to=None, at=AT, reason="")

    def test_with_nothing_but_tripped_versions_there_is_no_way_back(
        self, registry: Registry, task: str
    ) -> None:
        (first,) = publish_windows(registry, task, 1)
        set_state(registry, task, State.TRIPPED, first)
        publish(registry, window_artifact(task, 1))
        with pytest.raises(UnknownVersion, match="no earlier version"):
            registry.rollback(task, to=None, at=AT, reason="")

    def test_what_a_rollback_would_return_to_is_kept_past_tripped_ones(self, task: str) -> None:
        registry = self.make(keep_versions=2)
        first, second = publish_windows(registry, task, 2)
        set_state(registry, task, State.TRIPPED, second)
        publish(registry, window_artifact(task, 2))
        assert first in registry.versions(task)
        assert second not in registry.versions(task)
        assert registry.rollback(task, to=None, at=AT, reason="").version == first
        # Deleted, it is forgotten: the same bytes may be certified anew.
        assert publish(registry, window_artifact(task, 1)).version == second
        registry.close()

    # --- the α asked for

    def test_another_alpha_is_a_change_and_nothing_else(
        self, registry: Registry, task: str
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        settle(registry)
        entry = registry.set_alpha(task, 0.97, at=AT, reason="why", actor="maria")
        assert entry == HistoryEntry(
            AnnouncementKind.ALPHA, version, version, 2, AT, "why", "maria", 0.97
        )
        assert registry.history(task)[0] == entry
        assert registry.active(task) == Active(version, 2, alpha=0.97)
        assert registry.active(task).asked(0.9) == 0.97 == registry.alpha(task)
        assert registry.wait_for_change(5.0)

    def test_the_alpha_asked_for_already_changes_nothing(
        self, registry: Registry, task: str
    ) -> None:
        assert registry.set_alpha(task, None, at=AT, reason="") is None
        assert registry.active(task) == Active(None, 0)
        registry.set_alpha(task, 0.9700001, at=AT, reason="")
        before = registry.active(task), registry.history(task)
        assert registry.set_alpha(task, 0.97, at=AT, reason="again") is None
        assert (registry.active(task), registry.history(task)) == before

    def test_the_tasks_file_holds_again(self, registry: Registry, task: str) -> None:
        registry.set_alpha(task, 0.97, at=AT, reason="")
        entry = registry.set_alpha(task, None, at=AT, reason="")
        assert entry is not None
        assert (entry.kind, entry.alpha, entry.epoch) == (AnnouncementKind.ALPHA, None, 2)
        assert registry.active(task) == Active(None, 2)
        assert registry.active(task).asked(0.9) == 0.9

    def test_alpha_outlives_versions(self, registry: Registry, task: str) -> None:
        registry.set_alpha(task, 0.97, at=AT, reason="")
        first, second = publish_windows(registry, task, 2)
        set_state(registry, task, State.PAUSED, second)
        start_trial(registry, window_artifact(task, 2))
        registry.promote(task, at=AT, reason="")
        registry.rollback(task, to=first, at=AT, reason="")
        registry.retire(task, at=AT, reason="")
        assert registry.active(task) == Active(None, registry.active(task).epoch, alpha=0.97)

    def test_alpha_is_set_on_what_was_shown(self, registry: Registry, task: str) -> None:
        publish_windows(registry, task, 1)
        with pytest.raises(StateChanged, match="epoch 1, not 0"):
            registry.set_alpha(task, 0.97, epoch=0, at=AT, reason="")
        assert registry.alpha(task) is None
        assert registry.set_alpha(task, 0.97, epoch=1, at=AT, reason="") is not None

    @pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, 1e-9, float("nan")])
    def test_alpha_is_a_share(self, registry: Registry, task: str, alpha: float) -> None:
        with pytest.raises(ValueError, match="between 0 and 1"):
            registry.set_alpha(task, alpha, at=AT, reason="")
        assert registry.active(task).epoch == 0

    def test_the_history_says_who(self, registry: Registry, task: str) -> None:
        first, second = publish_windows(registry, task, 2)
        start_trial(registry, window_artifact(task, 2))
        registry.withdraw(task, at=AT, reason="", actor="a")
        start_trial(registry, window_artifact(task, 2))
        registry.promote(task, at=AT, reason="", actor="b")
        registry.rollback(task, to=None, at=AT, reason="", actor="c")
        registry.set_state(task, State.PAUSED, version=second, at=AT, reason="", actor="d")
        registry.retire(task, at=AT, reason="", actor="e")
        named = [entry.actor for entry in registry.history(task) if entry.actor]
        assert named == ["e", "d", "c", "b", "a"]
        assert len(registry.history(task)) == 9
        assert first in registry.versions(task)

    # --- trials

    @pytest.mark.parametrize(("mode", "share"), [("shadow", 0.0), ("canary", 0.1)])
    def test_a_trial_is_stored_beside_the_active_version(
        self, registry: Registry, task: str, mode: Mode, share: float
    ) -> None:
        (first,) = publish_windows(registry, task, 1)
        settle(registry)
        artifact = window_artifact(task, 1)
        active = start_trial(registry, artifact, mode=mode, share=share, reason="certified")
        assert active == Active(first, 2, State.SERVING, Trial(artifact.version, mode, share))
        assert registry.active(task) == active
        assert registry.history(task)[0] == HistoryEntry(
            AnnouncementKind(mode), artifact.version, first, 2, AT, "certified"
        )
        assert registry.wait_for_change(5.0)
        assert dict(registry.load(task, artifact.version).blobs) == dict(artifact.blobs)

    def test_the_first_version_of_a_task_may_start_on_trial(
        self, registry: Registry, task: str
    ) -> None:
        active = start_trial(registry, window_artifact(task, 0))
        assert (active.version, active.epoch) == (None, 1)
        entry = registry.promote(task, at=AT, reason="")
        assert (entry.version, entry.previous) == (window_artifact(task, 0).version, None)

    def test_the_same_trial_again_changes_nothing_but_repairs(
        self, registry: Registry, task: str
    ) -> None:
        artifact = window_artifact(task, 0)
        active = start_trial(registry, artifact)
        self.corrupt(registry, task, artifact.version)
        history = registry.history(task)
        assert start_trial(registry, artifact, reason="again") == active == registry.active(task)
        assert registry.history(task) == history
        assert registry.load(task, artifact.version).version == artifact.version
        assert registry.versions(task) == [artifact.version]

    def test_a_trial_of_the_active_version_changes_nothing(
        self, registry: Registry, task: str
    ) -> None:
        publish_windows(registry, task, 1)
        active = start_trial(registry, window_artifact(task, 1))
        assert start_trial(registry, window_artifact(task, 0)) == active == registry.active(task)

    def test_a_trial_takes_the_place_of_the_one_before(self, registry: Registry, task: str) -> None:
        publish_windows(registry, task, 1)
        start_trial(registry, window_artifact(task, 1))
        second = window_artifact(task, 2)
        for mode, share in (("shadow", 0.0), ("canary", 0.1), ("canary", 0.2)):
            active = start_trial(registry, second, mode=mode, share=share)  # type: ignore[arg-type]
            assert active.trial == Trial(second.version, mode, share)  # type: ignore[arg-type]
        kinds = [entry.kind.value for entry in registry.history(task)]
        assert kinds == ["canary", "canary", "shadow", "shadow", "published"]
        assert len(registry.versions(task)) == 3

    def test_a_stale_trainer_tries_nothing(self, registry: Registry, task: str) -> None:
        stale = registry.acquire(task)
        registry.acquire(task)
        with pytest.raises(StaleEpoch, match=str(stale)):
            registry.start_trial(
                window_artifact(task, 0), mode="shadow", share=0.0, fence=stale, at=AT, reason=""
            )
        assert registry.active(task) == Active(None, 0)
        assert registry.versions(task) == []

    def test_what_is_no_trial_is_refused(self, registry: Registry, task: str) -> None:
        artifact = window_artifact(task, 0)
        with pytest.raises(ValueError, match="not a mode"):
            start_trial(registry, artifact, mode="direct")  # type: ignore[arg-type]
        for share in (-0.1, 1.1, float("nan")):
            with pytest.raises(ValueError, match="share is 0 to 1"):
                start_trial(registry, artifact, mode="canary", share=share)
        with pytest.raises(CorruptArtifact):
            start_trial(registry, Artifact(artifact.manifest_bytes, {}))
        assert registry.versions(task) == []

    def test_promotion_makes_the_trial_the_active_version(
        self, registry: Registry, task: str
    ) -> None:
        (first,) = publish_windows(registry, task, 1)
        trial = window_artifact(task, 1).version
        start_trial(registry, window_artifact(task, 1))
        set_state(registry, task, State.PAUSED, first)
        settle(registry)
        entry = registry.promote(task, version=trial, at=AT, reason="by evidence")
        assert entry == HistoryEntry(AnnouncementKind.PROMOTED, trial, first, 4, AT, "by evidence")
        assert registry.active(task) == Active(trial, 4)
        assert registry.history(task)[0] == entry
        assert registry.wait_for_change(5.0)
        back = registry.rollback(task, to=None, at=AT, reason="")
        assert (back.version, back.previous) == (first, trial)

    def test_a_promotion_is_of_what_was_looked_at(self, registry: Registry, task: str) -> None:
        """Else one that a rule decides on would end the pause that came in between."""
        (first,) = publish_windows(registry, task, 1)
        trial = window_artifact(task, 1).version
        start_trial(registry, window_artifact(task, 1))
        seen = registry.active(task).epoch
        set_state(registry, task, State.PAUSED, first)
        with pytest.raises(StateChanged, match=f"epoch {seen + 1}, not {seen}"):
            registry.promote(task, version=trial, epoch=seen, at=AT, reason="by evidence")
        assert registry.active(task).version == first
        assert registry.active(task).state is State.PAUSED
        with pytest.raises(UnknownVersion):
            registry.promote(task, version=NO_VERSION, epoch=seen, at=AT, reason="")
        registry.promote(task, version=trial, epoch=seen + 1, at=AT, reason="by hand")
        assert registry.active(task).version == trial

    def test_withdrawing_ends_the_trial_and_no_more(self, registry: Registry, task: str) -> None:
        (first,) = publish_windows(registry, task, 1)
        trial = window_artifact(task, 1).version
        start_trial(registry, window_artifact(task, 1))
        set_state(registry, task, State.PROBATION, first)
        settle(registry)
        entry = registry.withdraw(task, version=trial, at=AT, reason="worse")
        assert entry == HistoryEntry(AnnouncementKind.WITHDRAWN, trial, first, 4, AT, "worse")
        assert registry.active(task) == Active(first, 4, State.PROBATION)
        assert registry.history(task)[0] == entry
        assert registry.wait_for_change(5.0)
        assert registry.load(task, trial).version == trial

    def test_a_version_that_tripped_on_trial_does_not_come_back(
        self, registry: Registry, task: str
    ) -> None:
        first, second = publish_windows(registry, task, 2)
        start_trial(registry, window_artifact(task, 2))
        failed = registry.withdraw(task, at=AT, reason="by evidence").version
        assert failed is not None
        with pytest.raises(TrippedVersion):
            registry.rollback(task, to=failed, at=AT, reason="")
        with pytest.raises(TrippedVersion):
            start_trial(registry, window_artifact(task, 2))
        assert publish(registry, window_artifact(task, 2)).version == second
        assert registry.rollback(task, to=None, at=AT, reason="").version == first

    def test_what_an_operator_withdrew_or_a_trial_replaced_may_come_back(
        self, registry: Registry, task: str
    ) -> None:
        publish_windows(registry, task, 1)
        start_trial(registry, window_artifact(task, 1))
        start_trial(registry, window_artifact(task, 2))
        registry.withdraw(task, at=AT, reason="", actor="maria")
        for number in (1, 2):
            version = window_artifact(task, number).version
            start_trial(registry, window_artifact(task, number))
            assert registry.rollback(task, to=version, at=AT, reason="").version == version

    def test_without_that_trial_nothing_is_promoted_or_withdrawn(
        self, registry: Registry, task: str
    ) -> None:
        publish_windows(registry, task, 1)
        for act in (registry.promote, registry.withdraw):
            with pytest.raises(UnknownVersion, match="no version on trial"):
                act(task, at=AT, reason="")
        start_trial(registry, window_artifact(task, 1))
        before = registry.active(task)
        for act in (registry.promote, registry.withdraw):
            with pytest.raises(UnknownVersion, match=NO_VERSION):
                act(task, version=NO_VERSION, at=AT, reason="")
        assert registry.active(task) == before

    @pytest.mark.parametrize("number", [1, 2], ids=["the trial's version", "another version"])
    def test_a_publish_ends_the_trial(self, registry: Registry, task: str, number: int) -> None:
        publish_windows(registry, task, 1)
        start_trial(registry, window_artifact(task, 1))
        active = publish(registry, window_artifact(task, number))
        assert active == Active(window_artifact(task, number).version, 3) == registry.active(task)

    def test_a_retirement_ends_the_trial(self, registry: Registry, task: str) -> None:
        publish_windows(registry, task, 1)
        start_trial(registry, window_artifact(task, 1))
        registry.retire(task, at=AT, reason="")
        assert registry.active(task) == Active(None, 3)

    def test_a_rollback_ends_no_trial_but_its_targets(self, registry: Registry, task: str) -> None:
        first, _ = publish_windows(registry, task, 2)
        trial = start_trial(registry, window_artifact(task, 2)).trial
        registry.rollback(task, to=None, at=AT, reason="")
        assert registry.active(task) == Active(first, 4, State.SERVING, trial)
        assert trial is not None
        registry.rollback(task, to=trial.version, at=AT, reason="")
        assert registry.active(task) == Active(trial.version, 5)

    def test_a_trial_goes_on_while_the_active_versions_state_changes(
        self, registry: Registry, task: str
    ) -> None:
        (first,) = publish_windows(registry, task, 1)
        trial = start_trial(registry, window_artifact(task, 1)).trial
        set_state(registry, task, State.TRIPPED, first)
        assert registry.active(task) == Active(first, 3, State.TRIPPED, trial)

    def test_the_version_on_trial_is_never_deleted(self, task: str) -> None:
        registry = self.make(keep_versions=1)
        publish_windows(registry, task, 1)
        trial = start_trial(registry, window_artifact(task, 1)).trial
        assert trial is not None
        for number in (2, 3):
            start_trial(registry, window_artifact(task, number))
        assert registry.versions(task) == [
            window_artifact(task, number).version for number in (0, 3)
        ]
        registry.close()

    # --- audits

    def test_audits_are_appended_in_order(self, registry: Registry, task: str) -> None:
        (version,) = publish_windows(registry, task, 1)
        before = registry.active(task), registry.history(task)
        settle(registry)
        assert registry.audits(task, version) == ()
        assert registry.record_audits(task, version, 0, [(0, True), (7, False)]) == 2
        assert registry.record_audits(task, version, 3, [(5, False), (6, True)]) == 4
        assert registry.record_audits(task, version, 0, []) == 4
        assert registry.audits(task, version) == (True, False, False, True)
        assert registry.audits(task, version, 3) == (True,)
        assert registry.audits(task, version, 4) == registry.audits(task, version, 9) == ()
        assert (registry.active(task), registry.history(task)) == before
        assert not registry.wait_for_change(0.1)

    def test_a_redelivery_counts_nothing_twice(self, registry: Registry, task: str) -> None:
        (version,) = publish_windows(registry, task, 1)
        batch = [(offset, offset != 4) for offset in range(6)]
        assert registry.record_audits(task, version, 0, batch) == 6
        assert registry.record_audits(task, version, 0, batch) == 6
        assert registry.record_audits(task, version, 0, batch[:3]) == 6
        # The old ones say something else now: what was recorded stays.
        assert registry.record_audits(task, version, 0, [(5, False), (6, False), (8, True)]) == 8
        # The mark went on to 8 and not back.
        assert registry.record_audits(task, version, 0, [(7, True), (8, False)]) == 8
        assert registry.audits(task, version) == (True,) * 4 + (False, True, False, True)

    def test_audits_belong_to_task_version_and_partition(
        self, registry: Registry, task: str
    ) -> None:
        first, second = publish_windows(registry, task, 2)
        publish_windows(registry, f"{task}-2", 1)
        assert registry.record_audits(task, first, 0, [(9, True)]) == 1
        assert registry.record_audits(task, second, 0, [(1, False)]) == 1
        assert registry.record_audits(task, first, 1, [(1, False)]) == 2
        assert registry.audits(task, first) == (True, False)
        assert registry.audits(task, second) == (False,)
        assert registry.audits(f"{task}-2", first) == ()

    def test_a_version_on_trial_has_audits_too(self, registry: Registry, task: str) -> None:
        trial = window_artifact(task, 0).version
        start_trial(registry, window_artifact(task, 0))
        assert registry.record_audits(task, trial, 0, [(1, True)]) == 1
        registry.promote(task, at=AT, reason="")
        assert registry.audits(task, trial) == (True,)

    def test_of_a_version_that_is_not_stored_nothing_is_recorded(
        self, registry: Registry, task: str
    ) -> None:
        assert registry.record_audits(task, NO_VERSION, 0, [(1, True)]) == 0
        assert registry.audits(task, NO_VERSION) == ()

    def test_audits_go_with_the_version(self, task: str) -> None:
        registry = self.make(keep_versions=2)
        (first,) = publish_windows(registry, task, 1)
        registry.record_audits(task, first, 0, [(5, True)])
        for number in (1, 2):
            publish(registry, window_artifact(task, number))
        assert registry.audits(task, first) == ()
        publish(registry, window_artifact(task, 0))
        assert registry.record_audits(task, first, 0, [(3, False)]) == 1  # the marks went as well
        registry.close()

    def test_as_many_audits_as_a_call_takes(self, registry: Registry, task: str) -> None:
        (version,) = publish_windows(registry, task, 1)
        most = [(offset, offset % 3 > 0) for offset in range(MAX_AUDITS_PER_CALL)]
        assert registry.record_audits(task, version, 0, most) == len(most)
        assert registry.audits(task, version) == tuple(agrees for _, agrees in most)
        with pytest.raises(ValueError, match="at most 10,000"):
            registry.record_audits(task, version, 1, [*most, (len(most), True)])

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda r, t, v: r.record_audits(t, v, 0, [(2, True), (1, True)]),
            lambda r, t, v: r.record_audits(t, v, 0, [(1, True), (1, True)]),
            lambda r, t, v: r.record_audits(t, v, 0, [(-1, True)]),
            lambda r, t, v: r.record_audits(t, v, -1, [(1, True)]),
            lambda r, t, v: r.audits(t, v, -1),
        ],
        ids=["falling", "repeated", "negative offset", "negative partition", "negative start"],
    )
    def test_what_is_no_run_of_audits_is_refused(
        self, registry: Registry, task: str, wrong: Callable[[Registry, str, str], object]
    ) -> None:
        (version,) = publish_windows(registry, task, 1)
        with pytest.raises(ValueError, match=r"offsets|positions"):
            wrong(registry, task, version)
        assert registry.audits(task, version) == ()

    def test_concurrent_recorders_lose_and_double_nothing(
        self, registry: Registry, task: str
    ) -> None:
        (version,) = publish_windows(registry, task, 1)

        def record(partition: int) -> None:
            for _ in range(2):
                for start in range(0, 50, 10):
                    batch = [(offset, partition % 2 == 0) for offset in range(start, start + 10)]
                    registry.record_audits(task, version, partition, batch)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(record, range(4)))
        outcomes = registry.audits(task, version)
        assert (len(outcomes), sum(outcomes)) == (200, 100)


def set_state(
    registry: Registry,
    task: str,
    state: State,
    version: str,
    *,
    was: State | None = None,
    reason: str = "",
) -> HistoryEntry:
    return registry.set_state(task, state, version=version, was=was, at=AT, reason=reason)


def start_trial(
    registry: Registry,
    artifact: Artifact,
    *,
    mode: Mode = "shadow",
    share: float = 0.0,
    reason: str = "",
) -> Active:
    fence = registry.acquire(artifact.manifest.task)
    return registry.start_trial(artifact, mode=mode, share=share, fence=fence, at=AT, reason=reason)
