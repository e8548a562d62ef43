"""Clocks of services that jump, by libfaketime where it is installed (Debian: `libfaketime`).

Only the wall clock jumps, as an operator or a bad time server makes it; monotonic time goes on.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path

_PLACES = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)


def library() -> str | None:
    """The library's path, None where it is not installed."""
    found = [path for place in _PLACES for path in sorted(glob.glob(place))]
    return found[0] if found else None


class WallClock:
    """The wall clock of one service. `environment` is for the service's process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = library()
        self.set(0.0)

    @property
    def environment(self) -> dict[str, str]:
        if self._library is None:
            return {}
        return {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, offset: float) -> None:
        """`offset` seconds from the true time, seen by the service within a second."""
        part = self._file.with_suffix(".part")
        part.write_text(f"{offset:+.1f}s\n")
        os.replace(part, self._file)
