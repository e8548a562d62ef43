"""Keys seen lately, in this process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from shared.clock import Clock
from shared.seen.base import SeenKey


class MemorySeen:
    """Bounded in time (`horizon_seconds`) and in size (`max_keys`, about 200 bytes each)."""

    def __init__(self, clock: Clock, *, horizon_seconds: float, max_keys: int = 1_000_000) -> None:
        if horizon_seconds <= 0 or max_keys < 1:
            raise ValueError("horizon_seconds and max_keys must be positive")
        self._clock = clock
        self._horizon = horizon_seconds
        self._max_keys = max_keys
        self._expiry: OrderedDict[SeenKey, float] = OrderedDict()  # the next to expire comes first

    def __len__(self) -> int:
        return len(self._expiry)

    async def contains(self, keys: Sequence[SeenKey]) -> list[bool]:
        self._forget()
        return [key in self._expiry for key in keys]

    async def add(self, keys: Sequence[SeenKey]) -> None:
        expiry = self._clock.monotonic() + self._horizon
        for key in keys:
            self._expiry[key] = expiry
            self._expiry.move_to_end(key)
        self._forget()

    async def close(self) -> None:
        self._expiry.clear()

    def _forget(self) -> None:
        now = self._clock.monotonic()
        while self._expiry:
            key, expiry = next(iter(self._expiry.items()))
            if expiry > now and len(self._expiry) <= self._max_keys:
                return
            del self._expiry[key]
