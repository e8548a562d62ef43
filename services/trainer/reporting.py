"""The report of a window's fit."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from services.trainer.case import Case
from shared.contracts.events import ModelAnnouncement
from shared.contracts.report import Report
from shared.fitting.prices import Calls, calls
from shared.fitting.report.build import Before, Subject, make_report
from shared.redaction.load import load_redactor
from shared.registry.base import Registry, RegistryError

log = logging.getLogger(__name__)


def report_of(
    case: Case, announcement: ModelAnnouncement, day: pa.Table, registry: Registry, *, jobs: int
) -> Report:
    """day: the window's traces, which say what a day's calls cost. Raises whatever keeps a report
    from being made."""
    task, challenger = case.task, case.challenger
    artifact = challenger.artifact
    made = artifact.version if artifact is not None else None
    subject = Subject(
        task=task.name,
        window=case.day.isoformat(),
        version=made if made in registry.versions(task.name) else None,
        refused=artifact is None,
        reason=announcement.reason,
        alpha=task.alpha,
        delta=task.delta,
        audit_share=task.audit_share,
        previews=task.previews,
        redact=load_redactor(task.redact),
    )
    return make_report(
        subject,
        challenger.tried,
        before=_before(case, registry, made),
        calls=_calls(case, day),
        notes=case.notes,
        jobs=jobs,
    )


def _before(case: Case, registry: Registry, made: str | None) -> Before | None:
    """The version active so far; None where it is the one just made, or has no report."""
    version, task = case.active.version, case.task.name
    if version is None or version == made:
        return None
    try:
        report = registry.report(task, version)
        if report is None:
            return None
        return Before(report, frozenset(registry.load(task, version).manifest.labels))
    except RegistryError as error:
        log.warning("no deltas in the report: %s", error, extra={"task": task})
        return None


def _calls(case: Case, day: pa.Table) -> Calls | None:
    """All requests the day's traces stand for."""
    if not len(day):
        return None
    weights = 1.0 / np.asarray(day["observation_probability"].to_pylist(), dtype=np.float64)
    return calls(
        weights,
        day["cost"].to_pylist(),
        day["input_tokens"].to_pylist(),
        day["output_tokens"].to_pylist(),
        price=case.task.price,
        per_call=None,
    )
