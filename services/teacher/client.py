"""One call to an OpenAI-compatible endpoint, and what can come of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import msgspec
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI

from shared.bus.errors import InvalidMessage, Retryable
from shared.clock import Clock
from shared.contracts.events import Input, Tokens
from shared.contracts.prompting import read_answer, system_prompt, user_message
from shared.contracts.tasks import Task

_MAX_WHY_CHARS = 300
_REFUSED_KEY = (401, 403)
_PASSING = (408, 409, 425, 429)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, read as a label; `model` is the name the endpoint gives itself."""

    label: str
    model: str
    tokens: Tokens | None = None


class PassingFault(Exception):
    """The same call may succeed later, not before `retry_after` seconds if that is given."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EndpointRefuses(Retryable):
    """The endpoint does not let us in: every call fails until somebody repairs the settings."""


class CannotAnswer(InvalidMessage):
    """This request will never be answered."""


class Ask(Protocol):
    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        ...


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
        base_url: str,
        api_key: str,
        model: str,
        clock: Clock,
        temperature: float | None = 0.0,
        max_tokens: int | None = None,
    ) -> None:
        self._client = OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
        self._base_url = base_url
        self._secret = api_key
        self._model = model
        self._clock = clock
        self._options: dict[str, Any] = {}
        if temperature is not None:
            self._options["temperature"] = temperature
        if max_tokens is not None:
            self._options["max_tokens"] = max_tokens

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        try:
            response = self._client.chat.completions.with_raw_response.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": system_prompt(task)},
                    {"role": "user", "content": user_message(text)},
                ],
                timeout=timeout,
                **self._options,
            )
        except APITimeoutError as error:
            raise PassingFault(f"no answer within {timeout:.1f} s") from error
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        except APIStatusError as error:
            raise self._fate(error) from error
        return _read(response.content, self._model)

    def probe(self, *, timeout: float) -> None:
        """Whether the endpoint is there and lets us in. Raises PassingFault or EndpointRefuses."""
        try:
            self._client.models.with_raw_response.list(timeout=timeout)
        except APIConnectionError as error:
            raise PassingFault(f"no connection to {self._base_url}") from error
        except APIStatusError as error:
            fate = self._fate(error)
            # Not every endpoint lists its models; any other answer shows that it is there.
            if not isinstance(fate, CannotAnswer):
                raise fate from error

    def close(self) -> None:
        self._client.close()

    def _fate(self, error: APIStatusError) -> PassingFault | EndpointRefuses | CannotAnswer:
        status = error.status_code
        if status in _REFUSED_KEY:
            # Without the endpoint's words: they may repeat part of the key.
            return EndpointRefuses(f"{self._base_url} refuses the API key ({status})")
        if status in _PASSING or status >= 500:
            after = _retry_after(error.response.headers, self._clock.now())
            return PassingFault(f"the endpoint answered {status}", retry_after=after)
        why = str(error.message).replace(self._secret, "***")[:_MAX_WHY_CHARS]
        return CannotAnswer(f"the endpoint answered {status}: {why}", field="request.input")


def _read(body: bytes, model: str) -> Answer:
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
        raise CannotAnswer(f"the model refused: {why[:_MAX_WHY_CHARS]}", field="request.input")
    label = read_answer(choice.message.content or "")
    if not label:
        reason = f" (finish reason {choice.finish_reason})" if choice.finish_reason else ""
        raise CannotAnswer(f"the answer is empty{reason}", field="request.input")
    usage = completion.usage
    tokens = None
    if usage is not None and usage.prompt_tokens >= 0 and usage.completion_tokens >= 0:
        tokens = Tokens(input=usage.prompt_tokens, output=usage.completion_tokens)
    return Answer(label, completion.model or model, tokens)


def _retry_after(headers: Any, now: datetime) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After` (seconds or a date)."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after")
        if value is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())
