"""Logs of OpenAI's chat and text completions.

Four shapes: `{"request", "response"}` as a proxy or a wrapper logs them; a stored completion
(`object: chat.completion`, with `messages` or `input` beside its `choices`); a row of a fine-tuning
or distillation file (`messages` that end with the assistant's); and a batch's output row joined
with its input (`custom_id`, `request`, `response.body`). A page of the API (`object: list`) is
taken as what it lists.
"""

from __future__ import annotations

from typing import Any

from shared.sources.base import Call, Fragment, Item, NoAnswer, Skipped, Unusable
from shared.sources.chat import Said, fault_of, message_in, message_of, messages_of, view_of
from shared.sources.documents import (
    each_object,
    first,
    mapping_of,
    moment_of,
    text_of,
    tokens_of,
    unpaged,
)


def openai_chat(value: bytes, origin: str) -> list[Item]:
    """One log row, an array of them, or a page."""
    return each_object(unpaged(value), origin, _call)


def _call(row: dict[str, Any], origin: str, fragment: Fragment) -> Call | Skipped:
    request = mapping_of(first(row, "request", "request_body", "body"))
    response = mapping_of(first(row, "response", "response_body", "completion"))
    failed = _failure(row, response)
    if "body" in response:
        response = mapping_of(response["body"])
    if not response and "choices" in row:
        request, response = row, row
    if not request and not response and "messages" in row:
        return _conversation(row, origin, fragment)
    if "input" in request and "messages" not in request and not isinstance(request["input"], list):
        return Skipped("not a chat completion")
    asked = messages_of(first(request, "messages", "input", "prompt"))
    choice = _first_choice(response)
    message = message_in(choice)
    usage = mapping_of(response.get("usage"))
    metadata = mapping_of(first(request, "metadata") or first(response, "metadata"))
    model = text_of(first(response, "model") or first(request, "model"))
    fault = failed or fault_of(asked, choice.get("finish_reason"), message.get("refusal"))
    if fault is None and not choice:
        fault = Unusable("the response holds no choice", field="response.choices")
    # A custom_id is the sender's, who numbers each batch from 1 on: no id for a trace.
    custom = text_of(row.get("custom_id"))
    return Call(
        id=text_of(first(row, "id") or first(response, "id")) or custom or origin,
        view=view_of(
            asked, message_of(message, "assistant"), model=model, attributes=metadata, record=row
        ),
        fragment=fragment,
        occurred_at=moment_of(first(response, "created") or first(row, "created_at", "timestamp")),
        tokens=tokens_of(usage.get("prompt_tokens"), usage.get("completion_tokens")),
        fault=fault,
        metadata={"custom_id": custom} if custom else {},
    )


def _failure(row: dict[str, Any], response: dict[str, Any]) -> NoAnswer | None:
    status = response.get("status_code")
    error = (
        row.get("error") or response.get("error") or mapping_of(response.get("body")).get("error")
    )
    if error is None and (status is None or status == 200):
        return None
    said = text_of(mapping_of(error).get("message")) or text_of(error) or f"status {status}"
    return NoAnswer(f"the call failed: {said[:200]}", field="response")


def _first_choice(response: dict[str, Any]) -> dict[str, Any]:
    choices = response.get("choices")
    return (
        choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    )


def _conversation(row: dict[str, Any], origin: str, fragment: Fragment) -> Call:
    """The answer is the last message."""
    said = messages_of(row["messages"]) or []
    answer: Said | None = said.pop() if said and said[-1].role == "assistant" else None
    fault = fault_of(said)
    if answer is None:
        fault = Unusable("the last message is not the assistant's", field="messages")
    return Call(
        id=text_of(row.get("id")) or origin,
        view=view_of(
            said,
            answer,
            model=text_of(row.get("model")),
            attributes=mapping_of(row.get("metadata")),
            record=row,
        ),
        fragment=fragment,
        occurred_at=moment_of(first(row, "created", "created_at", "timestamp")),
        fault=fault,
    )
