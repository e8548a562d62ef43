"""What happened to a task: announcements, and what the registry knows beyond them."""

from __future__ import annotations

from collections.abc import Sequence

from services.console.views import EntryView
from services.console.words import word_of_kind
from shared.contracts.events import ModelAnnouncement
from shared.registry.base import HistoryEntry


def merged(
    announcements: Sequence[ModelAnnouncement], history: Sequence[HistoryEntry]
) -> tuple[EntryView, ...]:
    """Newest first. Announcements say more (who, figures, refusals); a change that was not
    announced, known by its epoch, is taken from the registry's history."""
    announced = {a.epoch for a in announcements if a.epoch is not None}
    entries = [_announced(announcement) for announcement in announcements]
    entries += [_recorded(entry) for entry in history if entry.epoch not in announced]
    return tuple(sorted(entries, key=lambda entry: (entry.at, entry.epoch or 0), reverse=True))


def _announced(a: ModelAnnouncement) -> EntryView:
    word = word_of_kind(a.kind)
    return EntryView(
        at=a.announced_at,
        kind=a.kind.value,
        title=word.title,
        tone=word.tone,
        reason=a.reason,
        alpha=a.alpha,
        version=a.version,
        previous=a.previous_version,
        actor=a.actor,
        epoch=a.epoch,
        window=a.window,
        n_traces=a.n_traces,
        coverage=a.certificate.coverage if a.certificate else None,
        agreement_lower=a.certificate.agreement_lower if a.certificate else None,
        figures=a.figures,
        announced=True,
    )


def _recorded(entry: HistoryEntry) -> EntryView:
    word = word_of_kind(entry.kind)
    return EntryView(
        at=entry.at,
        kind=entry.kind.value,
        title=word.title,
        tone=word.tone,
        reason=entry.reason,
        alpha=entry.alpha,
        version=entry.version,
        previous=entry.previous,
        actor=entry.actor,
        epoch=entry.epoch,
        window=None,
        n_traces=None,
        coverage=None,
        agreement_lower=None,
        figures={},
        announced=False,
    )
