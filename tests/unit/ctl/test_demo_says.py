"""What the demo says at its end, and what it calls its task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.ctl.demo.command import _task, _tell
from services.ctl.demo.plan import make_plan
from services.ctl.files import Row
from shared.contracts.tasks import Task


def told(capsys: pytest.CaptureFixture[str], **changes: object) -> str:
    verdict = changes.pop("verdict", "published")
    summary = {
        "days": [{"verdict": verdict, "reason": "too few"}], "agreement": 0.981, "alpha": 0.975,
        "requests": 100, "coverage": 0.5, "calls_saved": 40, "dollars_saved": 0.1,
        "dollars_saved_per_million_requests": 7.0, "decided_once": 100,
        "decided_more_than_once": 0, "undecided": 0,
    } | changes  # fmt: skip
    _tell(summary, Path("summary.json"))
    return " ".join(capsys.readouterr().out.split())


def test_a_last_day_on_which_nothing_was_handled(capsys: pytest.CaptureFixture[str]) -> None:
    """It ended in a traceback after all five days."""
    said = told(capsys, agreement=None, coverage=0.0)
    assert "On the last day the surrogate answered none of the live requests" in said
    assert "40 of 100 LLM calls were saved" in said


def test_a_refusal_after_days_that_saved_does_not_deny_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = told(capsys, verdict="retired", agreement=None, coverage=0.0)
    assert "40 of 100 LLM calls were saved" in said
    assert "All 100 live requests went to the LLM" not in said
    said = told(capsys, verdict="refused", agreement=None, coverage=0.0, calls_saved=0)
    assert "All 100 live requests went to the LLM" in said


def test_what_was_asked_for_is_not_rounded(capsys: pytest.CaptureFixture[str]) -> None:
    assert "(asked for: 97.5%)" in told(capsys)


@pytest.mark.parametrize("name", ["données.jsonl", "日本.jsonl", "-.jsonl", "My Traces (1).jsonl"])
def test_a_file_of_any_name_makes_a_task(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", Task(name=_task(Path(name))).name)


def test_a_request_is_sent_once_however_often_its_row_is_there() -> None:
    rows = [Row(str(n), (f"text {n}",), "a", None, {}) for n in range(3_000)]
    plan = make_plan([*rows, *rows[:500]], task="support", days=5)
    ids = [one.id for one in plan.live]
    assert len(set(ids)) == len(ids)
