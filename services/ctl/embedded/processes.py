"""Child processes of the demo: started, watched, and never left behind."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import services
from services.ctl.embedded.ports import LOOPBACK
from shared.clock import Clock, SystemClock

_ROOT = Path(services.__file__).resolve().parents[1]
_POLL_SECONDS = 0.05
_KILL_WAIT_SECONDS = 5.0
_TAIL_CHARS = 400


class ChildDied(RuntimeError):
    """A child ended that should be running; the message ends with the tail of its log."""


class ChildNotReady(RuntimeError):
    """A child runs but did not become ready in time."""


def run_module(name: str, *arguments: str) -> list[str]:
    """The command for a Python module that ends with its parent."""
    return [sys.executable, "-m", "services.ctl.embedded.guard", "module", name, *arguments]


def run_program(path: str, *arguments: str) -> list[str]:
    """The command for any other program that ends with its parent."""
    return [sys.executable, "-m", "services.ctl.embedded.guard", "program", path, *arguments]


class Child:
    """One process, its output appended to the file `log`.

    `environment` is added to this process's own. With a `health_port` the child is told to serve
    its health there (TRACER_HEALTH_PORT). The child has its own session, so that Ctrl-C reaches
    only this process, which then stops its children in order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        health_port: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.health_port = health_port
        self._command = list(command)
        self._environment = dict(environment or {})
        self._clock = clock or SystemClock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._started().pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; -n when it was killed by signal n."""
        return self._started().poll()

    def start(self) -> None:
        if self._process is not None and self.alive():
            raise RuntimeError(f"{self.name} is already running")
        environment = os.environ | self._environment
        paths = [str(_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        if self.health_port is not None:
            environment["TRACER_HEALTH_PORT"] = str(self.health_port)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_ready(self, timeout: float = 30.0) -> None:
        """Until /readyz says so. Raises ChildDied or ChildNotReady."""
        answer = "nothing listens yet"

        def ready() -> bool:
            nonlocal answer
            status, answer = _ask(self.health_port)
            return status == 200

        self.wait_until(ready, timeout, lambda: answer)

    def wait_until(
        self, condition: Callable[[], bool], timeout: float, why: Callable[[], str] = lambda: ""
    ) -> None:
        """Until `condition()`. Raises ChildDied, or ChildNotReady with `why()`."""
        deadline = self._clock.monotonic() + timeout
        while not condition():
            self.check()
            if self._clock.monotonic() > deadline:
                detail = f" ({why()})" if why() else ""
                raise ChildNotReady(
                    f"{self.name} is not ready after {timeout:g} s{detail}\n{self.tail()}"
                )
            self._clock.sleep(_POLL_SECONDS)

    def check(self) -> None:
        """Raises ChildDied unless it is running."""
        if not self.alive():
            raise ChildDied(f"{self.name} ended with exit code {self.exit_code}\n{self.tail()}")

    def terminate(self, grace: float = 10.0) -> int | None:
        """Ask it to stop, kill it after `grace` seconds; the exit code, None if never started."""
        if self._process is None:
            return None
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(grace)
            except subprocess.TimeoutExpired:
                self.kill()
        self._close()
        return self._process.returncode

    def kill(self) -> None:
        """End it and what it started, at once, as a crash would."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        os.killpg(process.pid, signal.SIGKILL)  # the session we gave it, so nobody else's
        process.wait(_KILL_WAIT_SECONDS)
        self._close()

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log, each cut to what a person reads."""
        if not self.log.exists():
            return ""
        with self.log.open(encoding="utf-8", errors="replace") as file:
            last = deque((line.rstrip()[:_TAIL_CHARS] for line in file), maxlen=lines)
        return "\n".join(last)

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()


class Fleet:
    """Children stopped together, the last started first, whatever ended the `with` block."""

    def __init__(self, *, grace: float = 10.0) -> None:
        self.children: list[Child] = []
        self._grace = grace

    def start(self, child: Child) -> Child:
        self.children.append(child)
        child.start()
        return child

    def check(self) -> None:
        """Raises ChildDied, with the end of its log, when a child is no longer running."""
        for child in self.children:
            child.check()

    def stop(self) -> None:
        """A second Ctrl-C meanwhile kills what is left and is raised again."""
        try:
            while self.children:
                self.children[-1].terminate(self._grace)
                self.children.pop()
        finally:
            for child in reversed(self.children):
                child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _ask(port: int | None) -> tuple[int, str]:
    """Status and text of /readyz; status 0 when there is no answer."""
    if port is None:
        raise ValueError("the child has no health port")
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error)
    finally:
        connection.close()
