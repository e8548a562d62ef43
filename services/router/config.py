"""The router's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, model_validator

from services.router.calls import MAX_REQUESTS
from shared.http.tokens import Tokens, check_not_open, one_token, read_tokens
from shared.registry.trust import Trust, trust_of
from shared.settings import ServiceSettings


class RouterSettings(ServiceSettings):
    """`max_wait` (seconds) is how long a micro-batch waits for its first request; `poll` how often
    the registry is asked, for 100 tasks in turn, what its hints may have missed; `cache_mb` (10⁶
    bytes) bounds the answers remembered for texts that come again, 0 remembers none.
    `max_version_age_days`: a version whose window is longer ago is not loaded any more, so that who
    writes to Redis can bring back no older one; left out, any age is."""

    encoder: Path = Path("data/encoder")
    models: Path = Path("data/models")  # disk copy, to start without Redis
    threads: int | None = Field(default=None, ge=1)
    max_batch: int = Field(default=1_024, ge=1)
    max_wait: float = Field(default=0.05, gt=0)
    poll: float = Field(default=1.0, gt=0)
    cache_mb: float = Field(default=32.0, ge=0, le=16_384)
    max_version_age_days: int | None = Field(default=None, ge=1)
    group_instance: str | None = None
    # Seconds without progress until liveness fails: more than a commit waits for a broker (70).
    stall_seconds: float = Field(default=90.0, gt=0)

    # The synchronous door, POST /v1/classify; port 0: none. A token of its callers is required
    # where others than this machine can reach it.
    door_host: str = "127.0.0.1"
    door_port: int | None = Field(default=8010, ge=0, le=65_535)
    door_token: SecretStr | None = None
    # More of them, each for some tasks; a JSON list, see docs/door.md.
    door_tokens: SecretStr | None = None
    # Calls a second of each token that has no rate of its own.
    door_rate: float = Field(default=1_000.0, gt=0)
    # Requests of concurrent calls worked together; how long, under load, a batch waits to fill;
    # requests that may wait; seconds after which a call is answered that it was in vain.
    door_max_batch: int = Field(default=256, ge=1)
    door_max_wait_ms: float = Field(default=2.0, ge=0, le=1_000)
    door_max_queued: int = Field(default=2_048, ge=MAX_REQUESTS)
    door_timeout: float = Field(default=5.0, ge=0.5, le=60)

    @model_validator(mode="after")
    def _nobody_is_believed_unasked(self) -> Self:
        self.trust()
        return self

    def trust(self) -> Trust:
        """What is believed of the registry and of the disk copy. Raises ValueError."""
        return trust_of(
            self.trusted_keys, unsigned_allowed=self.unsigned == "allow", signing_key=None
        )

    @model_validator(mode="after")
    def _nobody_calls_unasked(self) -> Self:
        tokens = self.tokens()
        if self.door_port:
            check_not_open(
                self.door_host,
                tokens,
                host_setting="TRACER_DOOR_HOST",
                fix="set TRACER_DOOR_TOKEN, which callers must show, or TRACER_DOOR_PORT=0 for "
                "no door",
            )
        return self

    def tokens(self) -> Tokens:
        """Of the door's callers. Raises InvalidTokens."""
        single = self.door_token.get_secret_value() if self.door_token else ""
        several = self.door_tokens.get_secret_value() if self.door_tokens else ""
        tokens = one_token(single, "TRACER_DOOR_TOKEN")
        return tokens.joined(read_tokens(several, "TRACER_DOOR_TOKENS")) if several else tokens
