"""What the demo plays, and where it says it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from services.ctl.demo.cluster import write_environment
from services.ctl.demo.plan import RECORDED, make_plan, raw_trace, teacher_model
from services.ctl.files import InvalidFile, Row
from services.ctl.sample.generator import MODEL, generate


def row(n: int, **raw: object) -> Row:
    return Row(str(n), (f"text {n}",), "a", None, dict(raw))


def test_the_live_teacher_goes_by_the_name_its_recording_has() -> None:
    """Or every version of the demo is tripped: its certificate is of another teacher."""
    sample = [
        Row(str(given["id"]), (given["input"],), given["teacher"], None, given)
        for given in generate(2_000)
    ]
    assert teacher_model(sample) == MODEL
    plan = make_plan(sample, task="support", days=5)
    logged = {
        raw_trace(plan.task, one, day.day, 0.5)["model"] for day in plan.days for one in day.traces
    }
    assert logged == {teacher_model(sample)}


def test_rows_that_share_an_id_are_told_as_that() -> None:
    with pytest.raises(InvalidFile, match="3000 rows of 1 different `id`s"):
        make_plan([row(1)] * 3_000, task="support", days=5)
    with pytest.raises(InvalidFile, match=r"^2 rows are too few for 5 days"):
        make_plan([row(1), row(2)], task="support", days=5)


def test_of_several_models_it_is_the_one_of_most_rows() -> None:
    assert teacher_model([row(1, model="b"), row(2, model="a"), row(3, model="a")]) == "a"
    assert teacher_model([row(1), row(2, model="a"), row(3)]) == "a"


def test_where_no_row_names_one_it_has_a_name_of_its_own() -> None:
    assert teacher_model([row(1), row(2, model=None)]) == RECORDED


def test_a_shell_can_read_where_the_demo_is(tmp_path: Path) -> None:
    value = "it's; echo $HOME `id`"
    write_environment(tmp_path / "env", {"TRACER_A": value, "TRACER_B": "2"})
    told = subprocess.run(
        ["/bin/sh", "-c", '. "$0"; printf "%s|%s" "$TRACER_A" "$TRACER_B"', tmp_path / "env"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == f"{value}|2"
    assert (tmp_path / "env").stat().st_mode & 0o077 == 0
