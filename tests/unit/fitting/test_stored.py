"""What may certify, and how much it stands for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from doubles import arrow_memory

from shared.contracts.events import Reason, Source, Trace
from shared.contracts.manifest import Teacher
from shared.fitting.horizon import Horizon
from shared.fitting.stored import horizon_of, is_evidence, since_trip
from shared.store.parquet import table_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def trace(number: int, *, day: int = 0, **fields: Any) -> Trace:
    return Trace(
        id=f"t{number:04d}",
        task="support",
        input=f"text {number}",
        teacher=fields.pop("teacher", "billing"),
        occurred_at=fields.pop("occurred_at", START + timedelta(days=day, seconds=number)),
        **fields,
    )


def horizon(*traces: Trace, zone: tzinfo = UTC, taxonomy: tuple[str, ...] = ()) -> Horizon:
    return horizon_of(table_of(list(traces)), zone=zone, taxonomy=taxonomy)


@pytest.mark.parametrize(
    ("source", "reason", "audit_share", "certifies"),
    [
        (Source.LOG, None, 0.0, True),
        (Source.AUDITED, None, 0.05, True),
        (Source.DEFERRED, Reason.NO_ACTIVE_VERSION, 0.0, True),
        (Source.DEFERRED, Reason.TRIPPED, 0.0, True),
        (Source.DEFERRED, Reason.PAUSED, 0.0, True),
        (Source.DEFERRED, Reason.PROBATION, 0.0, False),
        (Source.DEFERRED, Reason.ALPHA_RAISED, 0.0, False),
        (Source.DEFERRED, Reason.PROBATION, 0.05, True),
        (Source.DEFERRED, Reason.BELOW_THRESHOLD, 0.0, False),
        (Source.DEFERRED, Reason.BELOW_THRESHOLD, 0.05, True),
        (Source.DEFERRED, Reason.OUT_OF_DISTRIBUTION, 0.05, True),
    ],
)
def test_what_was_selected_certifies_only_beside_audits(
    source: Source, reason: Reason | None, audit_share: float, certifies: bool
) -> None:
    assert is_evidence(source, reason, audit_share) is certifies


def test_a_day_of_audits_weighs_what_it_says() -> None:
    """100 rows seen whole; a day of 10 audits that stand for 20 each and 100 deferred rows."""
    whole = [trace(i) for i in range(100)]
    audits = [
        trace(1_000 + i, day=1, source=Source.AUDITED, observation_probability=0.05,
              audit_share=0.05)
        for i in range(10)
    ]  # fmt: skip
    deferred = [
        trace(2_000 + i, day=1, source=Source.DEFERRED, audit_share=0.05,
              deferral_reason=Reason.BELOW_THRESHOLD)
        for i in range(100)
    ]  # fmt: skip
    found = horizon(*whole, *audits, *deferred)
    assert found.evidence.all()
    assert found.weights is not None
    assert (found.weights[:100] == 1.0).all()
    of_day_two = found.weights[100:]
    effective = (10 * 20 + 100) ** 2 / (10 * 400 + 100)
    assert of_day_two.sum() == pytest.approx(effective)
    assert of_day_two[:10] / of_day_two[-1] == pytest.approx(np.full(10, 20.0))
    assert found.heaviest == pytest.approx(of_day_two[0])


def test_a_day_whose_audits_found_nothing_is_still_known_to_be_audited() -> None:
    deferred = [
        trace(i, source=Source.DEFERRED, audit_share=0.05, deferral_reason=Reason.BELOW_THRESHOLD)
        for i in range(50)
    ]
    assert horizon(*deferred).heaviest == pytest.approx(20.0)


def test_audits_are_scaled_by_the_tasks_days() -> None:
    """A day of New York is one, though it is two of UTC."""
    zone = ZoneInfo("America/New_York")
    evening = [
        trace(i, occurred_at=datetime(2026, 1, 6, 18, 30 + i // 10, tzinfo=zone),
              source=Source.DEFERRED, audit_share=0.05, deferral_reason=Reason.BELOW_THRESHOLD)
        for i in range(50)
    ]  # fmt: skip
    evening += [
        trace(100 + i, occurred_at=datetime(2026, 1, 6, 19, 30, i, tzinfo=zone),
              source=Source.AUDITED, observation_probability=0.05, audit_share=0.05)
        for i in range(10)
    ]  # fmt: skip
    found = horizon(*evening, zone=zone)
    assert found.weights is not None
    assert found.weights.sum() == pytest.approx((10 * 20 + 50) ** 2 / (10 * 400 + 50))


TAXONOMY = ("billing", "delivery")


def test_an_answer_outside_of_the_taxonomy_is_evidence_and_no_label() -> None:
    found = horizon(trace(1), trace(2, teacher="no idea"), taxonomy=TAXONOMY)
    assert list(found.teacher) == ["billing", "no idea"]
    assert found.evidence.all()
    assert found.labels == ("billing",)
    assert found.take([1]).labels == ()


def test_where_it_is_no_evidence_it_is_left_out() -> None:
    """So is a label that was removed: it was asked for with another prompt."""
    unaudited = {"source": Source.DEFERRED, "deferral_reason": Reason.BELOW_THRESHOLD}
    found = horizon(
        trace(1, teacher="gone", prompt="aa"), trace(2, prompt="aa"), trace(3, day=1, prompt="bb"),
        trace(4, day=1, teacher="no idea", prompt="bb", **unaudited), taxonomy=TAXONOMY,
    )  # fmt: skip
    assert list(found.teacher) == ["billing", "billing"]
    assert found.evidence.tolist() == [False, True]


def test_the_teacher_of_the_newest_day_is_the_one_certified() -> None:
    old = [trace(i, teacher_model="llm-1", prompt="aa") for i in range(5)]
    unknown = [trace(10 + i) for i in range(5)]
    new = [trace(20 + i, day=1, teacher_model="llm-2", prompt="bb") for i in range(5)]
    after = [trace(30 + i, day=1) for i in range(5)]
    found = horizon(*old, *unknown, *new, *after)
    assert found.answered_by == Teacher(model="llm-2", prompt="bb")
    assert found.evidence.tolist() == [False] * 10 + [True] * 10


def test_one_answer_of_a_fallback_model_in_the_evening_decides_nothing() -> None:
    """The newest day is the task's: in UTC this answer after seven was a day of its own, and all
    others were another teacher's, so that a good version was retired."""
    zone = ZoneInfo("America/New_York")
    noon = datetime(2026, 1, 6, 12, tzinfo=zone)
    answers = [trace(i, occurred_at=noon, teacher_model="usual") for i in range(20)]
    evening = trace(99, occurred_at=noon.replace(hour=19, minute=30), teacher_model="fallback")
    found = horizon(*answers, evening, zone=zone)
    assert found.answered_by.model == "usual"
    assert found.evidence.sum() == 20


def test_a_teacher_that_was_never_named_is_taken_for_the_same() -> None:
    found = horizon(
        *(trace(i) for i in range(5)), *(trace(10 + i, teacher_model="llm-1") for i in range(5))
    )
    assert found.evidence.all()


def test_after_the_last_trip_nothing_older_certifies() -> None:
    tripped = {"source": Source.DEFERRED, "deferral_reason": Reason.TRIPPED}
    traces = [
        trace(0),
        trace(1, day=1, version="v1", **tripped),
        trace(2, day=2),
        trace(3, day=3, version="v2", **tripped),
        trace(4, day=4, version="v2", **tripped),
        trace(5, day=5),
    ]
    found = horizon(*traces)
    assert found.evidence.tolist() == [False] * 3 + [True] * 3
    recent = since_trip(found)
    assert recent is not None
    assert len(recent) == 3
    assert since_trip(horizon(trace(0))) is None


def test_a_request_dated_days_back_moves_no_trip() -> None:
    """It was the first of those deferred for the trip, and brought back what had failed."""
    told = {"version": "v", "audit_share": 0.05}
    audits = [
        trace(i, day=i // 20, source=Source.AUDITED, observation_probability=0.05, **told)
        for i in range(60)
    ]
    logged = [trace(100 + i, day=1) for i in range(10)]
    tripped = {"source": Source.DEFERRED, "deferral_reason": Reason.TRIPPED, **told}
    after = [trace(200 + i, day=3, **tripped) for i in range(30)]
    late = trace(300, **tripped)
    found = horizon(*audits, *logged, *after, late)
    evidence = {one for one, counts in zip(found.ids, found.evidence, strict=True) if counts}
    assert evidence == {one.id for one in (*after, late)}


def test_what_a_tripped_version_did_was_before_its_trip_whatever_its_date() -> None:
    tripped = {"source": Source.DEFERRED, "deferral_reason": Reason.TRIPPED}
    found = horizon(
        trace(1, version="v", **tripped),
        trace(2, day=9, version="v", source=Source.AUDITED, audit_share=0.05),
        trace(3, day=9, version="w", source=Source.AUDITED, audit_share=0.05),
    )
    assert found.evidence.tolist() == [True, False, True]


def test_the_order_of_arrival_does_not_matter() -> None:
    traces = [trace(i, day=i % 3, teacher_model=f"llm-{i % 2}") for i in range(30)]
    assert horizon(*traces).digest() == horizon(*reversed(traces)).digest()


def test_very_much_text_can_be_fitted_on() -> None:
    """Arrow puts texts in order by joining them all, which fails from 2 GiB on."""
    long = "x" * 30_000
    some = table_of(msgspec.structs.replace(trace(i), input=long) for i in range(100))
    table = pa.concat_tables([some] * 10)
    with arrow_memory() as pool:
        assert len(horizon_of(table)) == 1_000
    assert (pool.max_memory() or 0) < 1_000 * len(long) / 10
