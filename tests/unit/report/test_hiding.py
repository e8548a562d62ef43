"""A stored report, shown as its task wants it now."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from shared.contracts.report import Report, decode_report
from shared.contracts.tasks import Task
from shared.contracts.topics import schemas_folder
from shared.reporting.hiding import as_shown
from shared.reporting.page import render


def typical(**changes: Any) -> Report:
    path = schemas_folder() / "reports" / "examples" / "typical.json"
    return msgspec.structs.replace(decode_report(path.read_bytes()), **changes)


def texts_of(report: Report) -> set[str]:
    examples = [one for reason in report.deferrals.reasons for one in reason.examples]
    examples += [one for pair in report.confusions for one in (*pair.a_as_b, *pair.b_as_a)]
    found = {text for one in examples for text in one.texts}
    for pair in report.pairs:
        found |= {"".join(piece.text for piece in side) for side in (pair.handled, pair.deferred)}
    return found


@pytest.mark.parametrize(
    ("task", "redacted", "said"),
    [
        (Task(name="support", previews=False), True, "previews are off"),
        (Task(name="support", previews=False, redact="builtin"), False, "previews are off"),
        (Task(name="support", redact="builtin"), False, "before the task had a redactor"),
    ],
)
def test_texts_go_and_figures_stay(task: Task, redacted: bool, said: str) -> None:
    before = typical(redacted=redacted)
    assert len(texts_of(before)) > 3
    shown = as_shown(before, task)
    assert not texts_of(shown) - {""}
    assert not shown.previews
    assert {one.kind for one in shown.slices.found} <= {"label", "length"}
    assert {one.kind for one in before.slices.found} - {"label", "length"}  # or it said nothing
    assert said in shown.notes[-1]
    page = render(shown)
    for text in texts_of(before):
        assert json.dumps(text)[1:-1] not in shown.encode().decode()
        assert text not in page
    for part in ("certificate", "frontier", "labels", "curves", "deltas", "money"):
        assert getattr(shown, part) == getattr(before, part)
    assert [one.n for one in shown.deferrals.reasons] == [one.n for one in before.deferrals.reasons]


def test_what_was_made_as_the_task_wants_it_stays_as_it_is() -> None:
    plain, redacted = typical(redacted=False), typical(redacted=True)
    assert as_shown(plain, Task(name="support")) is plain
    assert as_shown(redacted, Task(name="support", redact="builtin")) is redacted
    without = as_shown(plain, Task(name="support", previews=False))
    assert as_shown(without, Task(name="support", previews=False)) is without
