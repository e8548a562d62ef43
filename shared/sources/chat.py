"""Messages of chats as text, in the spellings of OpenAI, Anthropic and OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from shared.sources.base import NoAnswer, Unusable
from shared.sources.documents import mapping_of, parse_inner

_TEXT_PARTS = (None, "text", "input_text", "output_text")
_SILENT_PARTS = ("reasoning", "thinking", "redacted_thinking")
_TOOL_PARTS = ("tool_call", "tool_use", "function_call", "tool-call")
_ROLES = {"human": "user", "ai": "assistant", "model": "assistant"}  # LangChain, Google
# Why an answer ended, in the words of OpenAI, Anthropic and Google.
_CUT_SHORT = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"}
)
_FILTERED = frozenset(
    {"content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii"}
)


@dataclass(frozen=True, slots=True)
class Said:
    """One message. `other` names a part that is neither text nor a tool call."""

    role: str
    content: str
    tools: tuple[str, ...] = ()
    other: str | None = None


def messages_of(value: Any) -> list[Said] | None:
    """A list of messages, an object with one, or a text as the user's; None for anything else."""
    value = parse_inner(value)
    if isinstance(value, dict):
        value = value.get("messages", [value])
    if isinstance(value, str):
        return [Said("user", value)]
    if not isinstance(value, list) or not value:
        return None
    said = [message_of(each) for each in value]
    known = [each for each in said if each is not None]
    return known if len(known) == len(value) else None


def message_of(value: Any, role: str = "") -> Said | None:
    """None for what is no message: it has no role, or neither content nor parts."""
    if not isinstance(value, dict):
        return None
    role = role or str(value.get("role") or "").lower()
    role = _ROLES.get(role, role)
    body = value.get("parts") if value.get("parts") is not None else value.get("content")
    if not role or (body is None and "content" not in value and not value.get("tool_calls")):
        return None
    tools = [_arguments(each.get("function") or each) for each in _objects(value.get("tool_calls"))]
    if isinstance(body, dict):
        body = [body]
    if not isinstance(body, list):
        return Said(role, body if isinstance(body, str) else "", tuple(tools))
    texts, other = [], None
    for part in body:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            kind = part.get("type")
            text = part.get("text") if part.get("text") is not None else part.get("content")
            if kind in _TEXT_PARTS and isinstance(text, str):
                texts.append(text)
            elif kind in _TOOL_PARTS:
                tools.append(_arguments(part))
            elif kind not in _SILENT_PARTS:
                other = str(kind)
    return Said(role, "\n".join(texts), tuple(tools), other)


def answer_of(output: Any) -> Said | None:
    """What an assistant said: its message, a text as it is, or any other JSON as JSON, for
    `read: json`. None for several messages, of which any may be the answer."""
    document = parse_inner(output)
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if isinstance(document, str):
        return Said("assistant", document)
    if isinstance(document, dict) and {"content", "parts"} & document.keys():
        said = message_of(document, "assistant")
        if said is not None:
            return said
    if not isinstance(document, dict | list) or not document or _has_messages(document):
        return None
    return Said("assistant", output if isinstance(output, str) else _as_json(document))


def message_in(choice: dict[str, Any]) -> dict[str, Any]:
    """A choice's message; a text completion's text as one. Empty where there is neither."""
    text = choice.get("text")
    return mapping_of(choice.get("message")) or ({"content": text} if text is not None else {})


def _has_messages(value: Any) -> bool:
    return isinstance(value, list) and any(message_of(each) is not None for each in value)


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _objects(value: Any) -> Iterable[dict[str, Any]]:
    return (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _arguments(call: dict[str, Any]) -> str:
    for name in ("arguments", "input"):
        found = call.get(name)
        if found is not None:
            return found if isinstance(found, str) else _as_json(found)
    return ""


def view_of(
    asked: list[Said] | None,
    answer: Said | None,
    *,
    model: str | None,
    attributes: dict[str, Any],
    record: Any,
) -> dict[str, Any]:
    """See shared.sources.base; what is not known is left out, so that paths find nothing."""
    view: dict[str, Any] = {"attributes": attributes, "record": record}
    if asked:
        view["messages"] = [{"role": each.role, "content": each.content} for each in asked]
        users = [each.content for each in asked if each.role == "user"]
        if users:
            view["input"] = users[-1]
    if answer is not None:
        output = answer.content
        if not output.strip() and len(answer.tools) == 1:
            output = answer.tools[0]
        view["output"] = output
    if model:
        view["model"] = model
    return view


def fault_of(asked: list[Said] | None, finish: Any = None, refusal: Any = None) -> Unusable | None:
    """Why an answered chat is no trace: cut short, filtered, refused, or about more than text."""
    if isinstance(refusal, str) and refusal:
        return NoAnswer(f"the model refused: {refusal[:200]}", field="output")
    ended = finish.lower() if isinstance(finish, str) else None
    if ended in _CUT_SHORT:
        return NoAnswer(f"the answer was cut short (finish reason {finish})", field="output")
    if ended == "error":
        return NoAnswer("the call failed (finish reason error)", field="output")
    if ended in _FILTERED:
        return NoAnswer(f"the answer was withheld (finish reason {finish})", field="output")
    for each in asked or ():
        if each.role == "user" and each.other:
            return Unusable(
                f"a user message holds a part of type {each.other!r}; only text can be classified",
                field="messages",
            )
    return None
