"""Rows to rehearse with: from a file, or the project's own sample where none is named."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from services.ctl.files import TEST_SPLIT, InvalidFile, Row, read_rows
from services.ctl.sample.generator import generate
from shared.contracts.events import Input

FIRST = date(2026, 1, 1)
TEST_SHARE = 0.2  # of a file that has no test split
SAMPLE_ROWS = 12_000


def read_traffic(file: Path | None) -> list[Row]:
    """All rows in scope, each with an id of its own. Raises InvalidFile."""
    if file is None:
        return [
            Row(str(raw["id"]), (str(raw["input"]),), str(raw["teacher"]), None, raw)
            for raw in generate(SAMPLE_ROWS)
        ]
    rows = [row for row in read_rows(file) if not (row.split or "").startswith("oos")]
    if not rows:
        raise InvalidFile(f"{file}: no rows")
    if len({row.id for row in rows}) < len(rows):
        raise InvalidFile(f"{file}: field `id` repeats itself; leave it out or make it unique")
    return rows


def split_test(rows: Sequence[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Rows to live through, and rows to judge by: those of the split `test`, else a fifth drawn
    at random."""
    test = [row for row in rows if row.split == TEST_SPLIT]
    if test:
        return [row for row in rows if row.split != TEST_SPLIT], test
    order = np.random.default_rng([seed, 1]).permutation(len(rows))
    n_test = round(TEST_SHARE * len(rows))
    return [rows[i] for i in np.sort(order[n_test:])], [rows[i] for i in np.sort(order[:n_test])]


def input_of(row: Row) -> Input:
    """As an event carries it: a text, or two in a pair."""
    return row.texts[0] if len(row.texts) == 1 else list(row.texts)
