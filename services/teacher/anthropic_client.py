"""One call to Anthropic's Messages API by its own client, and what can come of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from anthropic import Anthropic, APIConnectionError, APIStatusError, APITimeoutError

from services.teacher.answers import (
    Answer,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    counted,
    fate,
    may_not_know_how,
)
from shared.clock import Clock
from shared.contracts.events import Input
from shared.contracts.prompting import (
    LABEL,
    answer_schema,
    answers_structured,
    asked_message,
    read_answer,
    system_prompt,
)
from shared.contracts.tasks import Task

log = logging.getLogger(__name__)

_TOOL = "answer"
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
    usage: _Usage = msgspec.field(default_factory=_Usage)


class AnthropicTeacher:
    """Asks one model. Safe to call from many threads; the client's own retries are off."""

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
        self._client = Anthropic(base_url=base_url, api_key=api_key, max_retries=0)
        self._base_url = base_url or str(self._client.base_url)
        self._secret = api_key
        self._model = model
        self._clock = clock
        self._max_tokens = max_tokens or _ENOUGH_TOKENS
        self._in_words_only = False
        self._options: dict[str, Any] = {}
        if temperature is not None:
            # In the body: their client has no such parameter any more, as new models refuse it.
            self._options["extra_body"] = {"temperature": min(1.0, temperature)}

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        structured = answers_structured(task) and not self._in_words_only
        try:
            return _read(self._ask(task, text, timeout, structured), self._model)
        except APIStatusError as error:
            if not structured or not may_not_know_how(error.status_code):
                raise self._fate(error) from error
        try:
            answer = _read(self._ask(task, text, timeout, False), self._model)
        except APIStatusError as error:
            raise self._fate(error) from error
        log.warning("%s does not answer by a tool: asking in words", self._base_url)
        self._in_words_only = True
        return answer

    def _ask(self, task: Task, text: Input, timeout: float, structured: bool) -> bytes:
        """The body of the answer. Raises PassingFault or APIStatusError."""
        options = dict(self._options)
        if structured:
            tool = {
                "name": _TOOL,
                "description": "Give the label.",
                "input_schema": answer_schema(task),
            }
            options |= {"tools": [tool], "tool_choice": {"type": "tool", "name": _TOOL}}
        try:
            response = self._client.messages.with_raw_response.create(
                model=self._model,
                max_tokens=self._max_tokens,
                system=system_prompt(task),
                messages=[{"role": "user", "content": asked_message(task, text)}],
                timeout=timeout,
                **options,
            )
        except APITimeoutError as error:
            raise PassingFault(f"no answer within {timeout:.1f} s") from error
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        return response.http_response.content

    def probe(self, *, timeout: float) -> None:
        """Whether the endpoint is there and lets us in. Raises PassingFault or EndpointRefuses."""
        try:
            self._client.models.with_raw_response.list(timeout=timeout)
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        except APIStatusError as error:
            found = self._fate(error)
            if not isinstance(found, CannotAnswer):
                raise found from error

    def close(self) -> None:
        self._client.close()

    def _fate(self, error: APIStatusError) -> PassingFault | EndpointRefuses | CannotAnswer:
        return fate(
            error.status_code,
            error.response.headers,
            str(error.message),
            url=self._base_url,
            secret=self._secret,
            now=self._clock.now(),
        )


def _read(body: bytes, model: str) -> Answer:
    try:
        reply = msgspec.json.decode(body, type=_Reply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PassingFault("the endpoint's answer is not a message") from error
    if reply.stop_reason == "refusal":
        raise CannotAnswer("the model refused", field="request.input")
    label = _label(reply.content)
    if not label:
        reason = f" (stop reason {reply.stop_reason})" if reply.stop_reason else ""
        raise CannotAnswer(f"the answer is empty{reason}", field="request.input")
    usage = reply.usage
    asked = usage.input_tokens
    if asked is not None:
        # What was read from the cache is not among the input tokens.
        asked += (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return Answer(label, reply.model or model, counted(asked, usage.output_tokens))


def _label(blocks: list[_Block]) -> str:
    for block in blocks:
        if block.type == "tool_use" and isinstance(block.input, dict):
            label = block.input.get(LABEL)
            if isinstance(label, str):
                return label.strip()
    return read_answer("".join(block.text for block in blocks if block.type == "text"))
