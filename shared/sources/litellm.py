"""LiteLLM's StandardLoggingPayload, as its callbacks write it: one object, or an array of them."""

from __future__ import annotations

from typing import Any

from shared.sources.base import Call, Fragment, Item, NoAnswer, Skipped, Unusable
from shared.sources.chat import Said, fault_of, message_in, message_of, messages_of, view_of
from shared.sources.documents import (
    cost_of,
    each_object,
    first,
    mapping_of,
    moment_of,
    text_of,
    tokens_of,
)

_CHATS = ("completion", "acompletion", "text_completion", "atext_completion", "anthropic_messages")
_REDACTED = "redacted-by-litellm"


def litellm(value: bytes, origin: str) -> list[Item]:
    return each_object(value, origin, _call)


def _call(payload: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    kind = text_of(payload.get("call_type")) or "completion"
    if kind not in _CHATS:
        return Skipped(f"call_type {kind}")
    asked = messages_of(payload.get("messages"))
    response = payload.get("response")
    document = mapping_of(response)
    choices = document.get("choices")
    choice = mapping_of(choices[0]) if isinstance(choices, list) and choices else {}
    message = message_in(choice)
    answer = message_of(message, "assistant")
    if answer is None and isinstance(response, str):
        answer = message_of({"content": response}, "assistant")
    return Call(
        id=text_of(first(payload, "id", "litellm_call_id")) or origin,
        view=view_of(
            asked,
            answer,
            model=text_of(first(document, "model") or first(payload, "model", "model_group")),
            attributes=mapping_of(payload.get("metadata")),
            record=payload,
        ),
        fragment=fragment,
        occurred_at=moment_of(first(payload, "startTime", "start_time")),
        tokens=tokens_of(payload.get("prompt_tokens"), payload.get("completion_tokens")),
        cost=cost_of(payload.get("response_cost")),
        fault=_failure(payload)
        or fault_of(asked, choice.get("finish_reason"), message.get("refusal"))
        or _redaction(asked, answer),
        metadata={"trace_id": payload["trace_id"]} if payload.get("trace_id") else {},
    )


def _failure(payload: dict[str, Any]) -> NoAnswer | None:
    if payload.get("status") in (None, "success"):
        return None
    why = text_of(payload.get("error_str")) or f"status {payload.get('status')!r}"
    return NoAnswer(f"the call failed: {why[:200]}", field="status")


def _redaction(asked: list[Said] | None, answer: Said | None) -> Unusable | None:
    if any(each is not None and each.content == _REDACTED for each in (*(asked or ()), answer)):
        return Unusable(
            "LiteLLM redacted the messages: turn_off_message_logging must be off for this model",
            field="messages",
        )
    return None
