"""A shared store that may be away, with this process's own memory behind it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shared.clock import Clock
from shared.seen.base import Seen, SeenKey, SeenUnavailable
from shared.telemetry.metrics import SEEN_STORE_AWAY

log = logging.getLogger(__name__)


class FallbackSeen:
    """Asks memory first and the shared store for the rest; without the store, memory alone.

    Never raises SeenUnavailable. One warning tells when the store goes, one line when it is back;
    between the two it is tried again every `retry_seconds`, so that batches do not wait for it.
    What is added meanwhile is known to this process only.
    """

    def __init__(
        self, store: Seen, memory: Seen, *, clock: Clock, retry_seconds: float = 5.0
    ) -> None:
        self._store = store
        self._memory = memory
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._retry_at: float | None = None  # None while the store answers
        SEEN_STORE_AWAY.set(0)

    async def contains(self, keys: Sequence[SeenKey]) -> list[bool]:
        found = await self._memory.contains(keys)
        unknown = [index for index, known in enumerate(found) if not known]
        if not unknown or self._resting():
            return found
        try:
            answers = await self._store.contains([keys[index] for index in unknown])
        except SeenUnavailable as error:
            self._away(error)
            return found
        self._back()
        for index, known in zip(unknown, answers, strict=True):
            found[index] = known
        return found

    async def add(self, keys: Sequence[SeenKey]) -> None:
        await self._memory.add(keys)
        if self._resting():
            return
        try:
            await self._store.add(keys)
        except SeenUnavailable as error:
            self._away(error)
        else:
            self._back()

    async def close(self) -> None:
        await self._memory.close()
        await self._store.close()

    def _resting(self) -> bool:
        return self._retry_at is not None and self._clock.monotonic() < self._retry_at

    def _away(self, error: SeenUnavailable) -> None:
        if self._retry_at is None:
            log.warning("%s: repeats are known to this process only until it is back", error)
            SEEN_STORE_AWAY.set(1)
        self._retry_at = self._clock.monotonic() + self._retry_seconds

    def _back(self) -> None:
        if self._retry_at is not None:
            log.info("the store of seen ids answers again")
            SEEN_STORE_AWAY.set(0)
            self._retry_at = None
