"""Ports for a system of many processes: none is given out twice."""

from __future__ import annotations

from services.ctl.embedded.ports import LOOPBACK, free_port

__all__ = ["LOOPBACK", "fresh_port"]

_given: set[int] = set()


def fresh_port() -> int:
    """A free port that this process has not been given before, bound or not."""
    while (port := free_port()) in _given:
        pass
    _given.add(port)
    return port
