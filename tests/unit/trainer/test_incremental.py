"""Incremental refits: what they take over, when they are not made, and how they are replayed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest
from test_trainer_pipeline import DAY, Bench, traces

from services.ctl.replay_range import _uncovered
from services.ctl.reproduce import Reproduction, Traces, reproduce
from services.trainer.refit_states import RefitStates
from shared.bus.base import Message
from shared.bus.kafka_range import TopicRange
from shared.contracts.codec import encode
from shared.contracts.events import AnnouncementKind, Reason, Source, Trace
from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Manifest, sha256
from shared.contracts.tasks import Task
from shared.core.window import WindowKey
from shared.fitting.reading import read_horizon
from shared.fitting.refit_state import decode_state
from shared.registry.base import Artifact
from shared.store.saved import SavedFiles

SECOND, THIRD = (DAY + timedelta(days=n) for n in (1, 2))


class Days:
    """A trainer's days, in a store that outlives it."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        task = Task(name="support", alpha=0.9, refit="incremental")
        self.task = msgspec.structs.replace(task, **settings)
        self.messages: list[Message] = []
        self.start()

    def start(self) -> None:
        """As after kill -9: nothing but the store is left of what was."""
        self.bench = Bench(self.folder)
        self.bench.refit.tasks["support"] = self.task  # type: ignore[index]

    @property
    def file(self) -> Path:
        return self.folder / "saved" / "support" / "refit.state"

    def send(self, day: date, sent: list[Trace]) -> None:
        reach: dict[int, int] = {}
        for trace in sent:
            offset = len(self.messages)
            self.messages.append(Message("traces", 0, offset, b"k", encode(trace)))
            reach[0] = offset + 1
        self.bench.store.write("support", day, sent, reach)

    def fit(self, day: date) -> Manifest:
        """Of a version that was published."""
        version = self.bench.refit(WindowKey("support", day)).version
        assert version is not None
        return self.bench.registry.load("support", version).manifest

    def why_full(self, day: date, caplog: pytest.LogCaptureFixture) -> str | None:
        """What the log says of the refit to come; None if it is an incremental one."""
        view = self.bench.store.view("support")
        horizon = read_horizon(view, self.task, day)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            states = RefitStates(SavedFiles(str(self.folder)))
            found = states.usable(self.task, day, horizon, self.bench.encoder, view.days("support"))
        said = [r.getMessage() for r in caplog.records]
        assert (found is None) == bool(said)
        return said[0] if said else None

    def live(self, day: date, sent: list[Trace]) -> Manifest:
        self.send(day, sent)
        return self.fit(day)


def of(day: date, n: int, *, first: int = 0, scrambled: bool = False) -> list[Trace]:
    return traces(n, day=day, first=first, scrambled=scrambled)


@pytest.fixture(scope="module")
def first_day(tmp_path_factory: pytest.TempPathFactory) -> Days:
    days = Days(tmp_path_factory.mktemp("windows"))
    assert days.live(DAY, of(DAY, 400)).incremental is None
    return days


@pytest.fixture
def days(first_day: Days, tmp_path: Path) -> Days:
    """One day, fitted in full; a copy of its store and of the topic."""
    days = Days(tmp_path)
    shutil.copytree(first_day.folder, tmp_path, dirs_exist_ok=True)
    days.messages = list(first_day.messages)
    return days


def test_the_second_day_takes_over_what_the_first_has_left(first_day: Days, days: Days) -> None:
    full = first_day.bench.registry.active("support").version
    manifest = days.live(SECOND, of(SECOND, 100, first=900))
    assert manifest.incremental is not None
    assert manifest.incremental.since == full
    assert manifest.incremental.source == {"2026-01-01": {"0": 400}}
    assert days.file.read_bytes()[:64].decode() == manifest.incremental.state
    assert (manifest.n_traces, manifest.certificate.n_evidence) == (500, 500)
    assert manifest.certificate.kind == "crossfit"
    assert "incremental, since the full refit 2026-01-01-" in days.bench.announced[-1].reason
    assert manifest.settings is not None
    assert manifest.settings.refit == "incremental"


def test_its_report_is_whole(days: Days) -> None:
    manifest = days.live(SECOND, of(SECOND, 100, first=900))
    version = days.bench.registry.active("support").version
    assert version is not None
    report = days.bench.registry.report("support", version)
    assert report is not None
    assert report.n_traces == manifest.n_traces
    assert report.labels
    assert report.curves


def test_held_out_rows_stay_held_out(tmp_path: Path) -> None:
    days = Days(tmp_path, evidence="holdout")
    first = days.live(DAY, of(DAY, 800)).certificate
    second = days.live(SECOND, of(SECOND, 200, first=900))
    assert second.incremental is not None
    assert second.certificate.kind == "holdout"
    # A share of the new rows joins those that certified before.
    assert 0.25 * 200 < second.certificate.n_evidence - first.n_evidence < 0.35 * 200


def test_a_trainer_that_was_killed_goes_on_from_the_state(days: Days) -> None:
    days.send(SECOND, of(SECOND, 100, first=900))
    before = days.fit(SECOND)
    days.file.with_suffix(".state.tmp").write_bytes(b"half of a sta")  # killed while it wrote
    days.start()
    assert days.fit(SECOND) == before


def test_a_window_that_is_fitted_again_is_fitted_in_the_same_way(days: Days) -> None:
    assert days.fit(DAY).incremental is None
    one = days.live(SECOND, of(SECOND, 100, first=900))
    days.bench.registry.set_alpha("support", 0.92, at=days.bench.refit.clock.now(), reason="test")
    other = days.fit(SECOND)
    assert other.incremental == one.incremental
    assert other.certificate.alpha == 0.92


def as_an_older_release(content: bytes) -> bytes:
    older = content.split(b"\n", 1)[1].replace(b"tracer-refit-state-1", b"tracer-refit-state-0")
    return sha256(older).encode() + b"\n" + older


def without_a_graph(content: bytes) -> bytes:
    state = decode_state(content)
    blobs = dict(list(state.blobs.items())[1:])
    return msgspec.structs.replace(state, blobs=blobs).encode()


def without_a_row(content: bytes) -> bytes:
    state = decode_state(content)
    rows = msgspec.structs.replace(state.rows, folds=state.rows.folds[1:])
    return msgspec.structs.replace(state, rows=rows).encode()


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (flipped, "damaged: its SHA-256 is another"),
        (lambda content: content[: len(content) // 2], "damaged: its SHA-256 is another"),
        (lambda content: b"", "damaged: its SHA-256 is another"),
        (as_an_older_release, "written by another release"),
        (without_a_graph, "a fold's graph is missing"),
        (without_a_row, "its rows or folds do not belong together"),
    ],
)
def test_a_state_that_cannot_be_used_is_none(
    days: Days, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes], why: str
) -> None:
    days.send(SECOND, of(SECOND, 100, first=900))
    assert days.why_full(SECOND, caplog) is None
    days.file.write_bytes(spoil(days.file.read_bytes()))
    said = days.why_full(SECOND, caplog) or ""
    assert said.startswith("refit in full: what the last full one left cannot be used: ")
    assert why in said


def test_a_full_refit_takes_the_place_of_a_state_that_is_gone(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    days.file.unlink()
    days.send(SECOND, of(SECOND, 100, first=900))
    assert "no full one has left anything" in (days.why_full(SECOND, caplog) or "")
    assert days.fit(SECOND).incremental is None
    assert days.live(THIRD, of(THIRD, 100, first=2_000)).incremental is not None


def tripped(trace: Trace) -> Trace:
    return msgspec.structs.replace(
        trace, source=Source.DEFERRED, deferral_reason=Reason.TRIPPED, version="2026-01-01-abc"
    )


@pytest.mark.parametrize(
    ("second", "settings", "why"),
    [
        (of(SECOND, 21, first=3_000), {}, "121 traces are new beside 400 known ones"),
        (of(SECOND, 20, first=3_000), {"full_refit_every": 1}, "1 windows since the last full one"),
        (of(SECOND, 20, first=3_000), {"horizon_days": 9}, "horizon_days was changed"),
        (of(SECOND, 20, first=3_000), {"evidence": "holdout"}, "evidence was changed"),
        ([tripped(t) for t in of(SECOND, 20, first=3_000)], {}, "a version was tripped"),
        (
            [msgspec.structs.replace(t, teacher_model="m2") for t in of(SECOND, 20, first=3_000)],
            {}, "another teacher",
        ),
        (
            [msgspec.structs.replace(t, prompt="p" * 64) for t in of(SECOND, 20, first=3_000)],
            {}, "another teacher or another prompt",
        ),
        (
            [msgspec.structs.replace(t, teacher="refund") for t in of(SECOND, 20, first=3_000)],
            {}, "other labels",
        ),
    ],
)  # fmt: skip
def test_whatever_may_have_changed_asks_for_a_full_refit(
    days: Days,
    caplog: pytest.LogCaptureFixture,
    second: list[Trace],
    settings: dict[str, object],
    why: str,
) -> None:
    days.send(SECOND, of(SECOND, 100, first=900))
    assert days.why_full(SECOND, caplog) is None
    days.task = msgspec.structs.replace(days.task, **settings)
    days.send(SECOND, second)
    assert why in (days.why_full(SECOND, caplog) or "")


def test_what_the_certificate_alone_depends_on_may_change(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    days.send(SECOND, of(SECOND, 100, first=900))
    other = {"alpha": 0.8, "delta": 0.05, "next_sample": 0.0, "label_floor": 0.7}
    days.task = msgspec.structs.replace(days.task, **other)
    assert days.why_full(SECOND, caplog) is None


def test_every_so_many_windows_are_fitted_in_full(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    days.task = msgspec.structs.replace(days.task, full_refit_every=3)
    for n in (1, 2, 3):
        days.send(DAY + timedelta(days=n), of(DAY + timedelta(days=n), 10, first=1_000 * n))
    assert days.why_full(DAY + timedelta(days=2), caplog) is None
    said = days.why_full(DAY + timedelta(days=3), caplog) or ""
    assert "3 windows since the last full one" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"encoder": "0" * 64}, "another encoder"),
        ({"libraries": {"numpy": "1.0"}}, "other libraries"),
        ({"kind": "pair_embedding"}, "inputs of another kind"),
        ({"window": SECOND.isoformat()}, "is not an earlier one"),
    ],
)
def test_so_does_what_only_the_state_can_say(
    days: Days, caplog: pytest.LogCaptureFixture, changes: dict[str, object], why: str
) -> None:
    days.send(SECOND, of(SECOND, 100, first=900))
    state = decode_state(days.file.read_bytes())
    days.file.write_bytes(msgspec.structs.replace(state, **changes).encode())
    assert why in (days.why_full(SECOND, caplog) or "")


def test_after_a_refusal_the_next_refit_is_a_full_one(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    """And that of the refused window itself is not, or it would have two tries."""
    days.send(SECOND, of(SECOND, 110, first=900, scrambled=True))
    days.task = msgspec.structs.replace(days.task, alpha=0.99)
    days.start()
    announced = days.bench.refit(WindowKey("support", SECOND))
    assert announced.kind is AnnouncementKind.REFUSED
    assert days.why_full(SECOND, caplog) is None
    days.send(THIRD, of(THIRD, 5, first=2_000))
    said = days.why_full(THIRD, caplog) or ""
    assert "the fit of window 2026-01-02 was refused" in said


def test_a_second_refusal_does_not_hide_the_first(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    """A window that is fitted again after a kill is fitted in the same way."""
    states = RefitStates(SavedFiles(str(days.folder)))
    for n, day in enumerate((SECOND, THIRD), start=1):
        days.send(day, of(day, 5, first=1_000 * n))
    # The last is a window before the state's, fitted again: it tells nothing of what came since.
    for refused in (SECOND, THIRD, DAY - timedelta(days=1)):
        states.note_refused("support", refused)
        assert "2026-01-02 was refused" in (days.why_full(THIRD, caplog) or "")
        assert days.why_full(SECOND, caplog) is None


def test_an_earlier_refusal_than_the_one_noted_counts(
    days: Days, caplog: pytest.LogCaptureFixture
) -> None:
    states = RefitStates(SavedFiles(str(days.folder)))
    for n, day in enumerate((SECOND, THIRD), start=1):
        days.send(day, of(day, 5, first=1_000 * n))
    states.note_refused("support", THIRD)
    assert days.why_full(THIRD, caplog) is None
    states.note_refused("support", SECOND)
    assert "2026-01-02 was refused" in (days.why_full(THIRD, caplog) or "")


def test_a_task_that_was_only_refused_has_nothing_saved(tmp_path: Path) -> None:
    """`tracerctl restore` would take it for a task whose state is lost."""
    days = Days(tmp_path)
    days.send(DAY, of(DAY, 100, scrambled=True))
    assert days.bench.refit(WindowKey("support", DAY)).kind is AnnouncementKind.REFUSED
    assert not (tmp_path / "saved").exists()


def test_a_task_that_does_not_ask_for_it_leaves_nothing(tmp_path: Path) -> None:
    days = Days(tmp_path, refit="full")
    assert days.live(DAY, of(DAY, 400)).incremental is None
    assert not days.file.exists()


def again(days: Days, artifact: Artifact, messages: list[Message]) -> Reproduction:
    read = Traces("support")
    read.add(messages)
    settings = artifact.manifest.settings or FitSettings.of(days.task)
    return reproduce(artifact, read, settings, days.bench.encoder, jobs=1)


def test_a_replay_makes_the_state_again_and_then_the_version(days: Days) -> None:
    days.send(DAY, of(DAY, 3, first=5_000))  # late: of the second refit, not of the first
    assert days.live(SECOND, of(SECOND, 100, first=900)).incremental is not None
    version = days.bench.registry.active("support").version
    assert version is not None
    artifact = days.bench.registry.load("support", version)
    made = again(days, artifact, days.messages)
    assert (made.difference, made.again, made.traces) == (None, version, 503)

    without = again(days, artifact, [m for m in days.messages if m.offset != 17])
    assert "incremental.state: " in (without.difference or "")
    assert "replay that version to see why" in (without.difference or "")
    libraries = artifact.manifest.libraries | {"numpy": "1.0"}
    older = msgspec.structs.replace(artifact.manifest, libraries=libraries)
    older = msgspec.structs.replace(
        older, incremental=msgspec.structs.replace(older.incremental, state="0" * 64)
    )
    named = again(days, Artifact(older.encode(), artifact.blobs), days.messages).difference
    assert (named or "").startswith("libraries.numpy: 1.0 then, ")


def test_a_replay_needs_the_full_refits_horizon_in_its_range(days: Days) -> None:
    manifest = days.live(SECOND, of(SECOND, 100, first=900))
    assert manifest.incremental is not None
    whole = TopicRange("traces", {0: 0}, {0: 500})
    assert _uncovered(manifest, whole) is None
    # A day that has left the horizon since, but was of the full refit.
    older = msgspec.structs.replace(manifest.incremental, source={"2025-12-31": {"0": 600}})
    said = _uncovered(msgspec.structs.replace(manifest, incremental=older), whole) or ""
    assert "2025-12-31 was read up to offset 600" in said
