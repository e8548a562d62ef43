"""A fit as a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from shared.contracts.report import Certificate, Curves, Deferrals, Point, Report, Slices
from shared.core.gate import Certified, Refused
from shared.core.report.boundary import boundary_of
from shared.core.report.curves import RISK as CURVE_RISK
from shared.fitting.challenger import Tried
from shared.fitting.prices import Calls
from shared.fitting.report.deltas import deltas_part
from shared.fitting.report.growing import curves_part
from shared.fitting.report.money import money_part
from shared.fitting.report.parts import (
    RISK,
    confusions_part,
    coverage_bounds,
    deferrals_part,
    labels_part,
    material_of,
    pairs_part,
    slices_part,
)
from shared.fitting.report.sentences import certificate_in_full, certificate_sentence, summary
from shared.fitting.report.texts import Redact, Texts
from shared.rounding import down, up


@dataclass(frozen=True)
class Subject:
    """Whose report it is. version: None where none was published, for whatever reason. refused:
    nothing was certified, or not exported. audit_share: of what is handled, asked of the teacher
    nevertheless. previews, redact: how texts may be shown."""

    task: str
    window: str
    version: str | None
    refused: bool
    reason: str
    alpha: float
    delta: float
    audit_share: float = 0.0
    previews: bool = True
    redact: Redact | None = None


@dataclass(frozen=True)
class Before:
    """The report of the version active so far, and all of its labels."""

    report: Report
    labels: frozenset[str]


def make_report(
    subject: Subject,
    tried: Tried | None,
    *,
    before: Before | None = None,
    calls: Calls | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
    jobs: int = 1,
) -> Report:
    """Deterministic. tried: the fit, None where there was nothing to fit on. calls: of a day, for
    the money."""
    certificate = None
    if tried and not subject.refused and isinstance(tried.fitted.verdict, Certified):
        certificate = certificate_part(tried.fitted.verdict, tried.fitted.method or "l2d")
    report = _empty(subject, tried, certificate, notes)
    boundary = None if tried is None else boundary_of(tried.fitted, tried.training)
    if tried is None or boundary is None or tried.fitted.judged is None:
        return report
    texts = Texts(tried.horizon.inputs, subject.previews, subject.redact)
    training, judged = tried.training, tried.fitted.judged
    parts = material_of(boundary, training, texts, refused=certificate is None)
    labels = labels_part(parts)
    if certificate is not None:
        lower, upper = coverage_bounds(parts)
        certificate = replace(certificate, coverage_lower=lower, coverage_upper=upper)
    changes: dict[str, Any] = {
        "certificate": certificate,
        "slices": slices_part(parts, seed=seed),
        "labels": labels,
        "deferrals": deferrals_part(parts),
        "pairs": pairs_part(parts),
        "confusions": confusions_part(parts),
        "curves": curves_part(judged, training, texts, target=subject.alpha, seed=seed, jobs=jobs),
    }
    if before is not None:
        changes["deltas"] = deltas_part(
            before.report,
            certificate=certificate,
            labels=labels,
            n_traces=len(training),
            all_labels=set(training.labels),
            all_before=set(before.labels),
        )
    if calls is not None and certificate is not None:
        changes["money"] = money_part(calls, certificate, subject.audit_share)
    return replace(report, **changes)


def certificate_part(verdict: Certified, method: str) -> Certificate:
    return Certificate(
        sentence=certificate_sentence(verdict),
        in_full=certificate_in_full(verdict),
        kind=verdict.kind,
        method=method,
        alpha=verdict.alpha,
        delta=verdict.delta,
        next_sample=verdict.next_sample,
        n_evidence=verdict.n_evidence,
        coverage=round(verdict.coverage, 4),
        agreement=round(verdict.agreement, 4),
        agreement_lower=down(verdict.agreement_lower, 4),
        wrong_per_1000_at_most=wrong_at_most(verdict.coverage, verdict.agreement_lower),
    )


def wrong_at_most(coverage: float, agreement_lower: float) -> float:
    """Wrong answers in 1,000 requests, by a certificate; rounded up, as a bound from above is."""
    return up(1000.0 * coverage * (1.0 - agreement_lower), 1)


def _empty(
    subject: Subject, tried: Tried | None, certificate: Certificate | None, notes: Sequence[str]
) -> Report:
    """What is known before anybody looks at rows."""
    n_evidence = 0 if tried is None else int(tried.training.evidence.sum())
    return Report(
        task=subject.task,
        window=subject.window,
        version=subject.version,
        refused=certificate is None,
        reason=subject.reason,
        summary=summary(certificate, subject.reason),
        n_traces=0 if tried is None else len(tried.training),
        n_evidence=n_evidence,
        n_labels=0 if tried is None else len(tried.training.labels),
        alpha=subject.alpha,
        delta=subject.delta,
        previews=subject.previews,
        redacted=subject.redact is not None,
        certificate=certificate,
        frontier=() if tried is None else tuple(map(_point, tried.fitted.frontier)),
        slices=Slices(risk=RISK, n_tested=0, found=()),
        labels=(),
        deferrals=Deferrals(n=0, n_evidence=0, reasons=()),
        pairs=(),
        confusions=(),
        curves=Curves(risk=CURVE_RISK, curves=()),
        deltas=None,
        money=None,
        notes=tuple(notes),
    )


def _point(point: Certified | Refused) -> Point:
    if isinstance(point, Refused):
        return Point(alpha=point.alpha, coverage=0.0, agreement=0.0, agreement_lower=0.0)
    return Point(
        alpha=point.alpha,
        coverage=round(point.coverage, 4),
        agreement=round(point.agreement, 4),
        agreement_lower=down(point.agreement_lower, 4),
    )
