"""A service's wall clock jumps when its file says so, and its monotonic clock does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.clocks import WallClock

_SERVICE = """
import sys, time
from shared.clock import SystemClock
for _ in sys.stdin:
    print(SystemClock().now().timestamp(), time.time(), time.monotonic(), flush=True)
"""


def test_it_jumps_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "pretended_service.py").write_text(_SERVICE)
    clock = WallClock(tmp_path / "clock")
    paths = os.pathsep.join([str(tmp_path), os.getcwd()])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.clocks", "pretended_service"],
        env=os.environ | clock.environment | {"PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def off() -> tuple[float, ...]:
        time.sleep(0.3)
        print(file=process.stdin, flush=True)
        ours, theirs, monotonic = map(float, process.stdout.readline().split())
        return ours - time.time(), theirs - time.time(), monotonic - time.monotonic()

    try:
        for offset in (0.0, -7200.0, 60.0, 0.0):
            clock.set(offset)
            ours, theirs, monotonic = off()
            assert abs(ours - offset) < 2
            assert abs(theirs - offset) < 2
            assert abs(monotonic) < 2
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
