"""Who is calling, what they may see, and whether a form is theirs."""

from __future__ import annotations

import getpass
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from services.console.handlers import UnknownTask
from services.console.oidc import Person, Provider
from services.console.sessions import Cookies, Session, fresh
from shared.http.answers import address_of
from shared.http.loopback import is_loopback, name_of
from shared.http.rate import RateLimiter, address_key
from shared.http.tokens import LOCAL, Caller, Tokens, mark_of


class NotSignedIn(Exception):
    """Nobody known is calling."""


class Forbidden(Exception):
    """They may not do this; the message says what to do."""


class TooOften(Exception):
    """Wait so many seconds."""

    def __init__(self, wait: float) -> None:
        self.seconds = max(1, math.ceil(wait))
        super().__init__(f"too many calls: wait {self.seconds} s")


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is calling. `session`: of a browser, None where a program shows a bearer token."""

    caller: Caller
    session: Session | None
    read_only: bool

    def check_may_see(self, task: str) -> None:
        """Raises UnknownTask: whether another tenant has such a task is not theirs to know."""
        if not self.caller.may_use(task):
            raise UnknownTask(f"there is no task {task!r}")

    def check_may_change(self, csrf: str | None) -> None:
        """Raises Forbidden."""
        if self.read_only:
            raise Forbidden("this is read-only: ask for a token that may change things")
        self.check_own_form(csrf)

    def check_own_form(self, csrf: str | None) -> None:
        """Raises Forbidden. A program sends no cookie that somebody could make use of."""
        if self.session is not None and not self.session.proves(csrf or ""):
            raise Forbidden("this form is of another session: open the page again")


@dataclass(frozen=True)
class Access:
    """The rules. `open_to_this_machine`: nobody has to sign in."""

    tokens: Tokens
    cookies: Cookies
    provider: Provider | None
    open_to_this_machine: bool
    read_only: bool
    known: RateLimiter
    strangers: RateLimiter

    def visitor(self, request: Request) -> Visitor:
        """Raises NotSignedIn, Forbidden or TooOften."""
        authorization = request.headers.get("authorization", "")
        session = self.cookies.session(request)
        if authorization:
            caller, session = self.tokens.caller(authorization), None
            if caller is None:
                self.check_stranger(request.scope)
                raise NotSignedIn
        else:
            caller = self._of_session(session) if session else None
        if caller is None and self.open_to_this_machine:
            self._check_named_localhost(request)
            caller, session = _local(), session or fresh()
        if caller is None:
            raise NotSignedIn
        wait = self.known.take(caller.name, rate=caller.rate)
        if wait:
            raise TooOften(wait)
        return Visitor(caller, session, self.read_only or caller.read_only)

    def session_of_token(self, token: str) -> Session | None:
        """None for a token that is nobody's."""
        caller = self.tokens.caller(f"Bearer {token}")
        if caller is None:
            return None
        return Session(fresh().csrf, "token", caller.name, mark=mark_of(token))

    def session_of_person(self, person: Person) -> Session:
        return Session(fresh().csrf, "oidc", person.name, person.tasks, person.read_only)

    def check_stranger(self, scope: Mapping[str, Any]) -> None:
        """Guesses are slow. Raises TooOften."""
        wait = self.strangers.take(address_key(address_of(dict(scope))))
        if wait:
            raise TooOften(wait)

    def _of_session(self, session: Session) -> Caller | None:
        if session.kind == "token":
            return self.tokens.marked(session.name, session.mark)  # None once it is off the list
        if session.kind == "oidc" and self.provider is not None:
            tasks = None if session.tasks is None else frozenset(session.tasks)
            return Caller(session.name, tasks, read_only=session.read_only)
        return None

    def _check_named_localhost(self, request: Request) -> None:
        """A page elsewhere may call this machine under a name of its own that leads here."""
        if not is_loopback(name_of(request.headers.get("host", ""))):
            raise Forbidden("without a token only calls to localhost are answered")


def _local() -> Caller:
    """Whoever runs the console; their name is announced with what they do."""
    with suppress(KeyError, ImportError, OSError):  # a container's user without a name
        return Caller(getpass.getuser())
    return LOCAL
