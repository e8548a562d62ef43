"""When a call that failed is made again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from services.teacher.answers import PassingFault
from shared.clock import Clock

T = TypeVar("T")

# Waits, returning True when told to stop meanwhile (threading.Event.wait).
Wait = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Policy:
    """Exponential backoff with full jitter: up to `first_seconds`, then twice that, and so on."""

    max_attempts: int
    first_seconds: float = 0.5
    longest_seconds: float = 30.0

    def pause(self, attempt: int, fault: PassingFault, chance: random.Random) -> float:
        """Seconds to wait after the failed `attempt` (1 is the first).

        What the endpoint asks for is obeyed, with a little jitter on top, so that the calls it
        turned away together do not return together.
        """
        ceiling = min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1))
        if fault.retry_after is not None:
            return fault.retry_after + chance.uniform(0, self.first_seconds)
        return chance.uniform(0, ceiling)


class CutShort(PassingFault):
    """The time was up before a call was made, or had all of its own."""


class Interrupted(Exception):
    """Told to stop while waiting for another attempt."""


def with_retries(
    call: Callable[[float], T],
    *,
    policy: Policy,
    deadline: float,
    timeout: float,
    clock: Clock,
    chance: random.Random,
    wait: Wait,
) -> T:
    """`call(timeout)` until it returns or raises something else than PassingFault.

    Raises the last PassingFault when the attempts or the time are used up: no attempt begins
    after `deadline` (on `clock.monotonic()`), nor may one last beyond it; CutShort where the last
    had less than `timeout` for that. Raises Interrupted.
    """
    attempt = 0
    while True:
        attempt += 1
        left = deadline - clock.monotonic()
        try:
            if left <= 0:
                raise CutShort("no time left in this batch")
            return call(min(timeout, left))
        except PassingFault as fault:
            pause = policy.pause(attempt, fault, chance)
            if attempt >= policy.max_attempts or pause >= deadline - clock.monotonic():
                if left < timeout:
                    raise CutShort(str(fault), retry_after=fault.retry_after) from fault
                raise
        if wait(pause):
            raise Interrupted
