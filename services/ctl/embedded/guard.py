"""Runs a module or a program so that it ends when its parent does, however that ends.

    python -m services.ctl.embedded.guard module services.router.main
    python -m services.ctl.embedded.guard program /usr/bin/redis-server --port 7000

The parent holds the other end of standard input and never writes to it: end of file means that it
is gone. Unlike PR_SET_PDEATHSIG this works on every Unix, and for a parent with threads.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

GRACE_SECONDS = 10.0


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2 or arguments[0] not in ("module", "program"):
        print("usage: guard (module NAME | program PATH) [ARGUMENT ...]", file=sys.stderr)
        return 2
    kind, target, *rest = arguments
    if kind == "program":
        return _run_program([target, *rest])
    _when_parent_is_gone(_end_this_process)
    sys.argv = [target, *rest]
    runpy.run_module(target, run_name="__main__", alter_sys=True)
    return 0


def _run_program(command: list[str]) -> int:
    process: subprocess.Popen[bytes] | None = None
    asked = False

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        if process is not None:
            process.terminate()

    # Installed first: a signal between start and handler would orphan the program.
    signal.signal(signal.SIGTERM, terminate)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    if asked:
        process.terminate()
    _when_parent_is_gone(lambda: _end(process))
    code = process.wait()
    return 128 - code if code < 0 else code  # killed by signal n: 128 + n, as shells say it


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _end_this_process() -> None:
    # SIGTERM first, so that the service drains; an own timer in case it does not.
    timer = threading.Timer(GRACE_SECONDS, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
    os.kill(os.getpid(), signal.SIGTERM)


def _when_parent_is_gone(then: Callable[[], None]) -> None:
    def watch() -> None:
        while os.read(0, 1024):
            pass
        then()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
