"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections: between the moment a
# port is found free and the moment it is bound, none of those can take it.
FIRST, LAST = 15_000, 30_000
ATTEMPTS = 100


def free_port() -> int:
    """A TCP port nobody listened on a moment ago. Raises OSError where none is found."""
    chosen = random.SystemRandom()
    for _ in range(ATTEMPTS):
        port = chosen.randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {FIRST} and {LAST}")
