"""Settings common to the services: read from the environment once, frozen, safe to print."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.bus.kafka_config import unusable
from shared.secret_files import SecretFiles

_BROKER = re.compile(r"(?:[A-Za-z_]+://)?(?:\[[0-9A-Fa-f:.%]+\]|[^\s:,/\[\]]+)(?::(\d{1,5}))?")


class ServiceSettings(BaseSettings):
    """What every service needs. Each field is read from `TRACER_<FIELD>`.

    `kafka` holds further librdkafka settings as JSON, for example
    `TRACER_KAFKA='{"security.protocol": "SASL_SSL", ...}'`; it is masked when printed. A secret
    may be in a file instead, which `TRACER_<FIELD>_FILE` names. Empty, what may be None is None.
    """

    model_config = SettingsConfigDict(
        env_prefix="TRACER_",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # it holds secrets
    )

    bootstrap_servers: str = "localhost:9092"
    kafka: dict[str, str] = Field(default_factory=dict, repr=False)
    redis_url: SecretStr = SecretStr("redis://localhost:6379/0")
    tasks: Path = Path("config/tasks.yaml")
    # With it the longest name, dead-letters, is a topic's still: at most 249 characters.
    topic_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=200)
    group_suffix: str = ""
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    instance: str = Field(default_factory=lambda: f"{os.uname().nodename}-{os.getpid()}")
    health_host: str = "127.0.0.1"
    health_port: int = Field(default=0, ge=0, le=65_535)
    log_level: str = "INFO"
    # Whose signatures count: a keyring of `tracerctl keys`. Without one nothing is believed, unless
    # `allow` says that whatever is in the registry is.
    trusted_keys: Path | None = None
    unsigned: Literal["refuse", "allow"] = "refuse"

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        may_be_none = type(None) in get_args(cls.model_fields[info.field_name or ""].annotation)
        return None if value == "" and may_be_none else value

    @field_validator("bootstrap_servers")
    @classmethod
    def _are_brokers(cls, servers: str) -> str:
        for server in servers.split(","):
            found = _BROKER.fullmatch(server.strip())
            if found is None or not 0 < int(found[1] or 9092) < 65_536:
                raise ValueError("must be brokers as host:port, with commas between")
        return servers

    @field_validator("log_level")
    @classmethod
    def _is_a_level(cls, level: str) -> str:
        if level.upper() not in logging.getLevelNamesMapping():
            raise ValueError("must be DEBUG, INFO, WARNING, ERROR or CRITICAL")
        return level

    @field_validator("kafka")
    @classmethod
    def _are_theirs(cls, kafka: dict[str, str]) -> dict[str, str]:
        if problem := unusable(kafka):
            raise ValueError(problem)
        return kafka

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, SecretFiles(settings_cls), env_settings

    def topic(self, name: str) -> str:
        return f"{self.topic_prefix}{name}"

    def group(self, service: str) -> str:
        return f"tracer-{service}{self.group_suffix}"

    def describe(self) -> dict[str, Any]:
        """The resolved settings with every secret masked, for the log line at start."""
        shown: dict[str, Any] = json.loads(self.model_dump_json())
        shown["kafka"] = dict.fromkeys(self.kafka, "**********")
        return shown
