"""What the demo plays."""

from __future__ import annotations

from services.ctl.demo.plan import RECORDED, make_plan, raw_trace, teacher_model
from services.ctl.files import Row
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


def test_of_several_models_it_is_the_one_of_most_rows() -> None:
    assert teacher_model([row(1, model="b"), row(2, model="a"), row(3, model="a")]) == "a"
    assert teacher_model([row(1), row(2, model="a"), row(3)]) == "a"


def test_where_no_row_names_one_it_has_a_name_of_its_own() -> None:
    assert teacher_model([row(1), row(2, model=None)]) == RECORDED
