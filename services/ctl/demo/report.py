"""The last day's report, written where the demo's other results are."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from services.ctl.report_command import write_page
from shared.contracts.report import Report, unpublished_key
from shared.registry.base import RegistryError
from shared.registry.redis import connect

# The trainer makes it after it has announced the verdict.
WAIT_SECONDS, PAUSE_SECONDS = 90.0, 0.5


def write_last_report(redis_url: str, summary: dict[str, Any], folder: Path) -> Path | None:
    """None where the trainer has made none in time, its log says why, or the registry is away."""
    last = summary["days"][-1]
    registry = connect(redis_url)
    report: Report | None = None
    deadline = time.monotonic() + WAIT_SECONDS
    try:
        while report is None and time.monotonic() < deadline:
            for key in (last["version"], unpublished_key(last["day"])):
                report = report or (registry.report(summary["task"], key) if key else None)
            if report is None:
                time.sleep(PAUSE_SECONDS)
    except RegistryError:  # the demo's own figures are told all the same
        return None
    finally:
        registry.close()
    if report is None:
        return None
    path = folder / "report.html"
    write_page(report, path)
    return path
