"""Keeps the libraries' logs readable: aiokafka says some thirty times a second that a broker is
away."""

from __future__ import annotations

import logging

from shared.clock import Clock

_MOST_KEYS = 1_000


class Sparingly(logging.Filter):
    """Lets each message of the named libraries through once in `seconds`, all others always.

    For handlers: a logger's own filter does not see what its children log.
    """

    def __init__(self, libraries: tuple[str, ...], *, seconds: float, clock: Clock) -> None:
        super().__init__()
        self._libraries = libraries
        self._seconds = seconds
        self._clock = clock
        self._next: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.split(".")[0] not in self._libraries:
            return True
        now = self._clock.monotonic()
        key = (record.name, str(record.msg)[:80])
        if now < self._next.get(key, now):
            return False
        if len(self._next) >= _MOST_KEYS:
            self._next.clear()
        self._next[key] = now + self._seconds
        return True


def quieten(libraries: tuple[str, ...], *, clock: Clock, seconds: float = 30.0) -> None:
    """Only warnings of the libraries, and each of them rarely; after logging is set up."""
    for name in libraries:
        logging.getLogger(name).setLevel(logging.WARNING)
    sparingly = Sparingly(libraries, seconds=seconds, clock=clock)
    for handler in logging.getLogger().handlers:
        handler.addFilter(sparingly)
