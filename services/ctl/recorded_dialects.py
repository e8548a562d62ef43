"""The dialects a recorded LLM speaks: what is asked in a request, and how an answer looks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_CHARS_PER_TOKEN = 4  # the usual rule of thumb for English


@dataclass(frozen=True, slots=True)
class Asked:
    """`contents` are all texts of the request, `structured` whether a schema is to be kept to."""

    text: str
    model: str
    contents: tuple[str, ...]
    structured: bool

    def tokens(self) -> int:
        return sum(map(tokens, self.contents))


class Dialect(Protocol):
    def read(self, request: Mapping[str, Any]) -> Asked:
        """Raises KeyError, TypeError or ValueError for what is not a request."""
        ...

    def answer(self, asked: Asked, label: str, number: int, created: int) -> dict[str, Any]: ...

    def failure(self, message: str, kind: str) -> dict[str, Any]: ...


class OpenAIDialect:
    """Chat completions; Azure's are the same on another path."""

    def read(self, request: Mapping[str, Any]) -> Asked:
        kind = (request.get("response_format") or {}).get("type", "text")
        return Asked(
            last_user_message(request["messages"]),
            str(request.get("model") or ""),
            tuple(str(message["content"]) for message in request["messages"]),
            kind == "json_schema",
        )

    def answer(self, asked: Asked, label: str, number: int, created: int) -> dict[str, Any]:
        content = json.dumps({"label": label}) if asked.structured else label
        read, said = asked.tokens(), tokens(content)
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            "id": f"chatcmpl-recorded-{number}",
            "object": "chat.completion",
            "created": created,
            "model": asked.model,
            "choices": [choice],
            "usage": {
                "prompt_tokens": read,
                "completion_tokens": said,
                "total_tokens": read + said,
            },
        }

    def failure(self, message: str, kind: str) -> dict[str, Any]:
        return failure(message, kind)


class AnthropicDialect:
    """Messages, with a tool for structured answers."""

    def read(self, request: Mapping[str, Any]) -> Asked:
        if not isinstance(request["max_tokens"], int):
            raise TypeError("max_tokens must be a number")
        texts = [str(message["content"]) for message in request["messages"]]
        return Asked(
            last_user_message(request["messages"]),
            str(request["model"]),
            (str(request.get("system") or ""), *texts),
            (request.get("tool_choice") or {}).get("type") == "tool",
        )

    def answer(self, asked: Asked, label: str, number: int, created: int) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": label}
        if asked.structured:
            block = {
                "type": "tool_use",
                "id": f"toolu_{number}",
                "name": "answer",
                "input": {"label": label},
            }
        return {
            "id": f"msg_recorded_{number}",
            "type": "message",
            "role": "assistant",
            "model": asked.model,
            "content": [block],
            "stop_reason": "tool_use" if asked.structured else "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": asked.tokens(), "output_tokens": tokens(label)},
        }

    def failure(self, message: str, kind: str) -> dict[str, Any]:
        return {"type": "error", "error": {"type": kind, "message": message}}


def last_user_message(messages: Sequence[Mapping[str, Any]]) -> str:
    """The content of the last message by the user. Raises ValueError without one."""
    for message in reversed(messages):
        if message["role"] == "user":
            return str(message["content"])
    raise ValueError("no message by the user")


def failure(message: str, kind: str, parameter: str | None = None) -> dict[str, Any]:
    """An error as the OpenAI API words it."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": None}}


def tokens(text: str) -> int:
    return max(1, round(len(text) / _CHARS_PER_TOKEN))
