"""Questions to the process that carries the model: `shared.explain.worker`, a child of this one."""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from services.console.actions import Refused
from shared.explain.explanation import Explanation
from shared.explain.wire import Answered, Asked, Fault
from shared.registry.base import UnknownVersion

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "shared.explain.worker")
# The first question loads a model and embeds the traces; later ones take a fraction of a second.
ANSWER_SECONDS = 90.0
MAX_WAITING = 4
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_ENDING_SECONDS = 2.0


class NotExplained(Exception):
    """It cannot be explained here and now; the message says what is missing."""


class TooManyQuestions(Exception):
    """Others are being answered; ask again in a moment."""


class Explaining(Protocol):
    def ask(self, asked: Asked) -> Explanation:
        """Raises Refused for a question that is none, UnknownVersion, NotExplained where something
        is missing, or TooManyQuestions."""
        ...

    def close(self) -> None: ...


@dataclass
class ExplainingProcess:
    """Implements `Explaining`: one process, started by the first question and after it has ended,
    one question at a time. `environment` is added to this process's own."""

    command: Sequence[str] = WORKER
    environment: Mapping[str, str] = field(default_factory=dict)
    seconds: float = ANSWER_SECONDS
    _process: subprocess.Popen[bytes] | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _room: threading.Semaphore = field(
        default_factory=lambda: threading.BoundedSemaphore(MAX_WAITING)
    )

    def ask(self, asked: Asked) -> Explanation:
        with self._my_turn():
            line = self._told(msgspec.json.encode(asked) + b"\n")
        try:
            answered = msgspec.json.decode(line, type=Answered)
        except msgspec.DecodeError as error:
            raise NotExplained(f"the explaining process talks nonsense: {error}") from error
        match answered.fault:
            case Fault.QUESTION:
                raise Refused(answered.message)
            case Fault.VERSION:
                raise UnknownVersion(answered.message)
        if answered.found is None:
            raise NotExplained(answered.message)
        return answered.found

    def close(self) -> None:
        """Its stdin ends, and with it the process; one that goes on is killed."""
        self._end(_ENDING_SECONDS)

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Few wait, lest questions take all threads that make pages."""
        if not self._room.acquire(blocking=False):
            raise TooManyQuestions("other texts are being explained: ask again in a moment")
        try:
            with self._turn:
                yield
        finally:
            self._room.release()

    def _told(self, question: bytes) -> bytes:
        """The line it answers. A process that has ended, for want of questions, is begun anew."""
        for _ in range(2):
            process = self._running()
            try:
                assert process.stdin is not None
                process.stdin.write(question)
                process.stdin.flush()
                answer = self._line(process)
            except BrokenPipeError:
                answer = b""
            if answer:
                return answer
            self._end(_ENDING_SECONDS)
        raise NotExplained(
            "the explaining process ended before it answered: its log, beside the console's, says "
            "why"
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end(0.0)
            self._process = subprocess.Popen(
                list(self.command),
                env=os.environ | dict(self.environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the console, which then ends it
            )
            log.info("explaining process started", extra={"pid": self._process.pid})
        return self._process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        """Empty where the process ended. Raises NotExplained when it takes too long."""
        assert process.stdout is not None
        out, line, until = process.stdout.fileno(), b"", time.monotonic() + self.seconds
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or len(line) > MAX_ANSWER_BYTES:
                self._end(0.0)
                raise NotExplained(f"there was no answer within {self.seconds:.0f} s")
            if select.select([out], [], [], left)[0]:
                read = os.read(out, 65_536)
                if not read:
                    return b""
                line += read
        return line

    def _end(self, grace: float) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
