"""What a fit costs, measured in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.ctl.main import app
from services.ctl.scale import DAYS, TASK, ScaleFailed, measure, write_traces
from shared.store.parquet import WindowStore


def test_traces_are_spread_over_the_days_and_different(tmp_path: Path) -> None:
    write_traces(tmp_path, 3_000)
    store = WindowStore(str(tmp_path))
    days = store.days(TASK)
    assert len(days) == DAYS
    table = store.read(TASK, days)
    assert len(table) == 3_000
    texts = [texts[0] for texts in table["input"].to_pylist()]
    assert len(set(texts)) > 0.9 * len(texts)


def test_a_fit_that_fails_says_why(tmp_path: Path) -> None:
    write_traces(tmp_path / "store", 100)
    with pytest.raises(ScaleFailed, match=r"exit code 1: .*encoder.json"):
        measure(tmp_path / "store", tmp_path / "no-encoder", 1_000, 0.9)


def test_sizes_must_be_numbers() -> None:
    said = CliRunner().invoke(app, ["bench", "scale", "--rows", "many"])
    assert said.exit_code == 2
    assert "whole numbers" in said.output
