"""Bearer tokens: who calls, and which tasks they see.

Tokens are random and long, so that one SHA-256 is enough to keep them by.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from shared.contracts.events import TaskName
from shared.http.loopback import is_loopback

SHORTEST_TOKEN = 16
_MARK_CHARS = 16


@dataclass(frozen=True, slots=True)
class Caller:
    """Who shows a token. `tasks`: the only ones they may see and use; None: all.
    `rate`: calls a second of their own, None: the door's. `read_only`: may look and change
    nothing."""

    name: str
    tasks: frozenset[str] | None = None
    rate: float | None = None
    read_only: bool = False

    def may_use(self, task: str) -> bool:
        return self.tasks is None or task in self.tasks


# Who calls a door that asks for no token, because only this machine can reach it.
LOCAL = Caller("local")


class InvalidTokens(ValueError):
    """A list of tokens that cannot be used. The message never holds a token."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")]
    token: str | None = None
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")] | None = None
    tasks: list[TaskName] | None = None
    rate: Annotated[float, Meta(gt=0)] | None = None
    read_only: bool = False


class Tokens:
    """Whose token is whose; holds digests only."""

    def __init__(self, callers: Iterable[tuple[bytes, Caller]] = ()) -> None:
        """`callers`: SHA-256 of a token, and who shows it."""
        self._callers = list(callers)

    def __bool__(self) -> bool:
        return bool(self._callers)

    def __repr__(self) -> str:
        return f"Tokens({', '.join(caller.name for _, caller in self._callers)})"

    def joined(self, other: Tokens) -> Tokens:
        """These and `other`'s. Raises InvalidTokens where two share a name or a token: a caller is
        known by either, to sessions and limits by the name."""
        digests = {digest for digest, _ in self._callers}
        names = {caller.name for _, caller in self._callers}
        for digest, caller in other._callers:
            if digest in digests or caller.name in names:
                raise InvalidTokens(
                    f"the list of tokens has an entry {caller.name!r}, whose name or token is the "
                    "single token's (its name is 'token'): rename it, or leave one of them out"
                )
        return Tokens([*self._callers, *other._callers])

    def marked(self, name: str, mark: str) -> Caller | None:
        """Who is called so and has the token of that `mark_of`; None: nobody any more."""
        return next(
            (caller for digest, caller in self._callers
             if caller.name == name and _mark(digest) == mark),
            None,
        )  # fmt: skip

    def caller(self, authorization: str) -> Caller | None:
        """Whose token an `Authorization` header shows; None: nobody's.

        All are compared, each in constant time, so that the time says nothing of any.
        """
        scheme, _, shown = authorization.partition(" ")
        digest = digest_of(shown.strip())
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(digest, known):
                found = caller
        return found if scheme.lower() == "bearer" else None


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def mark_of(token: str) -> str:
    """Tells it from the token that comes after it, and is of no use in its place."""
    return _mark(digest_of(token))


def one_token(token: str, setting: str) -> Tokens:
    """A token that is good for all tasks; none when it is empty. Raises InvalidTokens."""
    if not token:
        return Tokens()
    if len(token) < SHORTEST_TOKEN:
        raise InvalidTokens(f"{setting} has less than {SHORTEST_TOKEN} characters")
    return Tokens([(digest_of(token), Caller("token"))])


def read_tokens(text: str, setting: str) -> Tokens:
    """Tokens of a JSON list of `{"name", "token" or "sha256", "tasks", "rate",
    "read_only"}`.

    `tasks` left out: all. Raises InvalidTokens, which names `setting` and what to mend.
    """
    try:
        entries = msgspec.json.decode(text, type=list[_Entry])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidTokens(
            f'{setting}: {error}; give [{{"name": "acme", "token": "…", "tasks": ["support"]}}]'
        ) from error
    callers = []
    for entry in entries:
        if (entry.token is None) == (entry.sha256 is None):
            raise InvalidTokens(f"{setting}: {entry.name} needs a token or a sha256, not both")
        if entry.token is not None and len(entry.token) < SHORTEST_TOKEN:
            raise InvalidTokens(
                f"{setting}: the token of {entry.name} has less than {SHORTEST_TOKEN} characters"
            )
        digest = bytes.fromhex(entry.sha256) if entry.sha256 else digest_of(entry.token or "")
        tasks = None if entry.tasks is None else frozenset(entry.tasks)
        callers.append((digest, Caller(entry.name, tasks, entry.rate, entry.read_only)))
    names = [caller.name for _, caller in callers]
    if len({digest for digest, _ in callers}) < len(callers) or len(set(names)) < len(names):
        raise InvalidTokens(f"{setting}: two entries share a name or a token")
    return Tokens(callers)


def _mark(digest: bytes) -> str:
    return digest.hex()[:_MARK_CHARS]


def check_not_open(host: str, tokens: Tokens | str, *, host_setting: str, fix: str) -> None:
    """Raises ValueError when a door on `host` would answer others than this machine unasked.

    `tokens`: what callers must show, empty: nothing. `fix` says what to set.
    """
    if not tokens and not is_loopback(host):
        raise ValueError(f"{host_setting}={host} can be reached by others: {fix}")
