"""Settings common to the services: read from the environment once, frozen, safe to print."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from shared.bus.kafka_config import unusable
from shared.secret_files import SecretFiles


class ServiceSettings(BaseSettings):
    """What every service needs. Each field is read from `TRACER_<FIELD>`.

    `kafka` holds further librdkafka settings as JSON, for example
    `TRACER_KAFKA='{"security.protocol": "SASL_SSL", ...}'`; it is masked when printed. A secret
    may be in a file instead, which `TRACER_<FIELD>_FILE` names.
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
    topic_prefix: str = ""
    group_suffix: str = ""
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    instance: str = Field(default_factory=lambda: f"{os.uname().nodename}-{os.getpid()}")
    health_host: str = "127.0.0.1"
    health_port: int = 0
    log_level: str = "INFO"
    # Whose signatures count: a keyring of `tracerctl keys`. Without one nothing is believed, unless
    # `allow` says that whatever is in the registry is.
    trusted_keys: Path | None = None
    unsigned: Literal["refuse", "allow"] = "refuse"

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
