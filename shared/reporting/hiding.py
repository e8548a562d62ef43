"""A stored report as its task wants it shown now; it may have been made under other settings."""

from __future__ import annotations

from msgspec.structs import replace

from shared.contracts.report import Report
from shared.contracts.tasks import Task

# Names of the other slices are words of texts.
_NAMELESS = ("label", "length")


def as_shown(report: Report, task: Task) -> Report:
    """Without any text where the task's previews are off by now, or where it has a redactor that
    the report's texts have not seen."""
    if not report.previews:
        return report
    if not task.previews:
        return _without_texts(report, "Texts are not shown: the task's previews are off.")
    if task.redact is not None and not report.redacted:
        return _without_texts(
            report, "Texts are not shown: they were kept before the task had a redactor."
        )
    return report


def _without_texts(report: Report, why: str) -> Report:
    return replace(
        report,
        previews=False,
        notes=(*report.notes, why),
        slices=replace(
            report.slices, found=tuple(s for s in report.slices.found if s.kind in _NAMELESS)
        ),
        deferrals=replace(
            report.deferrals,
            reasons=tuple(replace(one, examples=()) for one in report.deferrals.reasons),
        ),
        pairs=tuple(replace(pair, handled=(), deferred=()) for pair in report.pairs),
        confusions=tuple(replace(one, a_as_b=(), b_as_a=()) for one in report.confusions),
    )
