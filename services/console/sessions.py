"""Sessions in a signed cookie: who somebody is, and the secret of their forms."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

COOKIE = "tracer_session"
FLASH = "tracer_flash"
SIGN_IN = "tracer_sign_in"
_FLASH_SECONDS = 30
_SIGN_IN_SECONDS = 600

Kind = Literal["nobody", "token", "oidc"]


@dataclass(frozen=True, slots=True)
class Session:
    """`csrf`: what forms of this session must send along. The rest is of a person signed in: with
    a token only its name and `mark` count (`shared.http.tokens.mark_of`), what that may do is
    looked up again with each call."""

    csrf: str
    kind: Kind = "nobody"
    name: str = ""
    tasks: tuple[str, ...] | None = ()
    read_only: bool = True
    mark: str = ""

    def proves(self, token: str) -> bool:
        """Whether a form was made for this session."""
        return hmac.compare_digest(self.csrf.encode(), token.encode("utf-8", "surrogatepass"))


def fresh() -> Session:
    """Nobody's yet."""
    return Session(secrets.token_urlsafe(24))


class Cookies:
    """Signed with one secret, each kind with a salt of its own: one cannot stand in for another."""

    def __init__(self, secret: str, *, seconds: float, secure: bool) -> None:
        self._sessions = URLSafeTimedSerializer(secret, salt=COOKIE)
        self._flashes = URLSafeTimedSerializer(secret, salt=FLASH)
        self._sign_ins = URLSafeTimedSerializer(secret, salt=SIGN_IN)
        self._seconds = int(seconds)
        self._secure = secure

    def session(self, request: Request) -> Session | None:
        """None without one, or with one that was forged or is too old."""
        found = _read(self._sessions, request.cookies.get(COOKIE), self._seconds)
        try:
            tasks = found["tasks"]
            return Session(
                str(found["csrf"]),
                found["kind"],
                str(found["name"]),
                None if tasks is None else tuple(map(str, tasks)),
                bool(found["read_only"]),
                str(found["mark"]),
            )
        except (TypeError, KeyError):
            return None

    def keep(self, response: Response, session: Session) -> None:
        """From now on for as long as sessions last: once for each, or it would never end."""
        value = {
            "csrf": session.csrf,
            "kind": session.kind,
            "name": session.name,
            "tasks": session.tasks,
            "read_only": session.read_only,
            "mark": session.mark,
        }
        self._set(response, COOKIE, self._sessions.dumps(value), self._seconds)

    def end(self, response: Response) -> None:
        response.delete_cookie(COOKIE, path="/")

    def flash(self, response: Response, text: str, tone: str) -> None:
        """Said once, on the next page."""
        self._set(response, FLASH, self._flashes.dumps([text, tone]), _FLASH_SECONDS)

    def flashed(self, request: Request) -> tuple[str, str] | None:
        found = _read(self._flashes, request.cookies.get(FLASH), _FLASH_SECONDS)
        return (str(found[0]), str(found[1])) if found else None

    def flash_seen(self, response: Response) -> None:
        response.delete_cookie(FLASH, path="/")

    def keep_sign_in(self, response: Response, value: dict[str, str]) -> None:
        """What the answer of an identity provider is checked against."""
        self._set(response, SIGN_IN, self._sign_ins.dumps(value), _SIGN_IN_SECONDS)

    def sign_in(self, request: Request) -> dict[str, str] | None:
        found = _read(self._sign_ins, request.cookies.get(SIGN_IN), _SIGN_IN_SECONDS)
        return found if isinstance(found, dict) else None

    def sign_in_done(self, response: Response) -> None:
        response.delete_cookie(SIGN_IN, path="/")

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        # Lax, not strict: a provider's redirect back must bring the sign-in's cookie along. Forms
        # are guarded by a token of their own.
        response.set_cookie(
            name, value, max_age=seconds, path="/", httponly=True, samesite="lax",
            secure=self._secure,
        )  # fmt: skip


def _read(serializer: URLSafeTimedSerializer, value: str | None, seconds: int) -> Any:
    if not value:
        return None
    try:
        return serializer.loads(value, max_age=seconds)
    except BadData:
        return None
