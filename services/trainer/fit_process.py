"""Refits compute in a process of their own: whatever one does, the trainer goes on polling.

A thread would share the interpreter's lock and the memory: a fit that holds the one for minutes
costs the consumer its partitions, one that fills the other takes the trainer with it. The process
is kept from fit to fit, for the libraries it has loaded, and ended when one takes too long.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from services.trainer.examine import Examination, Examine, FitFailed
from services.trainer.reporting import Outcome
from shared.bus.errors import Retryable
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.registry.base import Artifact
from shared.telemetry.log import configure_logging

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 1.0
Make = Callable[[], Examine]


class FitProcess:
    """An `Examine` whose work another process does. `make` builds the one that does it, there;
    it is pickled, so it must be a function of a module or made of such."""

    def __init__(self, make: Make, *, log_level: str = "INFO") -> None:
        self._make = make
        self._log_level = log_level
        self._child: tuple[BaseProcess, Connection] | None = None
        self._closed = False

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        found = self._ask("examine", task, (task, day, incumbent))
        assert isinstance(found, Examination)
        return found

    def report(self, task: Task, day: date, outcome: Outcome) -> Report:
        report = self._ask("report", task, (task, day, outcome))
        assert isinstance(report, Report)
        return report

    def _ask(self, what: str, task: Task, arguments: tuple[object, ...]) -> object:
        """Within the task's budget, or the process is ended and FitFailed raised."""
        if self._closed:
            raise Retryable("the trainer is stopping")
        process, connection = self._child or self._start()
        try:
            connection.send((what, arguments))
            if not connection.poll(task.fit_budget_s):
                self._end()
                raise FitFailed(
                    f"it took longer than fit_budget_s = {task.fit_budget_s:g} seconds and was "
                    "ended: raise that, or lower max_rows"
                )
            answer = connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            if self._closed:  # by us: nothing failed, the next start fits again
                raise Retryable("the trainer is stopping") from None
            process.join(1.0)
            code = process.exitcode
            self._end()
            raise FitFailed(f"its process ended, {_how(code)}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing; calls after this are put off for ever."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            process, connection = child
            process.kill()
            process.join()
            connection.close()

    def _start(self) -> tuple[BaseProcess, Connection]:
        # Not forked: the parent has Kafka's and ONNX Runtime's threads, which a fork would lose.
        context = mp.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_serve, args=(theirs, self._make, self._log_level, os.getpid()), name="fit"
        )
        process.start()
        theirs.close()
        self._child = process, ours
        return self._child


def _how(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL: out of memory? lower max_rows"
    return f"killed by {signal.Signals(-code).name}"


def _serve(connection: Connection, make: Make, log_level: str, parent: int) -> None:
    """Answer one call after the other, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to decide about
    configure_logging("trainer", log_level)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    examine: Examine | None = None
    while True:
        try:
            what, arguments = connection.recv()
        except EOFError:
            return
        answer: object
        try:
            examine = examine or make()
            answer = (examine.report if what == "report" else examine)(*arguments)
        except (OSError, Retryable) as error:
            answer = Retryable(f"{type(error).__name__}: {error}")
        except Exception as error:  # what it was the parent is told; the next call is answered
            log.exception("%s failed", what, extra={"task": arguments[0].name})
            answer = FitFailed(f"{type(error).__name__}: {error}")
        connection.send(answer)


def _end_with(parent: int) -> None:
    """A fit whose parent was killed is nobody's."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)
