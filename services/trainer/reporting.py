"""The report of a window's fit: the fit, and what came of it, which the registry knows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from shared.contracts.events import ModelAnnouncement
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.fitting.challenger import Challenger
from shared.fitting.prices import Calls, calls
from shared.fitting.reading import Windows
from shared.fitting.report.build import Before, Subject, make_report
from shared.redaction.load import load_redactor
from shared.registry.base import Registry, RegistryError
from shared.store.parquet import SCHEMA

if TYPE_CHECKING:
    from services.trainer.case import Case

log = logging.getLogger(__name__)

_COSTS = ("observation_probability", "cost", "input_tokens", "output_tokens")


@dataclass(frozen=True)
class Outcome:
    """version: None where nothing was stored. before: the version active until then."""

    version: str | None
    refused: bool
    reason: str
    before: Before | None


def outcome_of(case: Case, announcement: ModelAnnouncement, registry: Registry) -> Outcome:
    """Raises RegistryError."""
    artifact = case.found.challenger.artifact
    made = artifact.version if artifact is not None else None
    return Outcome(
        version=made if made in registry.versions(case.task.name) else None,
        refused=artifact is None,
        reason=announcement.reason,
        before=_before(case, registry, made),
    )


def report_of(
    task: Task,
    day: date,
    challenger: Challenger,
    outcome: Outcome,
    costs: pa.Table,
    *,
    strays: int,
    jobs: int,
) -> Report:
    """costs: the day's, by `read_costs`. strays: traces that were left out for their number of
    texts. Raises whatever keeps a report from being made."""
    subject = Subject(
        task=task.name,
        window=day.isoformat(),
        version=outcome.version,
        refused=outcome.refused,
        reason=outcome.reason,
        alpha=task.alpha,
        delta=task.delta,
        audit_share=task.audit_share,
        previews=task.previews,
        redact=load_redactor(task.redact),
    )
    return make_report(
        subject,
        challenger.tried,
        before=outcome.before,
        calls=_calls(task, costs),
        notes=_notes(task, strays),
        jobs=jobs,
    )


def read_costs(windows: Windows, task: Task, day: date) -> pa.Table:
    """What the day's calls cost, and what each trace stands for. Raises OSError."""
    parts = list(windows.scan(task.name, day, _COSTS))
    return pa.concat_tables(parts) if parts else SCHEMA.empty_table().select(_COSTS)


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


def _notes(task: Task, strays: int) -> tuple[str, ...]:
    notes = []
    if strays:
        notes.append(f"{strays} traces of another number of texts were left out")
    if task.audit_share == 0:
        notes.append(
            "audit_share is 0: requests that a version handles leave no trace, so calls and money "
            "are of those alone that reached the teacher"
        )
    return tuple(notes)


def _calls(task: Task, costs: pa.Table) -> Calls | None:
    """All requests the day's traces stand for: with audits the handled ones too."""
    if not len(costs):
        return None
    weights = 1.0 / np.asarray(costs["observation_probability"].to_pylist(), dtype=np.float64)
    return calls(
        weights,
        costs["cost"].to_pylist(),
        costs["input_tokens"].to_pylist(),
        costs["output_tokens"].to_pylist(),
        price=task.price,
        per_call=None,
    )
