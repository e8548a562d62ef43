"""From what the registry, the counters and `models` say to what pages and the JSON API show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from services.console import timeline, views
from services.console.actions import actions_of
from services.console.announcements import Announcements
from services.console.figures import Day, Share, Totals, day_of, totals_of
from services.console.tallies import TallyStore
from services.console.words import (
    ALPHA_RAISED,
    NO_VERSION,
    STATES,
    Word,
    certificate_in_full,
    certificate_sentence,
    word_of_reason,
)
from shared.contracts.events import CertificateSummary, Reason
from shared.contracts.manifest import Manifest
from shared.contracts.tasks import Task
from shared.core.live import agreement_lower
from shared.registry.base import Active, Registry, RegistryError, State, UnknownVersion
from shared.registry.glances import Audits, Glance, Glances

RECENT_DAYS = 30
SHOWN_ENTRIES = 100

LiveOf = Mapping[tuple[str, str], Audits]


class UnknownTask(Exception):
    """There is no such task, or it is not this caller's to see."""


@dataclass(frozen=True)
class Sources:
    """Where everything shown comes from. No page reads a topic."""

    tasks: Mapping[str, Task]
    registry: Registry
    glances: Glances
    tallies: TallyStore
    announcements: Announcements

    def task(self, name: str) -> Task:
        """Raises UnknownTask."""
        task = self.tasks.get(name)
        if task is None:
            raise UnknownTask(f"there is no task {name!r}")
        return task


def overview(sources: Sources, names: Sequence[str]) -> views.Overview:
    """The tasks of `names`, in their order: three questions to the store, however many they are."""
    glances = sources.glances.glance(names)
    audits = sources.glances.audits([key for glance in glances for key in _in_use(glance)])
    days = _days(sources, names)
    rows = [
        _row(sources, sources.task(glance.task), glance, audits, days[glance.task])
        for glance in glances
    ]
    everything = totals_of(day for name in names for day in days[name])
    priced = [row.recent.saved for row in rows if row.recent.saved is not None]
    return views.Overview(
        tasks=tuple(rows),
        requests=everything.requests,
        calls_saved=everything.handled,
        saved=sum(priced) if priced else None,
        coverage=everything.coverage,
        troubles=_troubles(sources),
    )


def task_view(sources: Sources, name: str) -> views.TaskView:
    """Raises UnknownTask."""
    task = sources.task(name)
    (glance,) = sources.glances.glance([name])
    stored = glance.versions[::-1]  # newest first
    audits = sources.glances.audits(
        sorted({*_in_use(glance), *((name, version) for version in stored)})
    )
    days = _days(sources, [name])[name]
    manifests = sources.glances.manifests(name, stored)
    return views.TaskView(
        row=_row(sources, task, glance, audits, days),
        days=tuple(map(_day, days)),
        reasons=_reasons(days),
        timeline=timeline.merged(
            sources.announcements.of(name), sources.registry.history(name, SHOWN_ENTRIES)
        )[:SHOWN_ENTRIES],
        versions=tuple(
            _version(task, version, manifests.get(version), glance.active, audits[name, version])
            for version in stored
        ),
        certificate=_certificate(glance.manifest) if glance.manifest else None,
        actions=actions_of(glance),
        troubles=_troubles(sources),
    )


def version_view(sources: Sources, name: str, version: str) -> views.VersionView:
    """Raises UnknownTask, UnknownVersion, or CorruptArtifact."""
    task = sources.task(name)
    manifest = sources.glances.manifests(name, [version]).get(version)
    if manifest is None:
        raise UnknownVersion(f"{name} has no version {version}")
    if isinstance(manifest, RegistryError):
        raise manifest
    audits = sources.glances.audits([(name, version)])
    report, troubles = None, list(_troubles(sources))
    try:
        report = sources.registry.report(name, version)
    except RegistryError as error:
        troubles.append(str(error))
    teacher = manifest.teacher
    active = sources.registry.active(name)
    return views.VersionView(
        task=name,
        row=_version(task, version, manifest, active, audits[name, version]),
        certificate=_certificate(manifest),
        frontier=tuple(
            views.FrontierView(p.alpha, p.coverage, p.agreement, p.agreement_lower)
            for p in sorted(manifest.frontier, key=lambda point: point.alpha)
        ),
        stages=tuple(
            views.StageView(s.name, s.features, s.threshold, s.novelty_cut, s.bytes, s.blob)
            for s in manifest.stages
        ),
        labels=manifest.labels,
        deferred_labels=manifest.deferred_labels,
        encoder=manifest.encoder,
        traces_sha256=manifest.traces_sha256,
        teacher=teacher.model if teacher else None,
        prompt=teacher.prompt if teacher else None,
        candidates=manifest.candidates,
        families=manifest.families,
        libraries=manifest.libraries,
        report=report,
        troubles=tuple(troubles),
    )


def _row(
    sources: Sources, task: Task, glance: Glance, audits: LiveOf, days: Sequence[Day]
) -> views.TaskRow:
    active = glance.active
    certificate = glance.manifest.certificate if glance.manifest else None
    alpha = active.asked(task.alpha)
    state, word = _state(active, certificate, alpha)
    trial = active.trial
    newest = timeline.merged(
        sources.announcements.of(task.name, 1), [glance.newest] if glance.newest else []
    )
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
        live=_live(task, audits[task.name, active.version]) if active.version else None,
        trial=(
            views.TrialView(
                trial.version, trial.mode, trial.share,
                _live(task, audits[task.name, trial.version]),
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


def _version(
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
        live=_live(task, audits),
        trouble=trouble,
    )


def _live(task: Task, audits: Audits) -> views.LiveView:
    if not audits.n:
        return views.LiveView(0, None, None)
    lower = agreement_lower(audits.n, audits.n - audits.agree, task.delta)
    return views.LiveView(audits.n, audits.agree / audits.n, lower)


def _certificate(manifest: Manifest) -> views.CertificateView:
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


def _reasons(days: Sequence[Day]) -> tuple[views.ReasonView, ...]:
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


def _days(sources: Sources, names: Sequence[str]) -> dict[str, list[Day]]:
    """Oldest first."""
    counts = sources.tallies.days(names, RECENT_DAYS)
    return {
        name: [day_of(day, counts[name][day]) for day in _sorted(counts[name])] for name in names
    }


def _sorted(days: Mapping[date, object]) -> list[date]:
    return sorted(days)


def _day(day: Day) -> views.DayView:
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


def _in_use(glance: Glance) -> list[tuple[str, str]]:
    """The active version and the one on trial, as keys of audits."""
    trial = glance.active.trial
    versions = (glance.active.version, trial.version if trial else None)
    return [(glance.task, version) for version in versions if version]


def _troubles(sources: Sources) -> tuple[str, ...]:
    trouble = sources.announcements.trouble
    return (trouble,) if trouble else ()
