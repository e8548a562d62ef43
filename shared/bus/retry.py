"""Waiting longer after each failure, with jitter, so that instances don't come back in step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait: `first`, doubling up to `longest`, each shortened by up to a half."""

    first: float = 0.1
    longest: float = 30.0
    jitter: Callable[[], float] = random.random

    def pauses(self) -> Iterator[float]:
        """An endless series; start a new one after a success."""
        pause = self.first
        while True:
            yield pause * (1.0 - self.jitter() / 2)
            pause = min(2 * pause, self.longest)
