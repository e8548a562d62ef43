"""A long horizon is a reservoir: of the traces alone, minorities whole, weights corrected."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest

from shared.contracts.events import Source, Trace
from shared.contracts.tasks import Task
from shared.fitting.reading import read_day, read_horizon
from shared.fitting.stored import horizon_of
from shared.store.parquet import WindowStore

FIRST = date(2026, 1, 1)
TASK = Task(name="support", max_rows=1_000)


def traces(n: int, day: date = FIRST) -> list[Trace]:
    """One in a hundred is `rare`; one in twenty an audit that stands for twenty."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return [
        Trace(
            id=f"{day}-{i}",
            task="support",
            input=f"text {i}",
            teacher="rare" if i % 100 == 7 else "common",
            occurred_at=start + timedelta(seconds=i),
            source=Source.AUDITED if i % 20 == 0 else Source.DEFERRED,
            observation_probability=0.05 if i % 20 == 0 else 1.0,
            audit_share=0.05,
        )
        for i in range(n)
    ]


def stored(folder: Path, parts: Sequence[Sequence[Trace]], day: date = FIRST) -> WindowStore:
    store = WindowStore(str(folder))
    for part in parts:
        store.write("support", day, part)
    return store


def test_a_short_horizon_is_read_whole(tmp_path: Path) -> None:
    store = stored(tmp_path, [traces(900)])
    horizon = read_horizon(store, TASK, FIRST)
    whole = horizon_of(store.read("support", [FIRST]))
    assert horizon.digest() == whole.digest()
    assert horizon.stored is None


def test_a_long_one_is_the_same_in_whatever_order_and_parts_it_arrived(tmp_path: Path) -> None:
    all_traces = traces(4_000)
    shuffled = [all_traces[i] for i in np.random.default_rng(1).permutation(4_000)]
    one = read_horizon(stored(tmp_path / "a", [all_traces]), TASK, FIRST)
    other = read_horizon(stored(tmp_path / "b", [shuffled[:1_000], shuffled[1_000:]]), TASK, FIRST)
    assert one.digest() == other.digest()
    assert one.stored == 4_000
    assert 800 < len(one) <= 1_000


def test_minorities_and_audits_are_kept(tmp_path: Path) -> None:
    horizon = read_horizon(stored(tmp_path, [traces(8_000)]), TASK, FIRST)
    share = np.mean([label == "rare" for label in horizon.teacher])
    assert share > 0.03  # of the traffic it is one in a hundred


def test_weights_stand_for_all_that_was_stored(tmp_path: Path) -> None:
    """Labels' shares of the traffic, as far as so many rows tell."""
    store = stored(tmp_path, [traces(20_000)])
    whole = horizon_of(store.read("support", [FIRST]))
    horizon = read_horizon(store, TASK, FIRST)
    assert horizon.weights is not None
    assert whole.weights is not None

    def share(of: object, weights: np.ndarray) -> float:
        rare = np.asarray([label == "rare" for label in of.teacher])  # type: ignore[attr-defined]
        return float(weights[rare].sum() / weights.sum())

    assert share(horizon, horizon.weights) == pytest.approx(share(whole, whole.weights), rel=0.25)
    assert share(horizon, np.ones(len(horizon))) > 3 * share(whole, whole.weights)


def test_more_traces_keep_the_rows_already_embedded(tmp_path: Path) -> None:
    store = stored(tmp_path, [traces(4_000)])
    before = set(read_horizon(store, TASK, FIRST).inputs)
    next_day = FIRST + timedelta(days=1)
    store.write("support", next_day, traces(4_000, next_day))
    after = read_horizon(store, TASK, next_day)
    old = {
        texts for texts, at in zip(after.inputs, range(len(after)), strict=True)
        if at < len(after) // 2
    }  # fmt: skip
    assert len(old & before) > 0.95 * len(old)


def test_half_life_keeps_more_of_what_is_recent(tmp_path: Path) -> None:
    store = stored(tmp_path, [traces(4_000)])
    later = FIRST + timedelta(days=10)
    store.write("support", later, traces(4_000, later))
    even = read_horizon(store, TASK, later)
    recent = read_horizon(store, msgspec.structs.replace(TASK, half_life_days=5.0), later)

    def old_mass(horizon: object) -> float:
        weights = horizon.weights  # type: ignore[attr-defined]
        return float(weights[: len(weights) // 2].sum())

    assert len(recent) <= 1_000
    assert old_mass(even) > 0
    assert recent.weights is not None
    assert recent.weights.max() > 2 * np.median(recent.weights)


def test_a_day_alone(tmp_path: Path) -> None:
    store = stored(tmp_path, [traces(500)])
    later = FIRST + timedelta(days=1)
    store.write("support", later, traces(300, later))
    assert len(read_day(store, TASK, later)) == 300
    assert len(read_horizon(store, TASK, later)) == 800


def test_the_days_are_the_tasks(tmp_path: Path) -> None:
    """One answer of another model after seven in the evening of New York, a day of its own in UTC,
    made all others another teacher's."""
    task = msgspec.structs.replace(TASK, timezone="America/New_York")
    noon = datetime(2026, 1, 1, 12, tzinfo=ZoneInfo(task.timezone))
    day = [msgspec.structs.replace(t, occurred_at=noon, teacher_model="usual") for t in traces(500)]
    late = noon.replace(hour=19, minute=30)
    day.append(
        msgspec.structs.replace(day[0], id="late", occurred_at=late, teacher_model="fallback")
    )
    horizon = read_horizon(stored(tmp_path, [day]), task, FIRST)
    assert horizon.answered_by.model == "usual"
    assert horizon.evidence.sum() == 500


def test_an_empty_store_is_an_empty_horizon(tmp_path: Path) -> None:
    assert len(read_horizon(WindowStore(str(tmp_path)), TASK, FIRST)) == 0


def test_answers_outside_of_the_taxonomy_stay_in_a_long_horizon_as_one_stratum(
    tmp_path: Path,
) -> None:
    """Each is another: as labels of their own they would crowd out all others."""
    some = traces(8_000)
    odd = [
        msgspec.structs.replace(t, teacher=f"odd {i}") if i % 8 == 3 else t
        for i, t in enumerate(some)
    ]
    task = msgspec.structs.replace(TASK, labels=("rare", "common"))
    horizon = read_horizon(stored(tmp_path, [odd]), task, FIRST)
    assert horizon.weights is not None
    outside = np.asarray([label.startswith("odd") for label in horizon.teacher])
    assert horizon.labels == ("common", "rare")
    assert 0.1 < outside.mean() < 0.4
    share = horizon.weights[outside].sum() / horizon.weights.sum()
    assert share == pytest.approx(1_000 / (7_600 + 400 * 20), rel=0.25)
