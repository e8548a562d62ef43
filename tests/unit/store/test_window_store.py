"""Windows as files: what is written reads back, also what older versions of this wrote."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from doubles import arrow_memory

from shared.contracts.events import MAX_TEXT_CHARS, Opinion, Trace
from shared.store.parquet import ROWS_AT_ONCE, SCHEMA, WindowStore

DAY = date(2026, 3, 1)
OPINIONS = [Opinion(version="v1", label="refund", handled=True)]
NEW_COLUMNS = ["prompt", "drawn", "audit_share", "opinions"]


@pytest.fixture
def store(tmp_path: Path) -> WindowStore:
    return WindowStore(str(tmp_path))


def trace(number: int) -> Trace:
    return Trace(
        id=f"t{number}",
        task="support",
        input="money back",
        teacher="refund",
        occurred_at=datetime(2026, 3, 1, number, tzinfo=UTC),
        opinions=OPINIONS,
        drawn=True,
        audit_share=0.02,
        prompt="0f1e",
    )


def as_written_before(folder: Path) -> None:
    """Take the columns away that parts did not have at first."""
    for part in folder.rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(part).read().drop_columns(NEW_COLUMNS), part)


def test_opinions_and_audit_fields_read_back(store: WindowStore) -> None:
    store.write("support", DAY, [trace(1)])
    (row,) = store.read("support", [DAY]).to_pylist()
    assert msgspec.json.decode(row["opinions"], type=list[Opinion]) == OPINIONS
    assert (row["drawn"], row["audit_share"], row["prompt"]) == (True, 0.02, "0f1e")


def test_a_trace_nobody_had_an_opinion_of_has_an_empty_list(store: WindowStore) -> None:
    store.write("support", DAY, [msgspec.structs.replace(trace(1), opinions=[])])
    assert store.read("support", [DAY]).column("opinions").to_pylist() == ["[]"]


def test_parts_without_the_newer_columns_read_beside_those_with_them(
    store: WindowStore, tmp_path: Path
) -> None:
    store.write("support", DAY, [trace(1)])
    as_written_before(tmp_path)
    assert store.write("support", DAY, [trace(1), trace(2)]) == 1
    table = store.read("support", [DAY])
    assert table.schema.equals(SCHEMA)
    rows = {row["id"]: row for row in table.to_pylist()}
    assert [rows["t1"][name] for name in NEW_COLUMNS] == [None, False, 0.0, "[]"]
    assert rows["t1"]["input"] == rows["t2"]["input"] == ["money back"]
    assert rows["t2"]["prompt"] == "0f1e"


def test_a_day_of_very_much_text_can_be_read(store: WindowStore) -> None:
    """A day is one part, and Arrow reads no more than 2 GiB of such texts at a time: it is read in
    pieces that never have as much, and no more than one is held."""
    assert ROWS_AT_ONCE * 2 * MAX_TEXT_CHARS * len("\U0001f600".encode()) < 2**31
    long = "x" * 2_000
    many = 8 * 4_096
    store.write(
        "support", DAY, (msgspec.structs.replace(trace(1), id=f"t{i}", input=long)
                         for i in range(many)),
    )  # fmt: skip
    with arrow_memory() as pool:
        rows = sum(len(some) for some in store.scan("support", DAY, ["id", "input"]))
    assert rows == many
    assert (pool.max_memory() or 0) < len(long) * many / 2
