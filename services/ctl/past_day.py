"""A past day to replay and the traces before it: of the stored windows, or of a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa

from services.ctl.files import FIT_SPLITS, InvalidFile, Row, read_rows
from services.ctl.reproduce import Days
from shared.admitting import EARLIEST, admitted
from shared.bus.errors import InvalidMessage
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.fitting.horizon import Horizon
from shared.fitting.reading import horizon_days, read_horizon
from shared.store.parquet import WindowStore, table_of

# A file that does not say when its rows were logged: this share of them is the day.
DAY_SHARE = 0.2
UNDATED = datetime(EARLIEST, 1, 1, tzinfo=UTC)


class NoSuchDay(Exception):
    """There is nothing to replay; the message says what there is."""


@dataclass(frozen=True)
class Past:
    """before: what the trainer would have fitted on the evening before. replayed: columns as in
    `shared.store.parquet.SCHEMA`.

    day: None where it is a random part of a file. name: of the day, for people. left_out: rows of
    a file that were not used, by their split.
    """

    before: Horizon
    replayed: pa.Table
    day: date | None
    name: str
    days_before: int | None
    left_out: dict[str, int]


def stored_day(url: str, task: Task, day: date | None) -> Past:
    """A stored window, the newest if none is named, and those the trainer would have fitted on the
    evening before. Raises NoSuchDay and OSError."""
    if "://" not in url and not Path(url).is_dir():
        raise NoSuchDay(
            f"{url}: no such folder; name the trainer's store with --store or TRACER_STORE, "
            "or try a file with --data"
        )
    try:
        store = WindowStore(url)
    except ValueError as error:  # an address of no file system
        raise NoSuchDay(f"--store {url}: {error}") from error
    windows = store.view(task.name)
    stored = windows.days(task.name)
    if not stored:
        raise NoSuchDay(f"{url} has no windows of {task.name}; try a file with --data")
    day = _chosen(day, stored, url)
    evening = day - timedelta(days=1)
    before = horizon_days(windows, task, evening)
    if not before:
        raise NoSuchDay(f"{url} has no window in the {task.horizon_days} days before {day}")
    return Past(
        before=read_horizon(windows, task, evening),
        replayed=store.read(task.name, [day]),
        day=day,
        name=day.isoformat(),
        days_before=len(before),
        left_out={},
    )


def day_of_file(path: Path, task: Task, day: date | None, *, seed: int) -> Past:
    """A day of a JSON lines file where rows have their `occurred_at` and there are several days,
    else a random fifth of the rows. Rows of `split: test` and the like are left out, as in a
    replay. Raises InvalidFile and NoSuchDay."""
    rows = list(read_rows(path))
    used = [row for row in rows if row.split in FIT_SPLITS]
    left_out = dict(Counter(row.split or "" for row in rows if row.split not in FIT_SPLITS))
    if not used:
        raise InvalidFile(f"{path}: no rows to fit on (all are of other splits than train)")
    traces = [_trace(row, task, path) for row in used]
    zone = ZoneInfo(task.timezone)
    days = [trace.occurred_at.astimezone(zone).date() for trace in traces]
    undated = [row for row in used if not row.raw.get("occurred_at")]
    if undated and len(undated) < len(used):
        raise InvalidFile(
            f"{path}: row {undated[0].id} has no `occurred_at`, like {len(undated)} of {len(used)} "
            "rows; give it to all, or to none"
        )
    if not undated and len(set(days)) > 1:
        return _dated(path, task, traces, days, day, left_out)
    if day is not None:
        raise NoSuchDay(f"--day {day}: the rows of {path} do not say on which day they were logged")
    order = np.random.default_rng(seed).permutation(len(traces))
    n_day = round(DAY_SHARE * len(traces))
    before = table_of(traces[i] for i in sorted(order[n_day:].tolist()))
    return Past(
        before=read_horizon(Days({UNDATED.date(): before}), task, UNDATED.date()),
        replayed=table_of(traces[i] for i in sorted(order[:n_day].tolist())),
        day=None,
        name=f"a random fifth of {path.name}",
        days_before=None,
        left_out=left_out,
    )


def _dated(
    path: Path, task: Task, traces: Sequence[Trace], days: Sequence[date], day: date | None,
    left_out: dict[str, int],
) -> Past:  # fmt: skip
    by_day: dict[date, list[Trace]] = {}
    for trace, its_day in zip(traces, days, strict=True):
        by_day.setdefault(its_day, []).append(trace)
    present = Days({d: table_of(some) for d, some in by_day.items()})
    day = _chosen(day, present.days(task.name), str(path))
    evening = day - timedelta(days=1)
    before = horizon_days(present, task, evening)
    if not before:
        raise NoSuchDay(f"{path} has no rows of the {task.horizon_days} days before {day}")
    return Past(
        before=read_horizon(present, task, evening),
        replayed=present.tables[day],
        day=day,
        name=f"{day.isoformat()} of {path.name}",
        days_before=len(before),
        left_out=left_out,
    )


def _chosen(day: date | None, present: Sequence[date], where: str) -> date:
    """The day asked for, or the newest."""
    if day is None:
        return present[-1]
    if day not in present:
        raise NoSuchDay(
            f"--day {day}: {where} has none; it has {len(present)} days "
            f"from {present[0]} to {present[-1]}"
        )
    return day


def _trace(row: Row, task: Task, path: Path) -> Trace:
    """A logged call, redacted as the trainer does it: what else a row may say of how it came about
    is not looked at."""
    fields: dict[str, Any] = {
        "id": row.id,
        "task": task.name,
        "input": row.texts[0] if len(row.texts) == 1 else list(row.texts),
        "teacher": row.teacher,
        "occurred_at": row.raw.get("occurred_at") or UNDATED,
        "teacher_model": row.raw.get("teacher_model") or row.raw.get("model"),
        "tokens": row.raw.get("tokens"),
        "cost": row.raw.get("cost"),
    }
    try:
        return admitted(msgspec.convert(fields, Trace), task.redact)
    except (msgspec.ValidationError, InvalidMessage) as error:
        raise InvalidFile(f"{path}: row {row.id}: {error}") from error
