"""From what the registry, the counters and `models` say to what pages and the JSON API show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.console import timeline, views
from services.console.actions import actions_of
from services.console.announcements import Announcements
from services.console.figures import Day, day_of, totals_of
from services.console.showing import (
    LiveOf,
    certificate_view,
    day_view,
    reason_views,
    row_view,
    version_row,
)
from services.console.tallies import TallyStore
from services.console.words import alpha_says
from shared.contracts.manifest import frontier_at
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.registry.base import Registry, RegistryError, UnknownVersion
from shared.registry.glances import Glance, Glances
from shared.reporting.hiding import as_shown

RECENT_DAYS = 30
SHOWN_ENTRIES = 100


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
    rows = [_row(sources, glance, audits, days[glance.task]) for glance in glances]
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
        row=_row(sources, glance, audits, days),
        days=tuple(map(day_view, days)),
        reasons=reason_views(days),
        timeline=timeline.merged(
            sources.announcements.of(name), sources.registry.history(name, SHOWN_ENTRIES)
        )[:SHOWN_ENTRIES],
        versions=tuple(
            version_row(task, version, manifests.get(version), glance.active, audits[name, version])
            for version in stored
        ),
        certificate=certificate_view(glance.manifest) if glance.manifest else None,
        actions=actions_of(glance),
        troubles=_troubles(sources),
    )


def report_of(sources: Sources, name: str, key: str) -> Report:
    """By version, or by `unpublished_key` of a window. Raises UnknownTask, UnknownVersion."""
    task = sources.task(name)
    report = sources.registry.report(task.name, key)
    if report is None:
        raise UnknownVersion(f"{name} has no report {key}")
    return as_shown(report, task)


def alpha_view(sources: Sources, name: str, wanted: float | None) -> views.AlphaView:
    """What asking for `wanted` (None: the tasks file's α) would do now. Raises UnknownTask."""
    task = sources.task(name)
    (glance,) = sources.glances.glance([name])
    alpha = task.alpha if wanted is None else wanted
    point = frontier_at(glance.manifest, alpha) if glance.manifest else None
    certified = glance.manifest.certificate.alpha if glance.manifest else None
    return views.AlphaView(
        alpha=alpha,
        now=glance.active.asked(task.alpha),
        certified_for=certified,
        coverage=point.coverage if point else None,
        agreement_lower=point.agreement_lower if point and point.coverage else None,
        says=alpha_says(alpha, certified, point),
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
        report = None if report is None else as_shown(report, task)
    except RegistryError as error:
        troubles.append(str(error))
    teacher = manifest.teacher
    active = sources.registry.active(name)
    return views.VersionView(
        task=name,
        row=version_row(task, version, manifest, active, audits[name, version]),
        certificate=certificate_view(manifest),
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


def _row(sources: Sources, glance: Glance, audits: LiveOf, days: Sequence[Day]) -> views.TaskRow:
    said = sources.announcements.of(glance.task, 1)
    return row_view(sources.task(glance.task), glance, audits, days, said)


def _days(sources: Sources, names: Sequence[str]) -> dict[str, list[Day]]:
    """Oldest first."""
    counts = sources.tallies.days(names, RECENT_DAYS)
    return {
        name: [day_of(day, counts[name][day]) for day in sorted(counts[name])] for name in names
    }


def _in_use(glance: Glance) -> list[tuple[str, str]]:
    """The active version and the one on trial, as keys of audits."""
    trial = glance.active.trial
    versions = (glance.active.version, trial.version if trial else None)
    return [(glance.task, version) for version in versions if version]


def _troubles(sources: Sources) -> tuple[str, ...]:
    trouble = sources.announcements.trouble
    return (trouble,) if trouble else ()
