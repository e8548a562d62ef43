"""The rehearsed days: regimes differ in what is labelled, worlds in what changes and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from doubles import HashEncoder
from typer.testing import CliRunner

from services.ctl import bench_loop_commands
from services.ctl.files import InvalidFile, Row
from services.ctl.main import app
from services.ctl.rehearsal.drift import WINDOW, changed_mind, new_labels, per_day, run_world
from services.ctl.rehearsal.flywheel import ALL_LABELS, DEFERRED_ONLY, Regime, run_regime
from services.ctl.rehearsal.remembering import RememberingEncoder
from services.ctl.rehearsal.traffic import read_traffic, split_test
from services.ctl.sample.generator import generate
from shared.contracts.tasks import Task

LABELS = ("billing", "account", "delivery", "refund", "invoice", "password", "courier")


def rows(n: int) -> list[Row]:
    """The label is in the text, but for each fifth."""
    return [
        Row(f"r{i}", (f"about my {LABELS[i % len(LABELS)] if i % 5 else 'thing'} number {i}",),
            LABELS[i % len(LABELS)], None, {})
        for i in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def encoder() -> RememberingEncoder:
    return RememberingEncoder(HashEncoder())


def test_regimes_differ_in_what_the_teacher_labels(encoder: RememberingEncoder) -> None:
    task = Task(name="bench", alpha=0.95)
    told: list[int] = []
    every = run_regime(
        rows(750), encoder, ALL_LABELS, task, days=2, seed=0, done=lambda d: told.append(d.day)
    )
    assert told == [1, 2]
    assert [day.labelled for day in every] == [300, 600]
    assert every[-1].coverage > 0.5
    assert (every[-1].agreement or 0) > 0.9
    assert not every[-1].claim_refuted
    blind = run_regime(rows(750), encoder, DEFERRED_ONLY, task, days=2, seed=0)
    assert blind[0].labelled == 300
    assert blind[1].labelled < 600
    assert blind[1].n_evidence == 300  # what was deferred for its text says nothing of the rest


def test_audits_are_evidence(encoder: RememberingEncoder) -> None:
    regime = Regime.audits(0.5)
    assert regime.name == "deferred + 50% audits"
    task = Task(name="bench", alpha=0.95)
    days = run_regime(rows(750), encoder, regime, task, days=2, seed=0)
    assert 300 < days[1].n_evidence == days[1].labelled < 600


def test_a_files_own_test_rows_judge_else_a_fifth() -> None:
    drawn = split_test(rows(100), 0)
    assert [len(part) for part in drawn] == [80, 20]
    assert not {r.id for r in drawn[0]} & {r.id for r in drawn[1]}
    own = [Row("a", ("x",), "l", "test", {}), Row("b", ("y",), "l", "train", {})]
    assert split_test(own, 0) == ([own[1]], [own[0]])


def test_ids_must_tell_rows_apart(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": "a", "input": "x", "teacher": "l"}\n' * 2)
    with pytest.raises(InvalidFile, match="`id` repeats itself"):
        read_traffic(file)


def test_a_changed_mind_changes_answers_after_the_shift_only() -> None:
    everything = rows(4200)
    world = changed_mind(2)(everything, 0)
    differs = [i for i, row in enumerate(world.requests) if world.truth[i] != row.teacher]
    assert min(differs) >= world.shift == 2450
    assert len({world.requests[i].teacher for i in differs}) == 2


def test_new_labels_come_after_the_shift_only() -> None:
    world = new_labels(2)(rows(5600), 0)
    before = {row.teacher for row in world.requests[: world.shift]}
    after = {row.teacher for row in world.requests[world.shift :]}
    assert len(before) == len(LABELS) - 2
    assert after == set(LABELS)


def test_too_few_rows_for_a_drift() -> None:
    assert per_day(rows(6 * WINDOW)) == WINDOW
    with pytest.raises(ValueError, match="100 rows are too few: needs 3996"):
        per_day(rows(100))


@pytest.mark.slow
def test_users_see_a_change_of_mind(encoder: RememberingEncoder) -> None:
    task = Task(name="bench", alpha=0.9, audit_share=0.2)
    world = changed_mind(3)(rows(4200), 0)
    days: list[None] = []
    found = run_world(world, encoder, task, 0, lambda: days.append(None))
    assert len(days) == 6
    assert found.wrong_before < found.worst_window
    # One batch of audits may be evidence enough to trip it without a probation.
    assert found.to_trip is not None
    assert (found.false_probations, found.false_trips) == (0, 0)
    assert found.coverage[0] == 0.0


def test_flywheel_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_loop_commands, "_encoder", lambda *_: HashEncoder())
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in generate(300, seed=1)))
    said = CliRunner().invoke(
        app, ["bench", "flywheel", "--data", str(file), "--days", "1", "--alpha", "0.7", "--json"]
    )
    assert said.exit_code == 0, said.output
    result = json.loads(said.stdout)
    assert {day["regime"] for day in result["days"]} == set(result["last_day"])
    assert result["last_day"]["all labels"]["points_behind_all_labels"] == 0.0


def test_commands_say_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"input": "x", "teacher": "a"}\n{"input": "y", "teacher": "a"}\n')
    for command, reason in (("flywheel", "too few"), ("drift", "the same in every row")):
        said = CliRunner().invoke(app, ["bench", command, "--data", str(file)])
        assert said.exit_code == 1
        assert reason in said.output.replace("\n", " ")
