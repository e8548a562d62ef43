"""The live certificate at work: audits in, states and announcements out."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pytest
from doubles import HashEncoder
from msgspec.structs import replace
from prometheus_client import REGISTRY
from surrogates import make_surrogate

from services.trainer.monitor import Monitor
from services.trainer.watched import FOREIGN_TRACES
from shared.clock import FakeClock
from shared.contracts.events import (
    AnnouncementKind,
    ModelAnnouncement,
    Opinion,
    Reason,
    Source,
    Trace,
)
from shared.contracts.manifest import Teacher
from shared.contracts.tasks import Task
from shared.registry.base import Artifact, HistoryEntry, RegistryUnavailable, State
from shared.registry.memory import MemoryRegistry
from shared.telemetry import metrics

AT = datetime(2026, 1, 5, tzinfo=UTC)
ENCODER = HashEncoder()


@cache
def surrogate(window: str, teacher: Teacher | None = None) -> Artifact:
    return make_surrogate(ENCODER, window=window, teacher=teacher)


class Bench:
    """A published version, and audits of it at will."""

    def __init__(self, **task: object) -> None:
        self.registry = MemoryRegistry()
        self.announced: list[ModelAnnouncement] = []
        self.tasks = {"support": Task(name="support", alpha=0.9, **task)}  # type: ignore[arg-type]
        self.monitor = self.new_monitor()
        self.offset = 0

    def new_monitor(self) -> Monitor:
        return Monitor(
            tasks=self.tasks,
            registry=self.registry,
            announce=self.announced.append,
            clock=FakeClock(AT),
        )

    def publish(self, window: str = "2026-01-05", teacher: Teacher | None = None) -> str:
        artifact = surrogate(window, teacher)
        fence = self.registry.acquire("support")
        self.registry.publish(artifact, fence=fence, at=AT, reason="test")
        return artifact.version

    def trace(
        self, version: str, *, agrees: bool = True, drawn: bool = True,
        reason: Reason | None = None, model: str = "llm-1", handled: bool = True,
        asked: str | None = None,
    ) -> Trace:  # fmt: skip
        """`asked`: the active version, where it is another."""
        self.offset += 1
        return Trace(
            id=f"t{self.offset}",
            task="support",
            input="a text",
            teacher="billing",
            occurred_at=AT,
            teacher_model=model,
            source=Source.AUDITED if reason is None else Source.DEFERRED,
            deferral_reason=reason,
            version=asked or version,
            opinions=[
                Opinion(version=version, label="billing" if agrees else "account", handled=handled)
            ],
            drawn=drawn,
        )

    def audit(self, version: str, n: int, agreement: float, **how: object) -> None:
        """n audits, one batch each; the share that agrees is exact."""
        rng = np.random.default_rng(n)
        outcomes = np.arange(n) < round(agreement * n)
        for agrees in rng.permutation(outcomes):
            trace = self.trace(version, agrees=bool(agrees), **how)  # type: ignore[arg-type]
            self.monitor.see(trace, 0, self.offset)
            self.monitor.settle()

    @property
    def kinds(self) -> list[AnnouncementKind]:
        return [announcement.kind for announcement in self.announced]

    @property
    def state(self) -> State:
        return self.registry.active("support").state


def test_a_good_version_is_left_alone() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 500, 0.95)
    assert bench.state is State.SERVING
    assert bench.announced == []
    assert len(bench.registry.audits("support", version)) == 500


def test_a_failing_version_goes_on_probation_and_is_tripped_with_the_evidence() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 400, 0.95)
    bench.audit(version, 300, 0.6)
    assert bench.state is State.TRIPPED
    assert bench.kinds == [AnnouncementKind.PROBATION, AnnouncementKind.TRIPPED]
    tripped = bench.announced[-1]
    assert tripped.version == version
    assert tripped.figures["e_value"] >= 1 / 0.1
    assert "credibly below" in tripped.reason


def test_after_a_trip_nothing_but_a_new_version_helps() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 300, 0.6)
    bench.audit(version, 300, 1.0, reason=Reason.PROBATION)
    assert bench.state is State.TRIPPED
    bench.publish(window="2026-01-06")
    assert bench.state is State.SERVING


def test_a_false_alarm_is_cleared_by_the_requests_of_the_probation() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 400, 0.95)
    bench.audit(version, 7, 0.0)  # an unlucky run, not yet credible
    assert bench.state is State.PROBATION
    bench.audit(version, 400, 0.97, drawn=False, reason=Reason.PROBATION)
    assert bench.state is State.SERVING
    assert bench.kinds == [AnnouncementKind.PROBATION, AnnouncementKind.CLEARED]


def test_a_version_that_was_cleared_is_not_suspected_again_by_another_trainer() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 400, 0.95)
    bench.audit(version, 7, 0.0)
    bench.audit(version, 400, 0.97, drawn=False, reason=Reason.PROBATION)
    assert bench.state is State.SERVING
    bench.monitor = bench.new_monitor()
    bench.audit(version, 1, 1.0)
    assert bench.state is State.SERVING
    bench.audit(version, 9, 0.0)  # what is new counts
    assert bench.state is not State.SERVING


def test_a_restart_that_reads_the_day_again_suspects_no_version_that_was_cleared() -> None:
    bench = Bench()
    version = bench.publish()
    seen: list[tuple[Trace, int]] = []
    see = bench.monitor.see

    def keep(trace: Trace, partition: int, offset: int) -> None:
        seen.append((trace, offset))
        see(trace, partition, offset)

    bench.monitor.see = keep  # type: ignore[method-assign]
    bench.audit(version, 300, 0.95)
    bench.audit(version, 7, 0.0)
    bench.audit(version, 200, 0.97, drawn=False, reason=Reason.PROBATION)
    bench.audit(version, 200, 0.95)
    assert bench.kinds == [AnnouncementKind.PROBATION, AnnouncementKind.CLEARED]
    again = bench.new_monitor()
    for trace, offset in seen:
        again.see(trace, 0, offset)
    again.settle()
    assert bench.state is State.SERVING
    assert len(bench.kinds) == 2


@pytest.mark.parametrize(
    ("how", "counts"),
    [
        ({"drawn": True}, True),
        ({"drawn": False, "reason": Reason.BELOW_THRESHOLD}, False),
        ({"drawn": True, "handled": False, "reason": Reason.BELOW_THRESHOLD}, False),
        ({"drawn": False, "reason": Reason.PROBATION}, True),
        ({"drawn": False, "reason": Reason.ALPHA_RAISED}, True),
        # A shadow's: of the requests that the active version is sure of.
        ({"drawn": False, "reason": Reason.PROBATION, "asked": "active"}, False),
        ({"drawn": True, "reason": Reason.PROBATION, "asked": "active"}, True),
        ({"drawn": False, "reason": Reason.NO_ACTIVE_VERSION}, True),
    ],
)
def test_what_counts_as_an_audit(how: dict[str, object], counts: bool) -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 1, 1.0, **how)
    assert len(bench.registry.audits("support", version)) == int(counts)


def test_a_redelivery_counts_nothing_twice() -> None:
    bench = Bench()
    version = bench.publish()
    traces = [bench.trace(version) for _ in range(20)]
    for monitor in (bench.monitor, bench.new_monitor()):
        for offset, trace in enumerate(traces):
            monitor.see(trace, 0, offset)
        monitor.settle()
    assert len(bench.registry.audits("support", version)) == 20


def test_what_is_read_again_within_one_turn_counts_once() -> None:
    bench = Bench()
    version = bench.publish()
    for offset in (119, 120, 118, 119, 120, 121):
        bench.monitor.see(bench.trace(version), 0, offset)
    bench.monitor.settle()
    assert len(bench.registry.audits("support", version)) == 4


def test_a_restart_goes_on_with_what_was_recorded() -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 10, 0.9)
    bench.monitor = bench.new_monitor()
    bench.audit(version, 200, 0.97)
    bench.monitor = bench.new_monitor()
    bench.audit(version, 200, 0.6)
    assert bench.state is State.TRIPPED
    assert bench.announced[-1].figures["audits"] > 210


def test_with_the_registry_away_audits_wait() -> None:
    bench = Bench()
    version = bench.publish()
    bench.registry.available = False
    bench.monitor.see(bench.trace(version), 0, 1)
    with pytest.raises(RegistryUnavailable):
        bench.monitor.settle()
    bench.registry.available = True
    bench.monitor.settle()
    assert len(bench.registry.audits("support", version)) == 1


def test_an_announcement_that_could_not_be_sent_is_sent_later() -> None:
    bench = Bench()
    version = bench.publish()
    failing = [True]

    def announce(announcement: ModelAnnouncement) -> None:
        if failing:
            failing.pop()
            raise OSError("broker away")
        bench.announced.append(announcement)

    bench.monitor.announce = announce
    with pytest.raises(OSError, match="broker away"):
        bench.audit(version, 300, 0.6)
    bench.monitor.settle()
    assert bench.kinds == [AnnouncementKind.TRIPPED]


def test_another_teacher_voids_the_certificate() -> None:
    bench = Bench()
    version = bench.publish(teacher=Teacher(model="llm-1"))
    bench.audit(version, FOREIGN_TRACES, 1.0, model="llm-1")
    assert bench.state is State.SERVING
    bench.audit(version, FOREIGN_TRACES, 1.0, model="llm-2")
    assert bench.state is State.TRIPPED
    assert "changed from llm-1 to llm-2" in bench.announced[-1].reason


def test_a_few_answers_of_another_model_do_not() -> None:
    bench = Bench()
    version = bench.publish(teacher=Teacher(model="llm-1"))
    for model in ("llm-1", "llm-2") * 30:
        bench.audit(version, 1, 1.0, model=model)
    assert bench.state is State.SERVING


def test_traces_of_another_version_that_are_read_again_do_not_either() -> None:
    """The store was lost, say, and the trainer reads all of `traces`: an earlier teacher's too."""
    bench = Bench()
    version = bench.publish(teacher=Teacher(model="llm-2"))
    for earlier in ("2025-12-01-old", None):
        for _ in range(FOREIGN_TRACES):
            trace = bench.trace("2025-12-01-old", model="llm-1", reason=Reason.BELOW_THRESHOLD)
            bench.monitor.see(replace(trace, version=earlier), 0, bench.offset)
    bench.monitor.settle()
    assert bench.state is State.SERVING
    bench.audit(version, FOREIGN_TRACES, 1.0, model="llm-3")  # its own still do
    assert bench.state is State.TRIPPED


def trial(bench: Bench, mode: str = "shadow", teacher: Teacher | None = None) -> str:
    artifact = surrogate("2026-01-06", teacher)
    fence = bench.registry.acquire("support")
    bench.registry.start_trial(artifact, mode=mode, share=0.1, fence=fence, at=AT, reason="test")  # type: ignore[arg-type]
    return artifact.version


def test_a_trial_is_promoted_by_evidence() -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench)
    bench.audit(second, 99, 0.99)
    assert bench.registry.active("support").version == first
    bench.audit(second, 1, 1.0)
    active = bench.registry.active("support")
    assert (active.version, active.trial) == (second, None)
    (promoted,) = bench.announced
    assert promoted.kind is AnnouncementKind.PROMOTED
    assert (promoted.version, promoted.previous_version) == (second, first)


def test_the_evidence_for_a_promotion_is_looked_at_in_portions() -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench)
    bench.audit(second, 90, 0.9, asked=first)
    bench.audit(second, 10, 0.7, asked=first)  # 88 of 100
    bench.monitor = bench.new_monitor()
    bench.audit(second, 99, 1.0, asked=first)  # above α for long, but between two looks
    assert bench.registry.active("support").version == first
    bench.audit(second, 1, 1.0, asked=first)
    assert bench.registry.active("support").version == second


def test_a_look_is_at_the_whole_portions_alone() -> None:
    """However many audits one turn brings."""
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench)
    for agrees in [*([True] * 10 + [False]) * 9, True, *[False] * 3]:  # 91 of 100, and 91 of 103
        bench.monitor.see(bench.trace(second, agrees=agrees, asked=first), 0, bench.offset)
    bench.monitor.settle()
    assert bench.registry.active("support").version == second


def test_a_failing_trial_is_withdrawn_and_the_active_version_stays() -> None:
    bench = Bench(promote_after=1_000)
    first = bench.publish()
    second = trial(bench, "canary")
    bench.audit(second, 300, 0.6)
    active = bench.registry.active("support")
    assert (active.version, active.state, active.trial) == (first, State.SERVING, None)
    assert bench.kinds == [AnnouncementKind.WITHDRAWN]


def test_a_trial_of_another_teacher_is_withdrawn() -> None:
    bench = Bench(promote_after=100)
    first = bench.publish(teacher=Teacher(model="llm-1"))
    second = trial(bench, teacher=Teacher(model="llm-1"))
    bench.audit(second, FOREIGN_TRACES, 1.0, asked=first, model="llm-2")
    active = bench.registry.active("support")
    assert (active.version, active.state, active.trial) == (first, State.TRIPPED, None)
    assert bench.kinds == [AnnouncementKind.TRIPPED, AnnouncementKind.WITHDRAWN]
    assert "changed from llm-1 to llm-2" in bench.announced[-1].reason


def test_no_trial_is_promoted_while_its_teacher_seems_to_have_changed() -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench, teacher=Teacher(model="llm-1"))
    bench.audit(second, 99, 1.0, asked=first)
    bench.monitor = bench.new_monitor()  # only what is new tells who answers
    bench.audit(second, 5, 1.0, asked=first, model="llm-2")
    assert bench.registry.active("support").version == first
    bench.audit(second, 1, 1.0, asked=first)
    assert bench.registry.active("support").version == second


@pytest.mark.parametrize(("audits", "warned"), [(99, True), (100, False)])
def test_a_trial_that_a_refit_replaced_too_early_is_told_of(
    audits: int, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    bench.audit(trial(bench), audits, 0.85, asked=first)
    later = surrogate("2026-01-07")
    fence = bench.registry.acquire("support")
    bench.registry.start_trial(
        later, mode="shadow", share=0.1, fence=fence, at=AT, reason="the next day's"
    )
    bench.audit(later.version, 2, 1.0, asked=first)
    assert bench.registry.active("support").version == first
    told = [record for record in caplog.records if "replaced a version" in record.message]
    assert len(told) == int(warned)


def test_no_trial_is_promoted_during_a_pause() -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench)
    bench.registry.set_state("support", State.PAUSED, version=first, was=None, at=AT, reason="")
    bench.audit(second, 150, 1.0, asked=first, drawn=False, reason=Reason.PAUSED)
    active = bench.registry.active("support")
    assert (active.version, active.state) == (first, State.PAUSED)
    assert len(bench.registry.audits("support", second)) == 150
    bench.registry.set_state("support", State.SERVING, version=first, was=None, at=AT, reason="")
    bench.audit(second, 1, 1.0, asked=first)
    assert bench.registry.active("support").version == second


def test_a_pause_between_the_look_and_the_promotion_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(promote_after=100)
    first = bench.publish()
    second = trial(bench)
    promote = bench.registry.promote

    def paused_meanwhile(task: str, **how: Any) -> HistoryEntry:
        bench.registry.set_state(task, State.PAUSED, version=first, at=AT, reason="by hand")
        return promote(task, **how)

    monkeypatch.setattr(bench.registry, "promote", paused_meanwhile)
    bench.audit(second, 100, 1.0, asked=first)
    active = bench.registry.active("support")
    assert (active.version, active.state) == (first, State.PAUSED)


def test_a_failing_trial_is_withdrawn_during_a_pause_too() -> None:
    bench = Bench(promote_after=1_000)
    first = bench.publish()
    second = trial(bench)
    bench.registry.set_state("support", State.PAUSED, version=first, was=None, at=AT, reason="")
    bench.audit(second, 300, 0.6, asked=first, drawn=False, reason=Reason.PAUSED)
    assert bench.kinds == [AnnouncementKind.WITHDRAWN]
    assert bench.state is State.PAUSED


def shown() -> tuple[float | None, ...]:
    """Certified coverage, live agreement and its lower bound, as they are exported."""
    names = ("certified_coverage", "live_agreement", "live_agreement_lower")
    return tuple(
        REGISTRY.get_sample_value(f"tracer_{name}_ratio", {"task": "support"}) for name in names
    )


def test_agreement_is_shown_from_the_first_audit_to_the_end_of_the_version() -> None:
    bench = Bench()
    version = bench.publish()
    coverage = surrogate("2026-01-05").manifest.certificate.coverage
    bench.audit(version, 1, 1.0, handled=False, reason=Reason.BELOW_THRESHOLD)
    assert shown() == (coverage, None, None)
    bench.audit(version, 4, 0.75)
    assert shown()[:2] == (coverage, 0.75)
    bench.audit(version, 300, 0.4)
    assert bench.state is State.TRIPPED
    assert shown() == (None, None, None)


@pytest.mark.parametrize("ended", [State.TRIPPED, State.PAUSED, None])
def test_nothing_is_shown_once_no_version_answers(ended: State | None) -> None:
    bench = Bench()
    version = bench.publish()
    bench.audit(version, 4, 0.75)
    assert None not in shown()
    if ended is None:
        bench.registry.retire("support", at=AT, reason="")
    else:
        bench.registry.set_state("support", ended, version=version, was=None, at=AT, reason="")
    bench.audit(version, 1, 1.0, drawn=False, reason=Reason.BELOW_THRESHOLD)
    assert shown() == (None, None, None)


def test_a_tripped_versions_series_end_with_its_trip() -> None:
    """A task may have no trace after it."""
    bench = Bench()
    version = bench.publish(teacher=Teacher(model="llm-1"))
    bench.audit(version, FOREIGN_TRACES, 1.0, model="llm-2")
    assert bench.state is State.TRIPPED
    assert shown() == (None, None, None)


def test_a_shadows_coverage_is_not_shown_as_the_active_versions() -> None:
    bench = Bench()
    version = bench.publish()
    trial(bench)
    metrics.CERTIFIED_COVERAGE.labels("support").set(0.123)  # by the refit that began the trial
    bench.audit(version, 1, 1.0)
    assert shown()[0] == surrogate("2026-01-05").manifest.certificate.coverage
