"""What stands against putting a verdict into effect: a trip from after the evidence it was made of,
and a pointer that moved while it was made."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

from services.trainer.case import Case
from shared.contracts.events import AnnouncementKind
from shared.contracts.tasks import Task
from shared.registry.base import Active, HistoryEntry, Registry, State
from shared.registry.scripts import MAX_HISTORY

# What puts another version, or none, in the active one's place.
_REPLACING = (
    AnnouncementKind.PUBLISHED,
    AnnouncementKind.PROMOTED,
    AnnouncementKind.ROLLED_BACK,
    AnnouncementKind.RETIRED,
)


def last_trip(registry: Registry, task: str) -> HistoryEntry | None:
    """None where a fit's version took the tripped one's place: it had seen what came since."""
    after = None
    for entry in registry.history(task, MAX_HISTORY):
        if entry.kind is AnnouncementKind.TRIPPED:
            return None if after is AnnouncementKind.PUBLISHED else entry
        if entry.kind in _REPLACING:
            after = entry.kind
    return None


def days_since(trip: HistoryEntry, task: Task, day: date) -> int:
    """From the trip's day, in the zone whose days the windows are."""
    return (day - trip.at.astimezone(ZoneInfo(task.timezone)).date()).days


def unseen_trip(case: Case, trip: HistoryEntry | None, now: Active) -> str:
    """What is said where a version tripped and the evidence is from before that: routers that
    are late, a window that ended before, a trip during the fit. "" otherwise."""
    version = trip.version if trip else now.version if now.state is State.TRIPPED else None
    if version is None or version in case.found.tripped:
        return ""
    if trip is not None and days_since(trip, case.task, case.day) >= case.task.horizon_days:
        return ""  # logged calls alone, say: they do not tell of trips, but all came after it
    when = "" if trip is None else f" at {trip.at.isoformat(timespec='seconds')}"
    return (
        f"{version} was tripped{when} and the evidence is from before: "
        "waits for what came since the trip"
    )


def overtaken(case: Case, now: Active) -> str:
    """What is said where the pointer is no longer the one judged, so that the verdict would undo
    what an operator or a rule did during the fit; "" otherwise. The next window counts again."""
    was = case.active
    if now.version != was.version:
        return (
            f"{now.version or 'no version'} became active in place of "
            f"{was.version or 'none'} during the fit, and stays until the next window"
        )
    if now.state is State.PAUSED and was.state is not State.PAUSED:
        return f"{now.version} was paused during the fit, and stays so until the next window"
    return ""
