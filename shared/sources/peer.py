"""What `tracer-llm` writes (read in its version 0.3.3): trace files and watched spans.

A trace file's row is `{"input", "teacher"}`, or one of the names its loader takes for them.
`tracer.watch` writes spans as JSON lines (`LocalFileSink`), posts them (`OTLPSink`, plain JSON in
spite of its name) and sends `{"events": [...]}` (`TracerCloudSink`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shared.sources.base import Call, Fragment, Item, NoAnswer, Skipped
from shared.sources.chat import Said, view_of
from shared.sources.documents import (
    cost_of,
    each_object,
    first,
    mapping_of,
    moment_of,
    text_of,
    tokens_of,
    unpaged,
)
from shared.sources.genai import from_attributes

_INPUT = ("input", "query", "text", "prompt", "question")
_LABEL = ("teacher", "teacher_output", "label", "intent", "output", "answer")


def peer(value: bytes, origin: str) -> list[Item]:
    return each_object(unpaged(value, "events"), origin, _call)


def _call(row: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    if "input_text" in row:
        return _watched(row, origin, fragment)
    if isinstance(row.get("attributes"), dict) and "span_id" in row:
        return _posted(row, origin, fragment)
    return _row(row, origin, fragment)


def _row(row: dict[str, Any], origin: str, fragment: Fragment) -> Call:
    text, answer = text_of(first(row, *_INPUT)), text_of(first(row, *_LABEL))
    metadata = mapping_of(row.get("metadata"))
    truth = text_of(row.get("ground_truth"))
    view: dict[str, Any] = {"attributes": metadata, "record": row}
    view |= {"input": text} if text is not None else {}
    view |= {"output": answer} if answer is not None else {}
    view |= {"label": truth} if truth is not None else {}
    model = text_of(first(row, "model") or first(metadata, "response_model", "request_model"))
    return Call(
        id=_row_id(row, metadata) or origin,
        view=view | ({"model": model} if model else {}),
        fragment=fragment,
        occurred_at=moment_of(first(row, "ts") or metadata.get("ts")),
        tokens=tokens_of(
            first(row, "prompt_tokens") or metadata.get("input_tokens"),
            first(row, "completion_tokens") or metadata.get("output_tokens"),
        ),
        cost=cost_of(first(row, "cost_usd") or metadata.get("cost_usd")),
        fault=_failure(row),
        metadata=metadata,
    )


def _row_id(row: dict[str, Any], metadata: dict[str, Any]) -> str | None:
    """What was watched and saved as a trace file has the id of its whole tree of calls; with the
    span's it is that of the watched span."""
    ids = [text_of(first(row, "id", "trace_id")), text_of(metadata.get("span_id"))]
    return "-".join(each for each in ids if each) if ids[0] else None


def _watched(span: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    attributes = mapping_of(span.get("attributes"))
    answer = Said("assistant", text_of(span.get("output_text")) or "")
    asked = [Said("user", text_of(span.get("input_text")) or "")]
    model = text_of(first(span, "response_model", "request_model"))
    view = view_of(asked, answer, model=model, attributes=attributes, record=span)
    truth = text_of(attributes.get("ground_truth"))
    return Call(
        id=_span_id(span, origin),
        view=view | ({"label": truth} if truth is not None else {}),
        fragment=fragment,
        occurred_at=moment_of(span.get("start_time")),
        tokens=tokens_of(span.get("input_tokens"), span.get("output_tokens")),
        cost=cost_of(span.get("cost_usd")),
        fault=_failure(span),
        metadata=_ids(span),
    )


def _posted(span: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    call = from_attributes(
        span["attributes"],
        record=span,
        identity=_span_id(span, origin),
        fragment=fragment,
        occurred_at=moment_of(span.get("start_time")),
        fault=_failure(span),
        metadata=_ids(span),
    )
    truth = text_of(span["attributes"].get("ground_truth"))
    if isinstance(call, Skipped) or truth is None:
        return call
    return replace(call, view=call.view | {"label": truth})


def _span_id(span: dict[str, Any], origin: str) -> str:
    ids = [text_of(span.get(name)) for name in ("trace_id", "span_id")]
    return "-".join(each for each in ids if each) or origin


def _ids(span: dict[str, Any]) -> dict[str, Any]:
    return {name: span[name] for name in ("trace_id", "span_id") if span.get(name)}


def _failure(span: dict[str, Any]) -> NoAnswer | None:
    if text_of(span.get("status")) in (None, "ok", ""):
        return None
    why = text_of(span.get("error")) or f"status {span.get('status')!r}"
    return NoAnswer(f"the call failed: {why[:200]}", field="status")
