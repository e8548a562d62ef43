"""Ports for a system of many processes: none is given out twice, and none from the range that
other tests on this machine take theirs from."""

from __future__ import annotations

import random
import socket

from services.ctl.embedded.ports import LOOPBACK

__all__ = ["LOOPBACK", "fresh_port"]

_FIRST, _LAST = 10_000, 14_999
_chosen = random.SystemRandom().sample(range(_FIRST, _LAST + 1), _LAST - _FIRST + 1)


def fresh_port() -> int:
    """A free port that this process has not been given before, bound or not. Raises OSError when
    there is none left."""
    while _chosen:
        port = _chosen.pop()
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")
