"""One call to Anthropic's Messages API by its own client, and what can come of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
from anthropic import (
    Anthropic,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DefaultHttpxClient,
)

from services.teacher.answers import (
    CHARGED,
    NO_USAGE,
    Answer,
    CannotAnswer,
    PassingFault,
    counted,
    cut_short,
    read_usage,
)
from services.teacher.endpoint import Endpoint, Faults
from services.teacher.whole_calls import WholeCalls
from shared.clock import Clock
from shared.contracts.events import Input, Tokens
from shared.contracts.prompting import (
    LABEL,
    answer_schema,
    asked_message,
    read_answer,
    system_prompt,
)
from shared.contracts.tasks import Task

_TOOL = "answer"
_CUT_SHORT = ("max_tokens", "model_context_window_exceeded")
_ENOUGH_TOKENS = 256  # the API demands a bound; a label and a tool call's frame need less


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    input: Any = None


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Reply(msgspec.Struct):
    """The part of a message that is used."""

    content: list[_Block]
    model: str | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = NO_USAGE


_FAULTS = Faults(timeout=APITimeoutError, connection=APIConnectionError, status=APIStatusError)


class _Http(WholeCalls, DefaultHttpxClient):
    pass


class AnthropicTeacher(Endpoint):
    """Asks one model. Safe to call from many threads."""

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str,
        model: str,
        clock: Clock,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._client = Anthropic(
            base_url=base_url, api_key=api_key, max_retries=0, http_client=_Http()
        )
        super().__init__(
            url=base_url or str(self._client.base_url),
            secret=api_key,
            clock=clock,
            faults=_FAULTS,
            structure="a tool",
        )
        self._model = model
        self._max_tokens = max_tokens or _ENOUGH_TOKENS
        self._options: dict[str, Any] = {}
        if temperature is not None:
            # In the body: their client has no such parameter any more, as new models refuse it.
            self._options["extra_body"] = {"temperature": min(1.0, temperature)}

    def close(self) -> None:
        self._client.close()

    def _ask(self, task: Task, text: Input, timeout: float, structured: bool) -> bytes:
        options = dict(self._options)
        if structured:
            tool = {
                "name": _TOOL,
                "description": "Give the label.",
                "input_schema": answer_schema(task),
            }
            options |= {"tools": [tool], "tool_choice": {"type": "tool", "name": _TOOL}}
        response = self._client.messages.with_raw_response.create(
            model=self._model,
            max_tokens=self._max_tokens,
            system=system_prompt(task),
            messages=[{"role": "user", "content": asked_message(task, text)}],
            timeout=timeout,
            **options,
        )
        return response.http_response.content

    def _read(self, body: bytes, structured: bool) -> Answer:
        try:
            reply = msgspec.json.decode(body, type=_Reply)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PassingFault("the endpoint's answer is not a message", used=CHARGED) from error
        tokens = _tokens(read_usage(reply.usage, _Usage))
        used = replace(CHARGED, tokens=tokens)
        if reply.stop_reason == "refusal":
            raise CannotAnswer("the model refused", field="request.input", used=used)
        if reply.stop_reason in _CUT_SHORT:
            raise cut_short(f"stop reason {reply.stop_reason}", used)
        label, words = _label(reply.content)
        if not label:
            reason = f"stop reason {reply.stop_reason}" if reply.stop_reason else ""
            raise CannotAnswer(
                "the answer is empty", words=reason, field="request.input", used=used
            )
        return Answer(label, reply.model or self._model, tokens, words=words)

    def _list_models(self, timeout: float) -> None:
        self._client.models.with_raw_response.list(timeout=timeout)


def _tokens(usage: _Usage) -> Tokens | None:
    asked = usage.input_tokens
    if asked is not None:
        # What was read from the cache is not among the input tokens.
        asked += (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return counted(asked, usage.output_tokens)


def _label(blocks: list[_Block]) -> tuple[str, str]:
    """And the words it was read from, where it was."""
    for block in blocks:
        if block.type == "tool_use" and isinstance(block.input, dict):
            label = block.input.get(LABEL)
            if isinstance(label, str):
                return label.strip(), ""
    words = "".join(block.text for block in blocks if block.type == "text")
    return read_answer(words), words
