"""What the demo plays: five days of logged traces and the live requests that follow each."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from services.ctl.files import FIT_SPLITS, TEST_SPLIT, InvalidFile, Row

FIRST_DAY = date(2026, 1, 5)
# Of each next day, this many traces come before the day's verdict: they move the watermark.
HEAD = 60
RECORDED = "recorded"  # the teacher's model where no row names one
LIVE_SHARE = 0.2  # of the rows, where the file has no test split
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Day:
    """One window's traces and the live requests sent once its verdict is in."""

    day: date
    traces: Sequence[Row]
    live: Sequence[Row]


@dataclass(frozen=True)
class Plan:
    """`before`: live requests sent when nothing is certified yet. `head`: the first traces of the
    day after the last, which close its window."""

    task: str
    labels: tuple[str, ...]
    before: Sequence[Row]
    days: Sequence[Day]
    head: Sequence[Row]

    @property
    def live(self) -> list[Row]:
        return [*self.before, *(row for day in self.days for row in day.live)]


def make_plan(
    rows: Sequence[Row], *, task: str, days: int, last_day_share: float | None = None
) -> Plan:
    """Deal a file out: rows to fit on become `days` daily windows, test rows live requests.

    Where the file has no `split: test` a fifth of its rows, chosen by a hash of their id, are the
    live ones. Live requests are dealt evenly, or the last day gets `last_day_share` of them.
    Raises InvalidFile when there are too few rows.
    """
    given = [row for row in rows if row.split in FIT_SPLITS | {TEST_SPLIT}]
    # As ingest drops repeats; a request sent twice would seem to be decided twice.
    usable = list({row.id: row for row in reversed(given)}.values())[::-1]
    live = [row for row in usable if row.split == TEST_SPLIT]
    if not live:
        live = [row for row in usable if _hash(row.id) % 1000 < LIVE_SHARE * 1000]
    chosen = {row.id for row in live}
    logged = sorted((r for r in usable if r.id not in chosen), key=lambda r: _hash(r.id))
    live.sort(key=lambda r: _hash(r.id))
    if len(logged) < (days + 1) * HEAD or len(live) < days + 1:
        ids = len(usable)
        of = "" if ids == len(given) else f" of {ids} different `id`s (leave the field out?)"
        raise InvalidFile(f"{len(given)} rows{of} are too few for {days} days of traffic")
    head, logged = logged[:HEAD], logged[HEAD:]
    before, *lives = _deal_live(live, days, last_day_share)
    windows = [logged[i * len(logged) // days : (i + 1) * len(logged) // days] for i in range(days)]
    return Plan(
        task=task,
        labels=tuple(sorted({row.teacher for row in usable})),
        before=before,
        days=[
            Day(FIRST_DAY + timedelta(days=i), window, lives[i]) for i, window in enumerate(windows)
        ],
        head=head,
    )


def teacher_model(rows: Sequence[Row]) -> str:
    """The model that gave most of the answers. The live teacher answers from the same recording and
    goes by that name: under another one it would be another teacher, and void every certificate."""
    named = Counter(str(row.raw["model"]) for row in rows if row.raw.get("model"))
    return named.most_common(1)[0][0] if named else RECORDED


def raw_trace(task: str, row: Row, day: date, position: float) -> dict[str, Any]:
    """The row as a raw trace of `day`; `position` in [0, 1) is the time of day."""
    trace: dict[str, Any] = {
        "id": row.id,
        "task": task,
        "input": _input(row),
        "teacher": row.teacher,
        "occurred_at": moment(day, position).isoformat(),
    }
    for field in ("model", "tokens", "cost"):
        if row.raw.get(field) is not None:
            trace[field] = row.raw[field]
    return trace


def request(task: str, row: Row, at: datetime) -> dict[str, Any]:
    """The row as a live request."""
    return {
        "id": f"live-{row.id}",
        "task": task,
        "input": _input(row),
        "occurred_at": at.isoformat(),
    }


def moment(day: date, position: float) -> datetime:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start + timedelta(seconds=position * DAY_SECONDS)


def _deal_live(live: Sequence[Row], days: int, last_share: float | None) -> list[Sequence[Row]]:
    """days + 1 parts: before the first verdict, then after each."""
    shares = [1.0 / (days + 1)] * (days + 1)
    if last_share is not None:
        shares = [(1.0 - last_share) / days] * days + [last_share]
    parts, start, total = [], 0, 0.0
    for share in shares:
        total += share
        end = round(total * len(live))
        parts.append(live[start:end])
        start = end
    return parts


def _input(row: Row) -> str | list[str]:
    return row.texts[0] if len(row.texts) == 1 else list(row.texts)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
