"""Views made of what is known: figures and words, one kind of thing each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from services.console import timeline, views
from services.console.figures import Day, Share, Totals, totals_of
from services.console.words import (
    ALPHA_RAISED,
    NO_VERSION,
    STATES,
    Word,
    certificate_in_full,
    certificate_sentence,
    word_of_reason,
)
from shared.contracts.events import CertificateSummary, ModelAnnouncement, Reason
from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.core.live import agreement_lower
from shared.registry.base import Active, RegistryError, State
from shared.registry.glances import Audits, Glance

# Pages renew themselves every few seconds, audits come more slowly.
_lower = lru_cache(4_096)(agreement_lower)

# By task and version.
LiveOf = Mapping[tuple[str, str], Audits]


def row_view(
    task: Task,
    glance: Glance,
    audits: LiveOf,
    days: Sequence[Day],
    announcements: Sequence[ModelAnnouncement],
) -> views.TaskRow:
    active = glance.active
    certificate = glance.manifest.certificate if glance.manifest else None
    alpha = active.asked(task.alpha)
    state, word = _state(active, certificate, alpha)
    trial = active.trial
    newest = timeline.merged(announcements[:1], [glance.newest] if glance.newest else [])
    return views.TaskRow(
        task=task.name,
        alpha=alpha,
        configured_alpha=task.alpha,
        delta=task.delta,
        state=state,
        state_title=word.title,
        state_says=word.says,
        tone=word.tone,
        active=active.version,
        epoch=active.epoch,
        certified_coverage=certificate.coverage if certificate else None,
        certified_lower=certificate.agreement_lower if certificate else None,
        live=live_view(task, audits[task.name, active.version]) if active.version else None,
        trial=(
            views.TrialView(
                trial.version, trial.mode, trial.share,
                live_view(task, audits[task.name, trial.version]),
            )
            if trial
            else None
        ),
        recent=_totals(totals_of(days)),
        coverage_by_day=tuple((day.day, day.coverage) for day in days),
        n_versions=len(glance.versions),
        newest=newest[0] if newest else None,
        trouble=glance.damage,
    )  # fmt: skip


def _state(
    active: Active, certificate: CertificateSummary | None, alpha: float
) -> tuple[str, Word]:
    if active.version is None:
        return "none", NO_VERSION
    if active.state is State.SERVING and certificate and certificate.alpha < alpha:
        return "refitting", ALPHA_RAISED
    return active.state.value, STATES[active.state]


def version_row(
    task: Task,
    version: str,
    manifest: Manifest | RegistryError | None,
    active: Active,
    audits: Audits,
) -> views.VersionRow:
    standing = "stored"
    if version == active.version:
        standing = "active"
    elif active.trial and version == active.trial.version:
        standing = "trial"
    if isinstance(manifest, Manifest):
        certificate, trouble = manifest.certificate, None
    else:
        certificate, trouble = None, str(manifest or "it was deleted meanwhile")
    return views.VersionRow(
        version=version,
        standing=standing,
        window=manifest.window if isinstance(manifest, Manifest) else None,
        n_traces=manifest.n_traces if isinstance(manifest, Manifest) else None,
        alpha=certificate.alpha if certificate else None,
        coverage=certificate.coverage if certificate else None,
        agreement=certificate.agreement if certificate else None,
        agreement_lower=certificate.agreement_lower if certificate else None,
        live=live_view(task, audits),
        trouble=trouble,
    )


def live_view(task: Task, audits: Audits) -> views.LiveView:
    if not audits.n:
        return views.LiveView(0, None, None)
    lower = _lower(audits.n, audits.n - audits.agree, task.delta)
    return views.LiveView(audits.n, audits.agree / audits.n, lower)


def certificate_view(manifest: Manifest) -> views.CertificateView:
    c = manifest.certificate
    return views.CertificateView(
        sentence=certificate_sentence(c),
        in_full=certificate_in_full(manifest),
        kind=c.kind,
        method=c.method,
        alpha=c.alpha,
        delta=c.delta,
        n_evidence=c.n_evidence,
        coverage=c.coverage,
        agreement=c.agreement,
        agreement_lower=c.agreement_lower,
    )


def reason_views(days: Sequence[Day]) -> tuple[views.ReasonView, ...]:
    counts: dict[Reason, int] = {}
    for day in days:
        for reason, n in day.reasons.items():
            counts[reason] = counts.get(reason, 0) + n
    total = sum(counts.values())
    return tuple(
        views.ReasonView(
            reason.value, word_of_reason(reason).title, word_of_reason(reason).says, n, n / total
        )
        for reason, n in sorted(counts.items(), key=lambda item: -item[1])
    )


def day_view(day: Day) -> views.DayView:
    price = totals_of([day]).price
    return views.DayView(
        day=day.day,
        requests=day.requests,
        handled=day.handled,
        audited=day.audited,
        deferred=day.deferred,
        failed=day.failed,
        coverage=day.coverage,
        agreement=_interval(day.agreement),
        saved=None if price is None else day.handled * price,
    )


def _interval(share: Share) -> views.Interval:
    return views.Interval(share.value, share.lower, share.upper, share.n)


def _totals(totals: Totals) -> views.TotalsView:
    return views.TotalsView(
        days=totals.days,
        requests=totals.requests,
        handled=totals.handled,
        audited=totals.audited,
        deferred=totals.deferred,
        coverage=totals.coverage,
        calls_saved=totals.handled,
        saved=totals.saved,
        price=totals.price,
    )
