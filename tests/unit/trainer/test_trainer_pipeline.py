from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from doubles import HashEncoder

from services.trainer.app import resume
from services.trainer.examination import Examination
from services.trainer.examine import Examiner
from services.trainer.pipeline import Refit
from services.trainer.refit_states import RefitStates
from services.trainer.worker import RefitWorker
from shared.bus.errors import Retryable
from shared.clock import FakeClock
from shared.contracts.events import AnnouncementKind, ModelAnnouncement, Reason, Source, Trace
from shared.contracts.manifest import Teacher
from shared.contracts.report import unpublished_key
from shared.contracts.tasks import Task
from shared.core.training import OUTSIDE
from shared.core.window import WindowBook, WindowKey
from shared.onnx.cascade import CascadeSession
from shared.registry.base import RegistryUnavailable, State, Trial
from shared.registry.memory import MemoryRegistry
from shared.store.parquet import WindowStore
from shared.store.saved import SavedFiles
from shared.telemetry import metrics

DAY = date(2026, 1, 1)
WORDS = {
    "billing": ["invoice", "charged", "payment", "receipt", "card"],
    "delivery": ["parcel", "courier", "late", "shipping", "address"],
    "account": ["password", "login", "email", "profile", "locked"],
}


def traces(n: int, *, scrambled: bool = False, day: date = DAY, first: int = 0) -> list[Trace]:
    rng = np.random.default_rng(first)
    labels = list(WORDS)
    made = []
    for i in range(first, first + n):
        label = labels[i % 3]
        words = [*rng.choice(WORDS[label], 3).tolist(), f"n{rng.integers(1000)}"]
        made.append(
            Trace(
                id=f"t-{i:05d}",
                task="support",
                input=" ".join(words),
                teacher=labels[rng.integers(3)] if scrambled else label,
                occurred_at=datetime(day.year, day.month, day.day, tzinfo=UTC)
                + timedelta(seconds=i),
            )
        )
    return made


class Bench:
    """A refit on a folder, a memory registry and a fake clock."""

    def __init__(self, folder: Path, alpha: float = 0.9) -> None:
        self.store = WindowStore(str(folder))
        self.registry = MemoryRegistry()
        self.encoder = HashEncoder()
        self.announced: list[ModelAnnouncement] = []
        self.refit = Refit(
            tasks={"support": Task(name="support", alpha=alpha, horizon_days=2)},
            windows=self.store,
            encoder=self.encoder.digest,
            examine=Examiner(self.store, self.encoder, RefitStates(SavedFiles(str(folder)))),
            registry=self.registry,
            announce=self.announced.append,
            clock=FakeClock(),
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_certified_surrogate_is_published_announced_and_noted(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert bench.announced == [announced]
    assert announced.certificate is not None
    assert announced.certificate.agreement_lower >= 0.9
    assert announced.n_traces == 600
    active = bench.registry.active("support")
    assert (active.version, active.epoch) == (announced.version, announced.epoch)
    verdict = bench.store.verdict("support", DAY)
    assert verdict == {"kind": "published", "version": announced.version, "alpha": 0.9}


def test_what_is_published_serves(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600))
    version = bench.refit(WindowKey("support", DAY)).version
    artifact = bench.registry.load("support", version or "")
    manifest = artifact.manifest
    fresh = traces(300, first=10_000)
    tokens = bench.encoder.tokenize([str(t.input) for t in fresh])
    said = CascadeSession(manifest, artifact.blobs).answer(
        300, tokens, lambda rows: bench.encoder.encode_tokens([tokens[i] for i in rows])
    )
    handled = said.stage >= 0
    labels = np.asarray(manifest.labels)[said.label]
    assert handled.mean() > 0.9
    assert (labels == [t.teacher for t in fresh])[handled].mean() > 0.9
    assert manifest.encoder == bench.encoder.digest


def test_noise_is_refused_announced_and_nothing_published(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600, scrambled=True))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "below α" in announced.reason
    assert bench.registry.active("support").version is None
    assert bench.registry.versions("support") == []


def test_an_artifact_that_no_registry_takes_is_refused_with_advice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.fitting.artifact.MAX_ARTIFACT_BYTES", 100_000)
    bench.store.write("support", DAY, traces(600))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "a surrogate of 3 labels is too large; make coarser labels" in announced.reason
    assert bench.registry.versions("support") == []


NEXT = DAY + timedelta(days=1)


def test_an_incumbent_that_fails_on_fresh_evidence_is_retired(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(900, scrambled=True, day=NEXT, first=900))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.RETIRED
    assert announced.previous_version == version
    assert announced.figures["incumbent_agreement_upper"] < 0.9
    assert announced.figures["fresh_evidence"] == 900
    assert bench.registry.active("support").version is None


def test_a_retirement_that_could_not_be_announced_is_announced_later(bench: Bench) -> None:
    failing = [True]

    def announce(announcement: ModelAnnouncement) -> None:
        if announcement.kind is AnnouncementKind.RETIRED and failing:
            failing.pop()
            raise Retryable("the broker is away")
        bench.announced.append(announcement)

    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(900, scrambled=True, day=NEXT, first=900))
    refit = replace(bench.refit, announce=announce)
    with pytest.raises(Retryable):
        refit(WindowKey("support", NEXT))
    assert bench.registry.active("support").version is None
    announced = refit(WindowKey("support", NEXT))
    assert (announced.kind, announced.previous_version) == (AnnouncementKind.RETIRED, version)
    assert announced.epoch == bench.registry.active("support").epoch
    assert (bench.store.verdict("support", NEXT) or {})["kind"] == "retired"
    following = NEXT + timedelta(days=1)  # which has nothing to do with it
    bench.store.write("support", following, traces(5, day=following, first=9_000))
    assert refit(WindowKey("support", following)).kind is AnnouncementKind.REFUSED


def test_what_was_made_active_during_the_refit_is_not_retired(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, following = DAY - timedelta(days=1), NEXT
    for number, day in enumerate((earlier, DAY)):
        bench.store.write("support", day, traces(300, day=day, first=300 * number))
        bench.refit(WindowKey("support", day))
    judged = bench.registry.active("support").version
    examine = Examiner.__call__

    def meanwhile(*given: Any) -> Examination:
        found = examine(*given)
        bench.registry.rollback("support", to=None, at=bench.refit.clock.now(), reason="by hand")
        return found

    monkeypatch.setattr(Examiner, "__call__", meanwhile)
    bench.store.write("support", following, traces(900, scrambled=True, day=following, first=900))
    announced = bench.refit(WindowKey("support", following))
    assert announced.kind is AnnouncementKind.REFUSED
    assert f"{judged} is no longer active" in announced.reason
    assert bench.registry.active("support").version not in (None, judged)


def test_an_incumbent_that_holds_stays_when_the_challenger_is_refused(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(5, day=NEXT, first=900))
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        bench.refit.tasks["support"], horizon_days=1
    )
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.KEPT
    assert announced.version == version
    assert "too few" in announced.reason
    assert announced.figures["incumbent_agreement"] == 1.0
    assert bench.registry.active("support").version == version


def test_a_challenger_replaces_the_incumbent_and_both_figures_are_told(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(300, day=NEXT, first=900))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert announced.previous_version == version
    assert {"challenger_coverage", "incumbent_coverage", "incumbent_agreement"} <= set(
        announced.figures
    )


def test_with_a_rollout_in_steps_the_challenger_is_on_trial(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        bench.refit.tasks["support"], rollout="canary", canary_share=0.2
    )
    bench.store.write("support", NEXT, traces(300, day=NEXT, first=900))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.CANARY
    active = bench.registry.active("support")
    assert active.version == version
    assert active.trial == Trial(announced.version or "", "canary", 0.2)


def test_the_same_traces_in_any_order_give_the_same_version(tmp_path: Path) -> None:
    one, two = Bench(tmp_path / "1"), Bench(tmp_path / "2")
    one.store.write("support", DAY, traces(300))
    two.store.write("support", DAY, traces(300)[200:])
    two.store.write("support", DAY, reversed(traces(300)))
    versions = {b.refit(WindowKey("support", DAY)).version for b in (one, two)}
    assert len(versions) == 1


def test_doing_it_again_after_a_crash_changes_nothing(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    first = bench.refit(WindowKey("support", DAY))
    history = bench.registry.history("support")
    second = bench.refit(WindowKey("support", DAY))
    assert (first.version, first.epoch) == (second.version, second.epoch)
    assert bench.registry.history("support") == history


def test_the_horizon_is_the_days_before_and_no_later_ones(bench: Bench) -> None:
    for i in range(4):
        day = DAY + timedelta(days=i)
        bench.store.write("support", day, traces(100, day=day, first=100 * i))
    announced = bench.refit(WindowKey("support", DAY + timedelta(days=2)))
    assert announced.n_traces == 200  # horizon_days = 2: days 2 and 3 of 4


def test_selected_traces_train_but_do_not_certify(bench: Bench) -> None:
    deferred = [
        Trace(
            id=f"d-{i}",
            task="support",
            input=t.input,
            teacher=t.teacher,
            occurred_at=t.occurred_at,
            source=Source.DEFERRED,
            deferral_reason=Reason.BELOW_THRESHOLD if i % 2 else Reason.NO_ACTIVE_VERSION,
        )
        for i, t in enumerate(traces(200, first=5_000))
    ]
    bench.store.write("support", DAY, [*traces(300), *deferred])
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.n_traces == 500
    assert announced.certificate is not None
    assert announced.certificate.n_evidence == 400


def changed(trace: Trace, **fields: object) -> Trace:
    return msgspec.structs.replace(trace, **fields)


def test_beside_audits_what_was_deferred_certifies_too(bench: Bench) -> None:
    selected = [
        changed(
            t, audit_share=0.1,
            **({"source": Source.DEFERRED, "deferral_reason": Reason.BELOW_THRESHOLD} if i % 2
               else {"source": Source.AUDITED, "observation_probability": 0.1}),
        )
        for i, t in enumerate(traces(200, first=5_000))
    ]  # fmt: skip
    bench.store.write("support", DAY, [*traces(300), *selected])
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.certificate is not None
    assert announced.certificate.n_evidence == 500


def test_answers_of_another_teacher_train_but_do_not_certify(bench: Bench) -> None:
    before = [changed(t, teacher_model="llm-1") for t in traces(300)]
    now = [changed(t, teacher_model="llm-2") for t in traces(300, first=900, day=NEXT)]
    bench.store.write("support", DAY, before)
    bench.store.write("support", NEXT, now)
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.n_traces == 600
    assert announced.certificate is not None
    assert announced.certificate.n_evidence == 300
    manifest = bench.registry.load("support", announced.version or "").manifest
    assert manifest.teacher == Teacher(model="llm-2")


def test_the_certificate_of_another_teacher_does_not_last(bench: Bench) -> None:
    bench.store.write("support", DAY, [changed(t, teacher_model="llm-1") for t in traces(300)])
    bench.refit(WindowKey("support", DAY))
    few = [changed(t, teacher_model="llm-2") for t in traces(20, first=900, day=NEXT)]
    bench.store.write("support", NEXT, few)
    assert bench.refit(WindowKey("support", NEXT)).kind is AnnouncementKind.RETIRED


def test_a_removed_label_is_neither_learned_nor_kept(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    bench.refit(WindowKey("support", DAY))
    bench.refit.tasks["support"] = Task(  # type: ignore[index]
        name="support", alpha=0.9, labels=("billing", "delivery")
    )
    bench.store.write("support", NEXT, traces(30, day=NEXT, first=900))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.PUBLISHED
    manifest = bench.registry.load("support", announced.version or "").manifest
    assert manifest.labels == ("billing", "delivery")


def test_after_a_trip_only_what_came_since_certifies(bench: Bench) -> None:
    """And the surrogate that was taught by the old answers as well is tried beside the other."""
    moved = {"billing": "delivery", "delivery": "account", "account": "billing"}
    bench.store.write("support", DAY, traces(600))
    first = bench.refit(WindowKey("support", DAY)).version or ""
    tripped = [
        changed(
            t, teacher=moved[t.teacher], source=Source.DEFERRED, deferral_reason=Reason.TRIPPED,
            version=first,
        )
        for t in traces(400, first=900, day=NEXT)
    ]  # fmt: skip
    bench.store.write("support", NEXT, tripped)
    bench.registry.set_state(
        "support", State.TRIPPED, version=first, at=datetime(2026, 1, 2, tzinfo=UTC), reason="test"
    )
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.PUBLISHED
    certificate = announced.certificate
    assert certificate is not None
    assert certificate.n_evidence == 400
    assert certificate.delta == 0.05
    assert certificate.coverage > 0.9
    active = bench.registry.active("support")
    assert (active.version, active.state) == (announced.version, State.SERVING)


def trip(bench: Bench, version: str | None, day: date = NEXT) -> None:
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    bench.registry.set_state("support", State.TRIPPED, version=version or "", at=at, reason="test")


def during_the_fit(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    examine = Examiner.__call__

    def meanwhile(*given: Any) -> Examination:
        found = examine(*given)
        act()
        return found

    monkeypatch.setattr(Examiner, "__call__", meanwhile)


@pytest.mark.parametrize("alpha", [None, 0.89])
def test_what_came_before_a_trip_puts_nothing_into_service(
    bench: Bench, alpha: float | None
) -> None:
    """Neither the window that ended before it nor the one fitted again for another α."""
    bench.store.write("support", DAY, traces(600))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(600, day=NEXT, first=900))
    if alpha is not None:
        version = bench.refit(WindowKey("support", NEXT)).version
    trip(bench, version, NEXT + timedelta(days=1))
    if alpha is not None:
        bench.registry.set_alpha("support", alpha, at=bench.refit.clock.now(), reason="x")
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "was tripped at 2026-01-03T12:00:00+00:00" in announced.reason
    assert "waits for what came since the trip" in announced.reason
    active = bench.registry.active("support")
    assert (active.version, active.state) == (version, State.TRIPPED)


def test_a_trip_is_of_a_day_in_the_tasks_zone(bench: Bench) -> None:
    """At noon of the first in UTC it is the second there."""
    task = bench.refit.tasks["support"]
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        task, horizon_days=1, timezone="Pacific/Kiritimati"
    )
    bench.store.write("support", DAY, traces(600))
    trip(bench, bench.refit(WindowKey("support", DAY)).version, DAY)
    bench.store.write("support", NEXT, traces(600, day=NEXT, first=900))
    assert bench.refit(WindowKey("support", NEXT)).kind is AnnouncementKind.REFUSED


def test_logged_calls_after_a_trip_certify_once_no_day_is_from_before(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600))
    trip(bench, bench.refit(WindowKey("support", DAY)).version, DAY)
    kinds = []
    for number in (1, 2):  # horizon_days = 2
        day = DAY + timedelta(days=number)
        bench.store.write("support", day, traces(600, day=day, first=900 * number))
        kinds.append(bench.refit(WindowKey("support", day)).kind)
    assert kinds == [AnnouncementKind.REFUSED, AnnouncementKind.PUBLISHED]


@pytest.mark.parametrize("ended", ["roll back", "retire"])
def test_what_came_before_a_trip_certifies_nothing_after_an_operator_ended_it_either(
    bench: Bench, ended: str
) -> None:
    """Before any request was deferred for it: no trace tells of it, and none ever will."""
    registry, at = bench.registry, bench.refit.clock.now()
    for number, day in enumerate((DAY, NEXT)):
        bench.store.write("support", day, traces(300, day=day, first=300 * number))
        bench.refit(WindowKey("support", day))
    trip(bench, registry.active("support").version, NEXT)
    if ended == "retire":
        registry.retire("support", at=at, reason="by hand", actor="maria")
    else:
        registry.rollback("support", to=None, at=at, reason="by hand", actor="maria")
    before = registry.active("support")
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "waits for what came since the trip" in announced.reason
    assert registry.active("support") == before
    following = NEXT + timedelta(days=1)
    bench.store.write("support", following, traces(400, day=following, first=900))
    announced = bench.refit(WindowKey("support", following))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert announced.n_traces == announced.figures["n_evidence"] == 400
    settings = registry.load("support", announced.version or "").manifest.settings
    assert settings is not None
    assert settings.horizon_days == 1  # so that a replay begins there too


@pytest.mark.parametrize("n", [300, 5], ids=["certified", "refused"])
def test_a_trip_during_the_fit_leaves_the_task_tripped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    bench.store.write("support", DAY, traces(300))
    version = bench.refit(WindowKey("support", DAY)).version
    bench.store.write("support", NEXT, traces(n, day=NEXT, first=900))
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        bench.refit.tasks["support"], horizon_days=1
    )
    during_the_fit(monkeypatch, lambda: trip(bench, version))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "was tripped at 2026-01-02T12" in announced.reason
    assert bench.registry.active("support").state is State.TRIPPED


@pytest.mark.parametrize("act", ["pause", "roll back", "retire"])
def test_what_an_operator_did_during_the_fit_is_not_undone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    for number in (0, 1):
        day = DAY + timedelta(days=number)
        bench.store.write("support", day, traces(300, day=day, first=300 * number))
        bench.refit(WindowKey("support", day))
    version, at = bench.registry.active("support").version or "", bench.refit.clock.now()
    registry = bench.registry
    acts: dict[str, Callable[[], object]] = {
        "pause": lambda: registry.set_state(
            "support", State.PAUSED, version=version, at=at, reason="x", actor="maria"
        ),
        "roll back": lambda: registry.rollback("support", to=None, at=at, reason="x"),
        "retire": lambda: registry.retire("support", at=at, reason="x"),
    }
    left = []
    during_the_fit(monkeypatch, lambda: (acts[act](), left.append(registry.active("support"))))
    day = DAY + timedelta(days=2)
    bench.store.write("support", day, traces(300, day=day, first=900))
    announced = bench.refit(WindowKey("support", day))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "during the fit" in announced.reason
    assert [registry.active("support")] == left


def test_an_incumbent_that_is_gone_is_not_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.store.write("support", DAY, traces(300))
    bench.refit(WindowKey("support", DAY))
    bench.store.write("support", NEXT, traces(5, day=NEXT, first=900))
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        bench.refit.tasks["support"], horizon_days=1
    )
    at = bench.refit.clock.now()
    during_the_fit(monkeypatch, lambda: bench.registry.retire("support", at=at, reason="x"))
    assert bench.refit(WindowKey("support", NEXT)).kind is AnnouncementKind.REFUSED


@pytest.mark.parametrize("rollout", ["shadow", "direct"])
def test_a_version_that_tripped_on_trial_is_not_announced_again(bench: Bench, rollout: str) -> None:
    bench.store.write("support", DAY, traces(300))
    first = bench.refit(WindowKey("support", DAY)).version
    task = bench.refit.tasks["support"]
    bench.refit.tasks["support"] = msgspec.structs.replace(task, rollout="shadow")  # type: ignore[index]
    bench.store.write("support", NEXT, traces(300, day=NEXT, first=900))
    trial = bench.refit(WindowKey("support", NEXT)).version
    bench.registry.withdraw("support", at=bench.refit.clock.now(), reason="agreement is below")
    bench.refit.tasks["support"] = msgspec.structs.replace(task, rollout=rollout)  # type: ignore[index]
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.REFUSED
    assert f"{trial} was tripped before" in announced.reason
    assert bench.registry.active("support").version == first


def test_a_stray_pair_does_not_keep_a_task_of_texts_from_training(bench: Bench) -> None:
    pair = Trace(
        id="p",
        task="support",
        input=["one", "two"],
        teacher="billing",
        occurred_at=traces(1)[0].occurred_at,
    )
    bench.store.write("support", DAY, [*traces(100), pair])
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert announced.n_traces == 100


@pytest.mark.parametrize("to_pairs", [True, False])
def test_a_task_that_goes_over_to_pairs_or_back_is_still_refitted(
    bench: Bench, to_pairs: bool
) -> None:
    """The incumbent was given features of the other kind, and every fit failed until the horizon
    was mostly of it too. It is judged as a router serves it: what it is not asked, it defers."""

    def pair(one: Trace) -> Trace:
        return msgspec.structs.replace(one, input=[str(one.input), "context"])

    first, second = traces(900), traces(900, day=NEXT, first=5_000)
    if to_pairs:
        second = [pair(t) if i % 3 else t for i, t in enumerate(second)]
    else:
        first = [pair(t) for t in first]
        second = [t if i % 3 else pair(t) for i, t in enumerate(second)]
    bench.store.write("support", DAY, first)
    assert bench.refit(WindowKey("support", DAY)).kind is AnnouncementKind.PUBLISHED
    bench.store.write("support", NEXT, second)
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert announced.figures["incumbent_coverage"] == pytest.approx(1 / 3, abs=0.05)


def test_the_registry_away_leaves_everything_to_be_done_again(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    bench.registry.available = False
    with pytest.raises(RegistryUnavailable):
        bench.refit(WindowKey("support", DAY))
    assert bench.announced == []
    assert bench.store.verdict("support", DAY) is None


def test_an_older_window_never_replaces_a_newer_version(bench: Bench) -> None:
    following = DAY + timedelta(days=1)
    bench.store.write("support", DAY, traces(300))
    bench.store.write("support", following, traces(300, day=following, first=300))
    newer = bench.refit(WindowKey("support", following)).version
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.REFUSED
    assert "published already" in announced.reason
    assert bench.registry.active("support").version == newer


def test_a_late_trace_of_an_empty_day_brings_no_outdated_version_back(bench: Bench) -> None:
    newest = DAY + timedelta(days=3)
    for day in (DAY, newest):
        bench.store.write("support", day, traces(600, day=day))
        bench.refit(WindowKey("support", day))
    now = datetime(2026, 2, 1, tzinfo=UTC)
    bench.registry.retire("support", at=now, reason="agreement fell")
    between = DAY + timedelta(days=1)
    bench.store.write("support", between, traces(1, day=between))
    announced = bench.refit(WindowKey("support", between))
    assert announced.kind is AnnouncementKind.REFUSED
    assert f"window {newest.isoformat()} has been judged" in announced.reason
    assert bench.registry.active("support").version is None


def test_a_folder_without_traces_is_no_window(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "task=support" / f"day={DAY.isoformat()}").mkdir(parents=True)
    assert bench.store.days("support") == []


def test_a_day_that_was_moved_out_of_the_way_is_gone(bench: Bench, tmp_path: Path) -> None:
    for day in (DAY, NEXT):
        bench.store.write("support", day, traces(3, day=day))
    folder = tmp_path / "task=support" / f"day={DAY.isoformat()}"
    folder.rename(f"{folder}.damaged")
    assert bench.store.days("support") == [NEXT]


def test_a_late_trace_of_an_old_day_is_not_the_last_fit(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(300))
    bench.refit(WindowKey("support", DAY))
    old = DAY - timedelta(days=10)
    bench.store.write("support", old, traces(1, day=old))
    assert bench.refit(WindowKey("support", old)).kind is AnnouncementKind.REFUSED
    note = bench.registry.last_fit("support")
    assert note is not None
    assert (note.window, note.verdict) == (DAY.isoformat(), "published")


def test_a_damaged_part_is_named(bench: Bench, tmp_path: Path) -> None:
    bench.store.write("support", DAY, traces(10))
    (part,) = (tmp_path / "task=support" / f"day={DAY.isoformat()}").glob("part-*.parquet")
    part.write_bytes(b"")
    with pytest.raises(OSError, match=part.name):
        bench.refit(WindowKey("support", DAY))


def test_two_writers_never_overwrite_each_other(tmp_path: Path) -> None:
    stores = [WindowStore(str(tmp_path)) for _ in range(2)]
    for number, store in enumerate(stores):
        store.write("support", DAY, traces(10, first=10 * number))
    assert len(stores[0].read("support", [DAY])) == 20


def test_a_failure_that_cannot_be_announced_ends_nothing() -> None:
    done = threading.Event()

    def refit(key: WindowKey) -> None:
        if key.task == "bad":
            raise ValueError("broken")
        done.set()

    def failed(key: WindowKey, error: Exception) -> None:
        raise RuntimeError("no broker")

    worker = RefitWorker(refit, clock=FakeClock(), failed=failed)
    worker.submit(WindowKey("bad", DAY))
    worker.submit(WindowKey("good", DAY))
    assert done.wait(5)


def test_worker_retries_passing_faults_and_outlives_failed_fits() -> None:
    key, bad = WindowKey("a", DAY), WindowKey("b", DAY)
    calls: list[WindowKey] = []
    failures: list[str] = []
    done = threading.Event()

    def refit(given: WindowKey) -> None:
        calls.append(given)
        if given == bad:
            raise ValueError("broken")
        if len(calls) < 4:
            raise RegistryUnavailable("away")
        done.set()

    clock = FakeClock()
    worker = RefitWorker(refit, clock=clock, failed=lambda k, e: failures.append(f"{k.task}: {e}"))
    worker.submit(bad)
    worker.submit(key)
    assert done.wait(5)
    assert calls == [bad, key, key, key]
    assert failures == ["b: broken"]
    assert clock.monotonic() == 3.0  # 1 s, then 2 s


def test_a_window_without_a_verdict_is_refitted_after_a_restart(bench: Bench) -> None:
    submitted: list[WindowKey] = []

    class Worker:
        def submit(self, key: WindowKey) -> None:
            submitted.append(key)

    following = DAY + timedelta(days=1)
    bench.store.write("support", DAY, traces(300))
    bench.refit(WindowKey("support", DAY))
    bench.store.write("support", following, traces(10, day=following, first=300))
    book = WindowBook(timedelta(0), timedelta(1), timedelta(1))
    resume(bench.refit.tasks, bench.store, book, Worker())  # type: ignore[arg-type]
    assert submitted == [WindowKey("support", following)]
    late = book.add("support", traces(1)[0].occurred_at, partition=0, assigned=[0], now=0.0)
    assert late == (WindowKey("support", DAY), True)


def test_a_published_version_has_its_report(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600))
    first = bench.refit(WindowKey("support", DAY)).version
    report = bench.registry.report("support", first or "")
    assert report is not None
    assert report.version == first
    assert report.certificate is not None
    assert report.n_traces == 600
    assert report.deltas is None
    assert report.money is not None
    assert report.money.requests_per_day == 600
    bench.store.write("support", DAY + timedelta(days=1), traces(600, day=DAY + timedelta(days=1),
                                                                  first=600))  # fmt: skip
    second = bench.refit(WindowKey("support", DAY + timedelta(days=1))).version
    after = bench.registry.report("support", second or "")
    assert after is not None
    assert after.deltas is not None
    assert after.deltas.previous == first


def test_a_refusal_has_a_report_too(bench: Bench) -> None:
    bench.store.write("support", DAY, traces(600, scrambled=True))
    announced = bench.refit(WindowKey("support", DAY))
    report = bench.registry.report("support", unpublished_key("2026-01-01"))
    assert report is not None
    assert report.refused
    assert report.reason == announced.reason
    assert report.deferrals.n == report.deferrals.n_evidence > 0


def test_without_audits_a_report_says_whose_money_it_counts(bench: Bench) -> None:
    task = bench.refit.tasks["support"]
    bench.refit.tasks["support"] = msgspec.structs.replace(  # type: ignore[index]
        task, audit_share=0.0
    )
    bench.store.write("support", DAY, traces(600))
    version = bench.refit(WindowKey("support", DAY)).version
    report = bench.registry.report("support", version or "")
    assert report is not None
    assert any("audit_share is 0" in note for note in report.notes)


def test_a_report_that_cannot_be_made_holds_nothing_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("for a test")

    monkeypatch.setattr("services.trainer.reporting.make_report", broken)
    before = metrics.REPORTS.labels("support", "failed")._value.get()
    bench.store.write("support", DAY, traces(600))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert bench.registry.active("support").version == announced.version
    assert bench.store.verdict("support", DAY) == {
        "kind": "published",
        "version": announced.version,
        "alpha": 0.9,
    }
    assert bench.registry.reports("support") == []
    assert metrics.REPORTS.labels("support", "failed")._value.get() == before + 1
    ended = announced.announced_at.timestamp()
    assert metrics.LAST_FIT.labels("support")._value.get() >= ended
    assert "report could not be made" in caplog.text


def with_odd(some: list[Trace], share: float = 0.12) -> list[Trace]:
    """The teacher answers some of them outside of the taxonomy, whatever they say."""
    rng = np.random.default_rng(len(some))
    return [
        msgspec.structs.replace(t, teacher="no idea") if rng.random() < share else t for t in some
    ]


def odd_bench(folder: Path, alpha: float, **settings: Any) -> Bench:
    bench = Bench(folder, alpha)
    bench.refit.tasks["support"] = msgspec.structs.replace(
        bench.refit.tasks["support"], labels=tuple(WORDS), **settings
    )
    return bench


def test_answers_outside_of_the_taxonomy_are_not_left_out_of_a_certificate(tmp_path: Path) -> None:
    """They were: 12% of them, and an agreement of 0.88 passed for 0.99, again every day."""
    bench = odd_bench(tmp_path, 0.95)
    bench.store.write("support", DAY, with_odd(traces(900)))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.REFUSED
    assert announced.figures["n_evidence"] == 900


@pytest.mark.parametrize(("evidence", "floor"), [("crossfit", None), ("holdout", 0.5)])
def test_what_is_certified_beside_them_is_true(
    tmp_path: Path, evidence: str, floor: float | None
) -> None:
    bench = odd_bench(tmp_path, 0.7, evidence=evidence, label_floor=floor)
    bench.store.write("support", DAY, with_odd(traces(900)))
    announced = bench.refit(WindowKey("support", DAY))
    assert announced.kind is AnnouncementKind.PUBLISHED
    assert announced.certificate is not None
    assert 0.7 <= announced.certificate.agreement_lower < 0.88
    assert bench.registry.load("support", announced.version or "").manifest.labels == tuple(
        sorted(WORDS)
    )
    report = bench.registry.report("support", announced.version or "")
    assert report is not None
    (row,) = [row for row in report.labels if row.label == OUTSIDE]
    assert row.agreement == 0.0


def test_the_incumbent_answers_for_them_too(tmp_path: Path) -> None:
    bench = odd_bench(tmp_path, 0.95)
    bench.store.write("support", DAY, traces(600))
    assert bench.refit(WindowKey("support", DAY)).kind is AnnouncementKind.PUBLISHED
    bench.store.write("support", NEXT, with_odd(traces(900, day=NEXT, first=900), 0.3))
    announced = bench.refit(WindowKey("support", NEXT))
    assert announced.kind is AnnouncementKind.RETIRED
    assert announced.figures["incumbent_agreement"] < 0.75
