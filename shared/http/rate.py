"""A token bucket per key, in bounded memory."""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from shared.clock import Clock

MAX_KEYS = 10_000


@dataclass
class RateLimiter:
    """`rate` calls a second for each key, and `burst` at once.

    The key that was used longest ago is forgotten when there are `max_keys`; that one's bucket is
    full again, so who has more names than that is limited no more. Safe between threads.
    """

    clock: Clock
    rate: float
    burst: float
    max_keys: int = MAX_KEYS
    _buckets: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.burst < 1 or self.max_keys < 1:
            raise ValueError("a rate limit needs rate > 0, burst >= 1 and max_keys >= 1")

    def take(self, key: str, *, rate: float | None = None) -> float:
        """0 when the call may go on; otherwise the seconds until one may.

        `rate`: the key's own, with a burst in the same proportion.
        """
        rate, burst = (rate or self.rate), self.burst
        if rate != self.rate:
            burst = max(1.0, self.burst * rate / self.rate)
        now = self.clock.monotonic()
        with self._lock:
            left, then = self._buckets.pop(key, (burst, now))
            left = min(burst, left + max(0.0, now - then) * rate)
            wait = 0.0 if left >= 1 else (1 - left) / rate
            self._buckets[key] = (left - 1 if wait == 0 else left, now)
            if len(self._buckets) > self.max_keys:
                self._buckets.popitem(last=False)
        return wait


def address_key(address: str) -> str:
    """One key a client: an IPv4 address, of IPv6 the /64 that one client commonly has whole."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        return str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return address
