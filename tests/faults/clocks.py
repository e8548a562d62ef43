"""Wall clocks of services that jump.

    python -m tests.faults.clocks services.router.main

runs a service whose wall clock is off by what a file says: `SystemClock`, the only one that our
code asks, and Python's `time.time`, which libraries ask. Monotonic time goes on, as it does when an
operator or a bad time server sets a clock. The clock inside librdkafka stays true. (libfaketime
would reach it, but makes `time.sleep` fail in processes with threads.)
"""

from __future__ import annotations

import faulthandler
import os
import runpy
import signal
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

from shared.clock import SystemClock

FILE = "TRACER_FAULTS_CLOCK"
_LOOK_SECONDS = 0.2


class WallClock:
    """The wall clock of one service, from outside. `environment` is for the service's process."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0.0)

    @property
    def environment(self) -> dict[str, str]:
        return {FILE: str(self._file)}

    def set(self, offset: float) -> None:
        """`offset` seconds from the true time, seen by the service within 0.2 s."""
        part = self._file.with_suffix(".part")
        part.write_text(str(offset))
        os.replace(part, self._file)


class Offset:
    """What the file says now."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._value = 0.0
        self._looked = float("-inf")

    def __call__(self) -> float:
        now = time.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._value = float(self._file.read_text())
        return self._value


def shift(offset: Offset) -> None:
    """From now on this process's wall clock is off by `offset()`."""
    true_time, true_now = time.time, SystemClock.now

    def now(self: SystemClock) -> datetime:
        return true_now(self) + timedelta(seconds=offset())

    time.time = lambda: true_time() + offset()
    SystemClock.now = now  # type: ignore[method-assign]


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)  # asked where it is stuck, it says so in its log
    shift(Offset(Path(os.environ[FILE])))
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
