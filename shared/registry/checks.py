"""What every registry checks of its arguments, whatever it stores things in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import get_args

from shared.contracts.report import MAX_REPORT_BYTES, InvalidReport, Report, decode_report
from shared.registry.base import MAX_AUDITS_PER_CALL, CorruptReport, Mode, ReportTooLarge

_TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def checked_task(task: str) -> str:
    """`task`, fit to be part of a key or a file name. Raises ValueError when it is not."""
    if _TASK_NAME.fullmatch(task) is None:
        raise ValueError(f"not a task name: {task!r}")
    return task


def check_trial(mode: Mode, share: float) -> None:
    """Raises ValueError for another mode or a share outside 0 to 1."""
    if mode not in get_args(Mode):
        raise ValueError(f"not a mode of a trial: {mode!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"a trial's share is 0 to 1, not {share}")


def check_alpha(alpha: float | None) -> float | None:
    """`alpha`, to six decimals. Raises ValueError outside (0, 1)."""
    if alpha is None:
        return None
    rounded = round(float(alpha), 6)
    if not 0 < rounded < 1:
        raise ValueError(f"alpha lies between 0 and 1, not at {alpha}")
    return rounded


def check_audits(partition: int, audits: Sequence[tuple[int, bool]]) -> None:
    """Raises ValueError for too many, or offsets that are negative or do not grow."""
    if len(audits) > MAX_AUDITS_PER_CALL:
        raise ValueError(f"{len(audits):,} audits in one call; at most {MAX_AUDITS_PER_CALL:,}")
    offsets = [offset for offset, _ in audits]
    if partition < 0 or (offsets and offsets[0] < 0):
        raise ValueError("partitions and offsets are 0 or more")
    if any(later <= earlier for earlier, later in pairwise(offsets)):
        raise ValueError("audits of a partition come in the order of their offsets")


def check_start(start: int) -> None:
    """Raises ValueError for a negative position, which Redis would count from the end."""
    if start < 0:
        raise ValueError(f"positions are 0 or more, not {start}")


def report_bytes(report: Report) -> bytes:
    """Raises ReportTooLarge."""
    data = report.encode()
    if len(data) > MAX_REPORT_BYTES:
        raise ReportTooLarge(
            f"report {report.key} of {len(data):,} bytes exceeds the limit of {MAX_REPORT_BYTES:,}"
        )
    return data


def report_of(data: bytes, task: str, key: str) -> Report:
    """The stored report, if it is the one of this task and key. Raises CorruptReport."""
    try:
        report = decode_report(data)
    except InvalidReport as error:
        raise CorruptReport(f"report {key} of {task} cannot be read: {error}") from error
    if (report.task, report.key) != (task, key):
        raise CorruptReport(f"report {key} of {task} is {report.key} of {report.task}")
    return report
