"""`tracerctl bench scale`: what a fit costs as the horizon grows, in a fresh process each.

Synthetic traces by the sample's grammar go through the real store, the reservoir, the encoder and
the fit that the trainer makes; only Kafka and Redis are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from services.ctl.sample.generator import generate
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.store.parquet import WindowStore

FIRST, DAYS = date(2026, 1, 1), 30
# The grammar is asked for so many at a time: it remembers what it wrote, to repeat itself.
PART = 5_000
TASK = "scale"


class ScaleFailed(RuntimeError):
    """A measurement came to nothing; the message says why."""


def task_of(max_rows: int, alpha: float) -> Task:
    return Task(name=TASK, alpha=alpha, max_rows=max_rows, horizon_days=DAYS)


def write_traces(folder: Path, n: int) -> None:
    """n traces over DAYS days, nearly all of them different, in a store at `folder`."""
    store = WindowStore(str(folder))
    for number in range(DAYS):
        day = FIRST + timedelta(days=number)
        some = n * (number + 1) // DAYS - n * number // DAYS
        store.write(TASK, day, _traces(day, some, seed=1_000 * number))


def measure(folder: Path, encoder: Path, max_rows: int, alpha: float) -> dict[str, Any]:
    """One fit on the store at `folder` in a process of its own. Raises ScaleFailed."""
    found = subprocess.run(
        [sys.executable, "-m", "services.ctl.scale_child", str(folder), str(encoder),
         str(max_rows), str(alpha)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no output"])[-1]
        raise ScaleFailed(f"the fit ended with exit code {found.returncode}: {last}")
    measured: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return measured


def _traces(day: date, n: int, seed: int) -> Iterator[Trace]:
    start = datetime.combine(day, time(), UTC)
    for part, begin in enumerate(range(0, n, PART)):
        some = min(PART, n - begin)
        for row in generate(some, seed=seed + part, days=1, start=start):
            yield Trace(
                id=f"{day}-{part}-{row['id']}",
                task=TASK,
                input=row["input"],
                teacher=row["teacher"],
                occurred_at=datetime.fromisoformat(row["occurred_at"]),
            )
