"""Plain rows: JSON lines and CSV with a text and the answer to it."""

from __future__ import annotations

from typing import Any

from shared.sources.base import Call, Fragment, Item
from shared.sources.documents import (
    cost_of,
    each_object,
    first,
    mapping_of,
    moment_of,
    text_of,
    tokens_of,
)


def rows(value: bytes, origin: str) -> list[Item]:
    """A row, or an array of rows. Every field is also at `$.record`, for other names than these:
    `input` (or `premise` and `hypothesis`) and `teacher` (or `label`)."""
    return each_object(value, origin, _call)


def _call(row: dict[str, Any], origin: str, fragment: Fragment) -> Call:
    text = row.get("input")
    if text is None and "premise" in row and "hypothesis" in row:
        text = [row["premise"], row["hypothesis"]]
    answer = text_of(first(row, "teacher", "label"))
    model = text_of(first(row, "model", "teacher_model"))
    view = {
        "attributes": mapping_of(row.get("metadata")),
        "record": row,
        **({"input": text} if text is not None else {}),
        **({"output": answer} if answer is not None else {}),
        **({"model": model} if model else {}),
    }
    if row.get("teacher") is not None and isinstance(row.get("label"), str):
        view["label"] = row["label"]
    tokens = mapping_of(row.get("tokens"))
    return Call(
        id=text_of(row.get("id")) or origin,
        view=view,
        fragment=fragment,
        occurred_at=moment_of(row.get("occurred_at")),
        tokens=tokens_of(tokens.get("input"), tokens.get("output")),
        cost=cost_of(row.get("cost")),
        metadata=mapping_of(row.get("metadata")),
    )
