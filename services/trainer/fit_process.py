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
from typing import TYPE_CHECKING

from services.trainer.examination import Examination, Examine, FitFailed
from shared.bus.errors import Retryable
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.registry.base import Artifact
from shared.telemetry.log import configure_logging

if TYPE_CHECKING:
    from services.trainer.reporting import Outcome

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 1.0
START_SECONDS = 600.0
Make = Callable[[], Examine]


class FitProcess:
    """An `Examine` whose work another process does. `make` builds the one that does it, there;
    it is pickled, so it must be a function of a module or made of such."""

    def __init__(self, make: Make, *, log_level: str = "INFO") -> None:
        self._make = make
        self._log_level = log_level
        self._child: tuple[BaseProcess, Connection] | None = None
        self._ready = False
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
        """Within the task's budget, or FitFailed is raised. A process that has not answered is
        ended, whatever the cause: its answer would pass for that to the next question."""
        if self._closed:
            raise Retryable("the trainer is stopping")
        process, connection = self._living() or self._start()
        try:
            self._wait_until_ready(connection)
            connection.send((what, arguments))
            if not connection.poll(task.fit_budget_s):
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
        except BaseException:
            self._end()
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, whatever it is doing; calls after this are put off for ever."""
        self._closed = True
        child = self._child
        if child is not None:  # its connection is the caller's, who may be waiting on it
            process, _ = child
            process.kill()
            process.join()

    def _living(self) -> tuple[BaseProcess, Connection] | None:
        """None where there is none: one that died between two fits has failed neither."""
        if self._child is not None and not self._child[0].is_alive():
            log.warning("the fits' process ended while idle, %s", _how(self._child[0].exitcode))
            self._end()
        return self._child

    def _end(self) -> None:
        child, self._child, self._ready = self._child, None, False
        if child is not None:
            process, connection = child
            process.kill()
            process.join()
            connection.close()

    def _wait_until_ready(self, connection: Connection) -> None:
        """Starting takes seconds of imports, which no task's budget has to pay for."""
        if self._ready:
            return
        if not connection.poll(START_SECONDS):
            raise Retryable(f"the fits' process was not ready within {START_SECONDS:g} seconds")
        outcome = connection.recv()
        if isinstance(outcome, Exception):
            raise outcome
        self._ready = True

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
        if self._closed:  # by another thread, meanwhile
            process.kill()
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
    try:
        examine = make()
        connection.send(None)
    except Exception as error:  # noqa: BLE001 - the parent is told, and may start another
        connection.send(_told(error))
        return
    while True:
        try:
            what, arguments = connection.recv()
        except EOFError:
            return
        answer: object
        try:
            answer = (examine.report if what == "report" else examine)(*arguments)
        except Exception as error:  # whatever one call raises, the next is answered
            log.exception("%s failed", what, extra={"task": arguments[0].name})
            answer = _told(error)
        connection.send(answer)


def _told(error: Exception) -> Exception:
    """What the parent is told: a text, since not every exception survives the way there."""
    text = f"{type(error).__name__}: {error}"
    return Retryable(text) if isinstance(error, OSError | Retryable) else FitFailed(text)


def _end_with(parent: int) -> None:
    """A fit whose parent was killed is nobody's."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)
