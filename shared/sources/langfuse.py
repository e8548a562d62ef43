"""Langfuse's observations: of its API (camelCase) and of its exports (snake_case).

Only those of type GENERATION are calls of a model. An API page (`{"data": [...]}`) is taken as its
observations.
"""

from __future__ import annotations

from typing import Any

from shared.sources.base import Call, Fragment, Item, NoAnswer, Skipped
from shared.sources.chat import answer_of, fault_of, messages_of, view_of
from shared.sources.documents import (
    cost_of,
    each_object,
    first,
    mapping_of,
    moment_of,
    parse_inner,
    text_of,
    tokens_of,
    unpaged,
)


def langfuse(value: bytes, origin: str) -> list[Item]:
    return each_object(unpaged(value), origin, _call)


def _call(row: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    kind = text_of(row.get("type")) or ""
    if kind.upper() != "GENERATION":
        return Skipped(f"an observation of type {kind or 'unknown'}")
    record = {**row, **{name: parse_inner(row.get(name)) for name in ("input", "output")}}
    asked = messages_of(record["input"])
    usage = mapping_of(first(row, "usageDetails", "usage_details", "usage"))
    costs = mapping_of(first(row, "costDetails", "cost_details"))
    trace = text_of(first(row, "traceId", "trace_id"))
    return Call(
        id=text_of(row.get("id")) or origin,
        view=view_of(
            asked,
            answer_of(record["output"]),
            model=text_of(first(row, "model", "providedModelName", "provided_model_name")),
            attributes=mapping_of(row.get("metadata")),
            record=record,
        ),
        fragment=fragment,
        occurred_at=moment_of(first(row, "startTime", "start_time")),
        tokens=tokens_of(
            first(usage, "input", "promptTokens"), first(usage, "output", "completionTokens")
        ),
        cost=cost_of(
            first(row, "totalCost", "total_cost", "calculatedTotalCost") or costs.get("total")
        ),
        fault=_failure(row) or fault_of(asked),
        metadata={"trace_id": trace} if trace else {},
    )


def _failure(row: dict[str, Any]) -> NoAnswer | None:
    if text_of(row.get("level")) != "ERROR":
        return None
    why = text_of(first(row, "statusMessage", "status_message")) or "level ERROR"
    return NoAnswer(f"the call failed: {why[:200]}", field="level")
