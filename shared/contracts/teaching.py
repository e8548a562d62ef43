"""Who teaches a task, and what that may cost: part of the tasks file."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from shared.contracts.events import MOST_DOLLARS

Name = Annotated[str, Meta(min_length=1, max_length=256)]
EnvironmentName = Annotated[str, Meta(pattern=r"^[A-Z][A-Z0-9_]{0,126}\Z")]


class Provider(StrEnum):
    """Whose protocol an endpoint speaks; `openai` is also that of vLLM, Ollama and LiteLLM."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"


Dollars = Annotated[float, Meta(ge=0, le=MOST_DOLLARS)]


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a teacher's call costs, in US dollars. Traces that carry `cost` use that instead."""

    per_call: Dollars = 0.0
    per_million_input_tokens: Dollars = 0.0
    per_million_output_tokens: Dollars = 0.0


class TeacherEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The endpoint and the model that answer a task's deferrals.

    `base_url` may be left out for OpenAI's and Anthropic's own. `api_key_env` names the environment
    variable that holds the key; with `_FILE` behind its name, the file that does. `structured`
    asks for an answer of the task's labels alone (a JSON schema, for Anthropic a tool), where the
    task has labels; an endpoint that does not know how is asked in words instead. `temperature`
    is 0 unless it says otherwise, and null leaves it out, for models that refuse it; to Anthropic
    it is sent only if given. `model` is the deployment's name on Azure.
    """

    provider: Provider = Provider.OPENAI
    model: Name
    base_url: Annotated[str, Meta(pattern=r"^https?://[^\s]+\Z")] | None = None
    api_key_env: EnvironmentName | None = None
    api_version: Name | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | msgspec.UnsetType | None = msgspec.UNSET
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    structured: bool = True

    @property
    def sent_temperature(self) -> float | None:
        """None: none is sent."""
        if isinstance(self.temperature, msgspec.UnsetType):
            return None if self.provider is Provider.ANTHROPIC else 0.0
        return self.temperature

    def __post_init__(self) -> None:
        if self.provider is Provider.AZURE:
            if self.base_url is None or self.api_version is None:
                raise ValueError(
                    "provider azure needs base_url (https://NAME.openai.azure.com) and api_version"
                )
        elif self.api_version is not None:
            raise ValueError("api_version is for provider azure")


class Budget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the teacher may spend on a task in a day of the task's time zone.

    When it is used up, requests `wait` in the topic until the day ends, and with them all that are
    behind them; or they are answered `unavailable`: a decision without a label that says so, and
    a dead letter that can be redriven. Calls already under way may exceed it.
    """

    usd_per_day: Annotated[float, Meta(gt=0)] | None = None
    calls_per_day: Annotated[int, Meta(ge=1)] | None = None
    when_used_up: Literal["wait", "unavailable"] = "wait"

    def __post_init__(self) -> None:
        if self.usd_per_day is None and self.calls_per_day is None:
            raise ValueError("a budget needs usd_per_day or calls_per_day")
