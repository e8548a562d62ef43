"""Reports as they are made of real fits."""

from __future__ import annotations

from functools import cache

import msgspec
import numpy as np
import pytest
from scipy.stats import binomtest

from shared.contracts.report import (
    MAX_REPORT_BYTES,
    PREVIEW_CHARS,
    CurvePoint,
    Report,
    decode_report,
)
from shared.contracts.tasks import Price
from shared.core.gate import Certified
from shared.core.report.reasons import REASONS
from shared.core.training import TrainingSet
from shared.fitting.challenger import Tried
from shared.fitting.prices import calls
from shared.fitting.report.build import Before, Subject, certificate_part, make_report
from shared.fitting.report.sentences import curve_sentence, summary
from shared.fitting.report.texts import Texts
from tests.reports import LABELS, trained

SUBJECT = Subject(
    task="support", window="2026-11-22", version="2026-11-22-0123456789ab", refused=False,
    reason="certified: for a test", alpha=0.9, delta=0.1, audit_share=0.02,
)  # fmt: skip


@cache
def report(n: int = 900, *, previews: bool = True, evidence: str = "crossfit") -> Report:
    subject = msgspec_replace(SUBJECT, previews=previews)
    return make_report(subject, Tried(*trained(n, evidence=evidence)))


def msgspec_replace(subject: Subject, **changes: object) -> Subject:
    return Subject(**{**vars(subject), **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("coverage", "lower", "most", "said"),
    [
        (0.98761, 0.957, 42.5, "43"),
        (0.9, 0.9511, 44.1, "45"),
        (0.8, 0.95, 40.0, "40"),
        (1, 1, 0, "0"),
    ],
)
def test_a_bound_from_above_is_rounded_up(
    coverage: float, lower: float, most: float, said: str
) -> None:
    verdict = Certified(
        alpha=0.9, delta=0.1, next_sample=0.0, kind="crossfit", threshold=0.5, coverage=coverage,
        agreement=1.0, agreement_lower=lower, n_evidence=900,
    )  # fmt: skip
    certificate = certificate_part(verdict, "global")
    assert certificate.wrong_per_1000_at_most == most
    assert f"at most {said} of them" in summary(certificate, "")


def test_a_bound_from_below_is_rounded_down_and_a_level_not_at_all() -> None:
    verdict = Certified(
        alpha=0.875, delta=0.001, next_sample=0.0, kind="crossfit", threshold=0.5, coverage=0.9,
        agreement=0.97, agreement_lower=0.95678, n_evidence=900,
    )  # fmt: skip
    certificate = certificate_part(verdict, "global")
    assert certificate.agreement_lower == 0.9567
    assert "With 99.9% confidence" in certificate.sentence
    assert "at least 95.6% of the 90.0%" in certificate.sentence
    assert "at least 0.9567." in " ".join(certificate.in_full)
    twice = CurvePoint(n=10, agreement=0.86, lower=0.85, upper=0.87)
    assert "; 87.5% " in curve_sentence("everything", "growing", 0.8, twice, None, 0.875)


def test_a_target_that_the_forecast_passes_is_not_out_of_reach() -> None:
    """Measured below it on four fifths of the traces, reached by the law on all of them."""
    twice = CurvePoint(n=2_000, agreement=0.96, lower=0.95, upper=0.97)
    for now, target, said in (
        (0.951, 0.95, "95% is reached"),
        (0.949, 0.95, "95% is about reached"),
        (0.949, 0.99, "99% is not within reach of traces alone"),
    ):
        assert said in curve_sentence("everything", "growing", now, twice, None, target)


def test_of_long_pairs_both_texts_are_shown() -> None:
    texts = Texts([("a" * 300, "the premise holds"), ("a" * 300, "the premise fails")])
    first, second = texts.marked(0, 1)
    assert [w.text for w in first if w.differs] == ["holds"]
    assert [w.text for w in second if w.differs] == ["fails"]


@pytest.mark.parametrize("evidence", ["crossfit", "holdout"])
def test_a_report_says_what_the_fit_found(evidence: str) -> None:
    found = report(evidence=evidence)
    _, training, fitted = trained(evidence=evidence)
    verdict = fitted.verdict
    assert isinstance(verdict, Certified)
    assert found.certificate is not None
    assert found.certificate.coverage == pytest.approx(verdict.coverage, abs=1e-4)
    assert found.certificate.agreement_lower == pytest.approx(verdict.agreement_lower, abs=1e-4)
    assert found.deferrals.n_evidence == verdict.n_evidence
    assert found.deferrals.n == round((1 - verdict.coverage) * verdict.n_evidence)
    assert sum(one.n for one in found.deferrals.reasons) == found.deferrals.n
    assert sum(one.share for one in found.deferrals.reasons) == pytest.approx(
        1 - verdict.coverage, abs=1e-3
    )
    assert {one.reason for one in found.deferrals.reasons} <= set(REASONS)
    assert sum(row.n for row in found.labels) == verdict.n_evidence
    assert {row.label for row in found.labels} <= set(training.labels)
    assert found.pairs
    assert found.confusions
    assert found.curves.curves[0].kind == "all"
    assert [point.alpha for point in found.frontier] == sorted(p.alpha for p in found.frontier)
    assert decode_report(found.encode()) == found


def test_the_same_fit_gives_the_same_bytes() -> None:
    again = make_report(SUBJECT, Tried(*trained()))
    assert again.encode() == report().encode()


def test_examples_are_of_their_reason() -> None:
    horizon, _, _ = trained()
    given = dict(zip([texts[0] for texts in horizon.inputs], horizon.teacher, strict=True))
    found = report()
    for reason in found.deferrals.reasons:
        assert reason.examples
        for example in reason.examples:
            assert given[example.texts[0]] == example.teacher
            if reason.reason == "contradicted":
                assert example.texts[0].lower().startswith("where is number")
    for confusion in found.confusions:
        assert all((e.teacher, e.said) == (confusion.a, confusion.b) for e in confusion.a_as_b)
        assert all((e.teacher, e.said) == (confusion.b, confusion.a) for e in confusion.b_as_a)


def test_without_previews_no_text_is_in_it() -> None:
    found = report(previews=False)
    assert not found.previews
    said = found.encode().decode()
    for word in ("parcel", "invoice", "password", "where is", "bonjour"):
        assert word not in said.lower()
    assert found.deferrals.reasons == tuple(
        msgspec.structs.replace(
            one,
            examples=tuple(msgspec.structs.replace(e, texts=()) for e in one.examples),
        )
        for one in report().deferrals.reasons
    )


def test_what_is_redacted_is_in_no_part_of_it() -> None:
    def redact(text: str) -> str:
        return text.replace("parcel", "[THING]")

    found = make_report(msgspec_replace(SUBJECT, redact=redact), Tried(*trained()))
    assert found.redacted
    assert "parcel" not in found.encode().decode()
    assert "[THING]" in found.encode().decode()
    assert "parcel" in report().encode().decode()


def test_a_refusal_defers_everything_and_says_so() -> None:
    subject = msgspec_replace(SUBJECT, version=None, refused=True, reason="not enough")
    found = make_report(subject, Tried(*trained(alpha=0.999)))
    assert found.key == "unpublished-2026-11-22"
    assert found.refused
    assert found.certificate is None
    assert found.money is None
    assert found.deferrals.n == found.deferrals.n_evidence
    assert {one.reason for one in found.deferrals.reasons} >= {"refused", "ambiguous"}
    assert "not enough" in found.summary


def test_nothing_to_fit_on_is_a_report_too() -> None:
    subject = msgspec_replace(SUBJECT, version=None, refused=True, reason="no traces")
    found = make_report(subject, None, notes=["one note"])
    assert (found.n_traces, found.labels, found.notes) == (0, (), ("one note",))
    assert decode_report(found.encode()) == found


def test_money_is_of_the_certified_coverage_after_audits() -> None:
    day = calls(
        np.full(100, 2.0), [None] * 100, [50] * 100, [10] * 100, price=Price(per_call=0.01),
        per_call=None,
    )  # fmt: skip
    found = make_report(SUBJECT, Tried(*trained()), calls=day)
    assert found.money is not None
    assert found.certificate is not None
    saved = found.certificate.coverage * 0.98
    assert found.money.requests_per_day == 200
    assert found.money.calls_saved_per_1000 == pytest.approx(1000 * saved, abs=0.1)
    assert found.money.saved_per_day == pytest.approx(200 * 0.01 * saved, abs=1e-3)
    assert found.money.tokens_saved_per_day == pytest.approx(200 * 60 * saved, rel=1e-3)
    assert found.money.price_from == "task"
    certificate, money = found.certificate, found.money
    for per_1000, month, coverage in (
        (money.calls_saved_per_1000_lower, money.saved_per_month_lower, certificate.coverage_lower),
        (money.calls_saved_per_1000_upper, money.saved_per_month_upper, certificate.coverage_upper),
    ):
        assert coverage is not None
        assert per_1000 == pytest.approx(980 * coverage, abs=0.1)
        assert month == pytest.approx(30 * 200 * 0.01 * 0.98 * coverage, abs=1e-3)


def test_shares_have_intervals_no_narrower_than_the_exact_ones() -> None:
    """Near-duplicates are one observation, so intervals are wider than SciPy's of single rows."""
    found = report()
    evidence = found.deferrals.n_evidence
    assert found.certificate is not None
    told = found.certificate
    shares = [(evidence - found.deferrals.n, told.coverage_lower, told.coverage_upper)]
    shares += [(one.n, one.lower, one.upper) for one in found.deferrals.reasons]
    for n, lower, upper in shares:
        assert lower is not None
        assert upper is not None
        exact = binomtest(n, evidence).proportion_ci(0.95, "exact")
        assert 0.0 <= lower <= exact.low + 1e-4
        assert exact.high - 1e-4 <= upper <= 1.0


def test_deltas_name_labels_and_what_changed() -> None:
    before = report()
    rows = tuple(
        msgspec.structs.replace(row, n_handled=row.n // 10, coverage=0.1)
        if row.label == "billing"
        else row
        for row in before.labels
    )
    previous = msgspec.structs.replace(before, version="2026-11-21-abcdef012345", labels=rows)
    known = Before(previous, frozenset({*LABELS, "gone"}))
    found = make_report(SUBJECT, Tried(*trained()), before=known).deltas
    assert found is not None
    assert found.previous == "2026-11-21-abcdef012345"
    assert (found.labels_added, found.labels_removed) == (("other",), ("gone",))
    assert [(c.label, c.measure) for c in found.changes] == [("billing", "coverage")]
    change = found.changes[0]
    assert change.before == 0.1
    now = next(row for row in before.labels if row.label == "billing")
    assert (change.n_before, change.n_now) == (now.n, now.n)
    assert (change.now, change.now_lower, change.now_upper) == (
        now.coverage, now.coverage_lower, now.coverage_upper,
    )  # fmt: skip
    assert (found.n_compared, found.risk) == (6, 0.05)  # two shares of three labels with 30 rows
    assert before.certificate is not None
    assert found.coverage_before_lower == before.certificate.coverage_lower is not None
    assert found.agreement_lower_now == before.certificate.agreement_lower
    assert "billing" in found.sentence
    same = make_report(SUBJECT, Tried(*trained()), before=Before(before, frozenset(LABELS))).deltas
    assert same is not None
    assert same.changes == ()
    assert "stayed" in same.sentence


def test_the_longest_texts_and_labels_fit_in() -> None:
    horizon, training, fitted = trained()
    nasty = "\x01" * 30_000
    inputs = [(f"{texts[0]} {nasty}", nasty) for texts in horizon.inputs]
    names = tuple(f"{i}" + "\x01" * 255 for i in range(len(training.labels)))
    long = TrainingSet(**{**vars(training), "labels": names})
    found = make_report(
        SUBJECT, Tried(type(horizon)(inputs, horizon.teacher, horizon.evidence), long, fitted)
    )
    assert len(found.encode()) <= MAX_REPORT_BYTES
    assert all(len(text) <= PREVIEW_CHARS + 1 for one in found.deferrals.reasons
               for example in one.examples for text in example.texts)  # fmt: skip
    assert decode_report(found.encode()) == found
