"""What was seen lately, so that a repeat can be dropped."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NewType, Protocol

SeenKey = NewType("SeenKey", bytes)


class SeenUnavailable(Exception):
    """The store cannot be reached now; try again later."""


class Seen(Protocol):
    """A set that forgets: a key added is contained for the store's horizon, then no more.

    A store bounded in size may forget its oldest keys sooner: a repeat may then pass, but what
    was never added is never contained. Every method raises SeenUnavailable when the store is away.
    """

    async def contains(self, keys: Sequence[SeenKey]) -> list[bool]:
        """For each key, in order, whether it was added within the horizon."""
        ...

    async def add(self, keys: Sequence[SeenKey]) -> None:
        """Remember the keys from now on; a key added again lives a full horizon again."""
        ...

    async def close(self) -> None: ...


def seen_key(*parts: str) -> SeenKey:
    """A key of 16 bytes for what `parts` name together, however long they are."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))  # so that ("a", "bc") is not ("ab", "c")
        digest.update(data)
    return SeenKey(digest.digest())
