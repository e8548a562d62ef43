"""One call to an OpenAI-compatible endpoint, Azure's among them, and what can come of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import msgspec
from openai import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AzureOpenAI,
    BadRequestError,
    DefaultHttpxClient,
    OpenAI,
)

from services.teacher.answers import (
    CHARGED,
    MAX_WHY_CHARS,
    NO_USAGE,
    Answer,
    CannotAnswer,
    PassingFault,
    counted,
    cut_short,
    read_usage,
    structured_label,
)
from services.teacher.endpoint import AskAgain, Endpoint, Faults
from services.teacher.whole_calls import WholeCalls
from shared.clock import Clock
from shared.contracts.events import Input
from shared.contracts.prompting import (
    answer_schema,
    asked_message,
    read_answer,
    system_prompt,
)
from shared.contracts.tasks import Task

log = logging.getLogger(__name__)


class _Message(msgspec.Struct):
    content: str | list[Any] | None = None  # in parts, where a model shows what it thinks
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(msgspec.Struct):
    """The part of a chat completion that is used; endpoints differ in the rest."""

    choices: list[_Choice]
    model: str | None = None
    usage: msgspec.Raw = NO_USAGE


_FAULTS = Faults(timeout=APITimeoutError, connection=APIConnectionError, status=APIStatusError)


class _Http(WholeCalls, DefaultHttpxClient):
    pass


class OpenAITeacher(Endpoint):
    """Asks one model. Safe to call from many threads."""

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
                http_client=_Http(),
            )
        else:
            self._client = OpenAI(
                base_url=base_url, api_key=api_key, max_retries=0, http_client=_Http()
            )
        super().__init__(
            url=base_url or str(self._client.base_url),
            secret=api_key,
            clock=clock,
            faults=_FAULTS,
            structure="a JSON schema",
        )
        self._model = model
        self._options: dict[str, Any] = {}
        if temperature is not None:
            self._options["temperature"] = temperature
        if max_tokens is not None:
            self._options["max_tokens"] = max_tokens

    def close(self) -> None:
        self._client.close()

    def _ask(self, task: Task, text: Input, timeout: float, structured: bool) -> bytes:
        """The body of the answer; AskAgain without an option that the model refuses."""
        sent = self._options
        try:
            return self._create(task, text, timeout, structured, sent)
        except BadRequestError as error:
            refused = str(error.param)
            if refused not in sent:
                raise
            log.warning("%s: %s refuses %s", self._url, self._model, refused)
            self._options = _without(refused, sent)
            raise AskAgain from error

    def _create(
        self, task: Task, text: Input, timeout: float, structured: bool, sent: dict[str, Any]
    ) -> bytes:
        options = dict(sent)
        if structured:
            schema = {"name": "answer", "strict": True, "schema": answer_schema(task)}
            options["response_format"] = {"type": "json_schema", "json_schema": schema}
        response = self._client.chat.completions.with_raw_response.create(
            model=self._model,
            messages=[
                {"role": "system", "content": system_prompt(task)},
                {"role": "user", "content": asked_message(task, text)},
            ],
            timeout=timeout,
            **options,
        )
        return response.content

    def _read(self, body: bytes, structured: bool) -> Answer:
        try:
            completion = msgspec.json.decode(body, type=_Completion)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # What proxies and endpoints in trouble send with status 200.
            raise PassingFault(
                "the endpoint's answer is not a chat completion", used=CHARGED
            ) from error
        usage = read_usage(completion.usage, _Usage)
        tokens = counted(usage.prompt_tokens, usage.completion_tokens)
        used = replace(CHARGED, tokens=tokens)
        if not completion.choices:
            raise CannotAnswer("the answer holds no choice", field="request.input", used=used)
        choice = completion.choices[0]
        if choice.message.refusal or choice.finish_reason == "content_filter":
            why = choice.message.refusal or "stopped by its content filter"
            raise CannotAnswer(
                "the model refused", words=why[:MAX_WHY_CHARS], field="request.input", used=used
            )
        if choice.finish_reason == "length":
            raise cut_short(f"finish reason {choice.finish_reason}", used)
        content = _words(choice.message.content)
        label = structured_label(content) if structured else read_answer(content)
        if not label:
            reason = f"finish reason {choice.finish_reason}" if choice.finish_reason else ""
            raise CannotAnswer(
                "the answer is empty", words=reason, field="request.input", used=used
            )
        return Answer(label, completion.model or self._model, tokens, words=content)

    def _list_models(self, timeout: float) -> None:
        self._client.models.with_raw_response.list(timeout=timeout)


def _words(content: str | list[Any] | None) -> str:
    """Of parts, those of text: the others are what the model thought."""
    if not isinstance(content, list):
        return content or ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _without(refused: str, options: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's reasoning models take no temperature, and the bound on tokens by another name."""
    left = {name: value for name, value in options.items() if name != refused}
    return left | ({"max_completion_tokens": options[refused]} if refused == "max_tokens" else {})
