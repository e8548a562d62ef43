"""One call to an OpenAI-compatible endpoint, Azure's among them, and what can come of it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AzureOpenAI,
    BadRequestError,
    OpenAI,
)

from services.teacher.answers import (
    MAX_WHY_CHARS,
    Answer,
    Ask,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    counted,
    fate,
    may_not_know_how,
    structured_label,
)
from shared.clock import Clock
from shared.contracts.events import Input
from shared.contracts.prompting import (
    answer_schema,
    answers_structured,
    asked_message,
    read_answer,
    system_prompt,
)
from shared.contracts.tasks import Task

__all__ = ["Answer", "Ask", "CannotAnswer", "EndpointRefuses", "OpenAITeacher", "PassingFault"]

log = logging.getLogger(__name__)


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Completion(msgspec.Struct):
    """The part of a chat completion that is used; endpoints differ in the rest."""

    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


class OpenAITeacher:
    """Asks one model. Safe to call from many threads.

    The client's own retries are off: `retries.py` has the only policy.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str,
        model: str,
        clock: Clock,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
        azure_version: str | None = None,
    ) -> None:
        """`azure_version`: the API version of an Azure resource at `base_url`, whose deployment
        `model` is."""
        if azure_version is not None:
            self._client: OpenAI = AzureOpenAI(
                azure_endpoint=base_url or "",
                api_key=api_key,
                api_version=azure_version,
                max_retries=0,
            )
        else:
            self._client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
        self._base_url = base_url or str(self._client.base_url)
        self._secret = api_key
        self._model = model
        self._clock = clock
        self._in_words_only = False
        self._options: dict[str, Any] = {}
        if temperature is not None:
            self._options["temperature"] = temperature
        if max_tokens is not None:
            self._options["max_tokens"] = max_tokens

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        structured = answers_structured(task) and not self._in_words_only
        try:
            return _read(self._ask(task, text, timeout, structured), self._model, structured)
        except APIStatusError as error:
            if not structured or not may_not_know_how(error.status_code):
                raise self._fate(error) from error
        try:
            answer = _read(self._ask(task, text, timeout, False), self._model, False)
        except APIStatusError as error:
            raise self._fate(error) from error
        log.warning("%s does not answer by a JSON schema: asking in words", self._base_url)
        self._in_words_only = True
        return answer

    def _ask(self, task: Task, text: Input, timeout: float, structured: bool) -> bytes:
        """The body of the answer. Raises PassingFault or APIStatusError."""
        while True:
            sent = self._options
            try:
                return self._create(task, text, timeout, structured, sent)
            except BadRequestError as error:
                refused = str(error.param)
                if refused not in sent:
                    raise
                log.warning("%s: %s refuses %s", self._base_url, self._model, refused)
                self._options = _without(refused, sent)

    def _create(
        self, task: Task, text: Input, timeout: float, structured: bool, sent: dict[str, Any]
    ) -> bytes:
        options = dict(sent)
        if structured:
            schema = {"name": "answer", "strict": True, "schema": answer_schema(task)}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": system_prompt(task)},
                    {"role": "user", "content": asked_message(task, text)},
                ],
                timeout=timeout,
                **options,
            )
        except APITimeoutError as error:
            raise PassingFault(f"no answer within {timeout:.1f} s") from error
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        return response.content

    def probe(self, *, timeout: float) -> None:
        """Whether the endpoint is there and lets us in. Raises PassingFault or EndpointRefuses."""
        try:
            self._client.models.with_raw_response.list(timeout=timeout)
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        except APIStatusError as error:
            found = self._fate(error)
            # Not every endpoint lists its models; any other answer shows that it is there.
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


def _without(refused: str, options: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's reasoning models take no temperature, and the bound on tokens by another name."""
    left = {name: value for name, value in options.items() if name != refused}
    return left | ({"max_completion_tokens": options[refused]} if refused == "max_tokens" else {})


def _read(body: bytes, model: str, structured: bool) -> Answer:
    try:
        completion = msgspec.json.decode(body, type=_Completion)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # What proxies and endpoints in trouble send with status 200.
        raise PassingFault("the endpoint's answer is not a chat completion") from error
    if not completion.choices:
        raise CannotAnswer("the answer holds no choice", field="request.input")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        why = choice.message.refusal or "stopped by its content filter"
        raise CannotAnswer(f"the model refused: {why[:MAX_WHY_CHARS]}", field="request.input")
    content = choice.message.content or ""
    label = structured_label(content) if structured else read_answer(content)
    if not label:
        reason = f" (finish reason {choice.finish_reason})" if choice.finish_reason else ""
        raise CannotAnswer(f"the answer is empty{reason}", field="request.input")
    usage = completion.usage
    tokens = counted(usage.prompt_tokens, usage.completion_tokens) if usage is not None else None
    return Answer(label, completion.model or model, tokens)
