"""Settings of ingest."""

from __future__ import annotations

from datetime import timedelta
from typing import Self

from pydantic import Field, SecretStr, model_validator

from shared.http.tokens import Tokens, check_not_open, one_token, read_tokens
from shared.settings import ServiceSettings


class IngestSettings(ServiceSettings):
    """Each field is read from `TRACER_<FIELD>`, so `ingest_batch_size` from
    `TRACER_INGEST_BATCH_SIZE`.

    Ingest is at least once whatever `delivery` says: traces are idempotent by (task, id).
    """

    # A batch is closed when it is full or when its first record has waited this long.
    ingest_batch_size: int = Field(default=500, ge=1, le=10_000)
    ingest_batch_seconds: float = Field(default=0.2, gt=0, le=60)

    # A trace repeated within the horizon is dropped.
    ingest_repeat_horizon: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    ingest_memory_keys: int = Field(default=1_000_000, ge=1)

    # Clocks differ; what lies further ahead than this is a mistake, and would hold up a window.
    ingest_future_tolerance: timedelta = Field(default=timedelta(days=1), ge=timedelta(0))

    # Faust's worker
    ingest_buffer_records: int = Field(default=4096, ge=1)
    ingest_session_timeout_seconds: float = Field(default=45.0, ge=6)
    ingest_request_timeout_seconds: float = Field(default=60.0, ge=6)
    ingest_stall_seconds: float = Field(default=120.0, gt=0)

    # OTLP/HTTP on /v1/traces; without a port there is no such door. A token is needed where others
    # than this machine can reach it; several, each for some tasks, as a JSON list (docs/door.md).
    otlp_host: str = "127.0.0.1"
    otlp_port: int | None = Field(default=None, ge=0, le=65_535)
    otlp_token: SecretStr | None = None
    otlp_tokens: SecretStr | None = None
    otlp_rate: float = Field(default=100.0, gt=0)
    # Bytes of a body as it comes and unpacked, calls in work, seconds for the broker to take them.
    otlp_max_body: int = Field(default=4_194_304, ge=1_024, le=67_108_864)
    otlp_max_unpacked: int = Field(default=16_777_216, ge=1_024, le=268_435_456)
    otlp_max_calls: int = Field(default=32, ge=1, le=1_000)
    otlp_timeout: float = Field(default=8.0, gt=0, le=60)

    @model_validator(mode="after")
    def _nobody_sends_unasked(self) -> Self:
        tokens = self.tokens()
        if self.otlp_port is not None:
            check_not_open(
                self.otlp_host,
                tokens,
                host_setting="TRACER_OTLP_HOST",
                fix="set TRACER_OTLP_TOKEN, which senders must show",
            )
        return self

    def tokens(self) -> Tokens:
        """Of those who send spans. Raises InvalidTokens."""
        single = self.otlp_token.get_secret_value() if self.otlp_token else ""
        several = self.otlp_tokens.get_secret_value() if self.otlp_tokens else ""
        tokens = one_token(single, "TRACER_OTLP_TOKEN")
        return tokens.joined(read_tokens(several, "TRACER_OTLP_TOKENS")) if several else tokens
