"""Who is let in, and how often: bearer tokens, and the rate of calls of each.

A door without tokens answers this machine only: settings refuse any other (check_not_open), and
calls under a name that is not localhost are refused here, as a page in a browser of this machine
may call under a name of its own that leads here.
"""

from __future__ import annotations

import math

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.clock import Clock
from shared.http.answers import address_of, header, refuse
from shared.http.body import BodyLimit
from shared.http.headers import NO_PAGES, SecurityHeaders
from shared.http.loopback import is_loopback, name_of
from shared.http.rate import RateLimiter, address_key
from shared.http.tokens import LOCAL, Caller, Tokens

_CALLER = "tracer_caller"
# Of calls without a good token, from one address: more are told to wait. Good tokens are not.
_STRANGERS_PER_SECOND, _STRANGERS_AT_ONCE = 1.0, 20.0


def caller_of(scope: Scope) -> Caller:
    """Who makes this call, as `Access` found. Raises KeyError where nothing guards the door."""
    caller: Caller = scope["state"][_CALLER]
    return caller


class Access:
    """Lets in who shows one of `tokens`, `rate` calls a second each and twice that at once."""

    def __init__(
        self, app: ASGIApp, *, tokens: Tokens, rate: float, clock: Clock, setting: str
    ) -> None:
        """`setting`: the variable that holds tokens, named to who has none."""
        self._app = app
        self._tokens = tokens
        self._setting = setting
        self._known = RateLimiter(clock, rate, max(1.0, 2 * rate))
        self._strangers = RateLimiter(clock, _STRANGERS_PER_SECOND, _STRANGERS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # nothing here speaks anything else
        if not self._tokens:
            if not is_loopback(name_of(header(scope, b"host"))):
                why = "without a token only calls to localhost are answered"
                await refuse(send, 403, why, f"call by the name localhost, or set {self._setting}")
                return
            await self._let_in(LOCAL, scope, receive, send)
            return
        caller = self._tokens.caller(header(scope, b"authorization"))
        if caller is None:
            await self._stranger(scope, send)
            return
        wait = self._known.take(caller.name, rate=caller.rate)
        if wait:
            await _too_often(send, wait)
            return
        await self._let_in(caller, scope, receive, send)

    async def _let_in(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        state = {**scope.get("state", {}), _CALLER: caller}
        await self._app({**scope, "state": state}, receive, send)

    async def _stranger(self, scope: Scope, send: Send) -> None:
        wait = self._strangers.take(address_key(address_of(scope)))
        if wait:
            await _too_often(send, wait)
            return
        why, fix = "no token, or not the right one", "send Authorization: Bearer <token>"
        await refuse(send, 401, why, fix, [(b"www-authenticate", b"Bearer")])


async def _too_often(send: Send, wait: float) -> None:
    again = str(max(1, math.ceil(wait)))
    await refuse(
        send, 429, "too many calls", f"wait {again} s, as Retry-After says",
        [(b"retry-after", again.encode())],
    )  # fmt: skip


def protect(
    app: ASGIApp,
    *,
    tokens: Tokens,
    clock: Clock,
    setting: str,
    rate: float,
    max_body: int,
    csp: str = NO_PAGES,
) -> ASGIApp:
    """`app` behind all of it: headers on every answer, then tokens and rates, then the body."""
    limited = BodyLimit(app, most=max_body)
    access = Access(limited, tokens=tokens, rate=rate, clock=clock, setting=setting)
    return SecurityHeaders(access, csp=csp)
