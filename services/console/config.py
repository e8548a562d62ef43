"""The console's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from shared.http.loopback import is_loopback
from shared.http.tokens import Tokens, check_not_open, one_token, read_tokens
from shared.settings import ServiceSettings

_SHORTEST_SECRET = 32


class ConsoleSettings(ServiceSettings):
    """Who may sign in: with a token, or at an OpenID Connect provider; on a loopback address,
    where neither is set, whoever is on this machine."""

    console_host: str = "127.0.0.1"
    console_port: int = Field(default=8020, ge=0, le=65_535)
    # The address people open, where a proxy stands before it; needed for OpenID Connect. With
    # https its cookies are sent over https only.
    console_url: str | None = None
    console_token: SecretStr | None = None
    # More of them, each for some tasks or read-only; a JSON list, see docs/console.md.
    console_tokens: SecretStr | None = None
    # Signs sessions. Left out, each start makes a new one, and all sessions end with it.
    console_secret: SecretStr | None = None
    console_read_only: bool = False
    # Calls a second of one person or program.
    console_rate: float = Field(default=50.0, gt=0)
    session_hours: float = Field(default=12.0, gt=0, le=24 * 30)

    # OpenID Connect. Claims of the ID token say what a person may do: `oidc_tasks_claim` holds the
    # tasks ("*": all), `oidc_role_claim` must hold `operator` to change anything.
    oidc_issuer: str | None = None
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    oidc_scope: str = "openid profile email"
    oidc_tasks_claim: str = "tracer_tasks"
    oidc_role_claim: str = "tracer_role"

    # What texts are explained with: the encoder of the routers, the trainer's windows.
    encoder: Path = Path("data/encoder")
    store: str = "data/windows"

    # Seconds without progress until liveness fails.
    stall_seconds: float = Field(default=90.0, gt=0)

    @model_validator(mode="after")
    def _nobody_looks_unasked(self) -> Self:
        check_not_open(
            self.console_host,
            "token" if self.tokens() else self.oidc_issuer or "",
            host_setting="TRACER_CONSOLE_HOST",
            fix="set TRACER_CONSOLE_TOKEN, which people sign in with, or TRACER_OIDC_ISSUER",
        )
        return self

    @model_validator(mode="after")
    def _sessions_are_signed_well(self) -> Self:
        if self.console_secret and len(self.console_secret.get_secret_value()) < _SHORTEST_SECRET:
            raise ValueError(f"TRACER_CONSOLE_SECRET has less than {_SHORTEST_SECRET} characters")
        return self

    @model_validator(mode="after")
    def _oidc_is_complete(self) -> Self:
        if self.console_url is not None:
            parts = urlsplit(self.console_url)
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.path.strip("/"):
                raise ValueError("TRACER_CONSOLE_URL must be like https://tracer.example.com")
        if self.oidc_issuer is None:
            return self
        if not self.oidc_client_id or not self.oidc_client_secret:
            raise ValueError(
                "TRACER_OIDC_ISSUER needs TRACER_OIDC_CLIENT_ID and TRACER_OIDC_CLIENT_SECRET"
            )
        issuer = urlsplit(self.oidc_issuer)
        if issuer.scheme != "https" and not is_loopback(issuer.hostname or ""):
            raise ValueError(
                "TRACER_OIDC_ISSUER must begin with https://: who reads along would read the "
                "client's secret (http is for a provider on this machine)"
            )
        if self.console_url is None:
            raise ValueError(
                "TRACER_OIDC_ISSUER needs TRACER_CONSOLE_URL: the provider sends people back there"
            )
        return self

    @property
    def secure_cookies(self) -> bool:
        return (self.console_url or "").startswith("https:")

    @property
    def open_to_this_machine(self) -> bool:
        """Nobody has to sign in; `check_not_open` has seen that only this machine can."""
        return not self.tokens() and self.oidc_issuer is None

    def tokens(self) -> Tokens:
        """Of people and programs. Raises InvalidTokens."""
        single = self.console_token.get_secret_value() if self.console_token else ""
        several = self.console_tokens.get_secret_value() if self.console_tokens else ""
        tokens = one_token(single, "TRACER_CONSOLE_TOKEN")
        return tokens.joined(read_tokens(several, "TRACER_CONSOLE_TOKENS")) if several else tokens
