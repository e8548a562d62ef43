"""What the clients of all providers have in common: a structured answer where the endpoint knows
how, words where it does not, and one fate for each way to fail."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from services.teacher.answers import (
    CHARGED,
    NOTHING,
    Answer,
    CannotAnswer,
    EndpointRefuses,
    PassingFault,
    fate,
    may_not_know_how,
)
from shared.clock import Clock
from shared.contracts.events import Input
from shared.contracts.prompting import answers_structured
from shared.contracts.tasks import Task

log = logging.getLogger(__name__)

# The HTTP library's timeouts before a question was sent; the clients wrap them with all others.
_NEVER_SENT = ("ConnectTimeout", "PoolTimeout", "WriteTimeout")


class AskAgain(Exception):
    """Refused for how it was asked, which has been changed from now on."""


@dataclass(frozen=True, slots=True)
class Faults:
    """A client library's exceptions. `timeout` is a `connection` fault; `status` has the attributes
    `status_code`, `response` and `message`."""

    timeout: type[Exception]
    connection: type[Exception]
    status: type[Exception]


class Endpoint(ABC):
    """Implements `Teaches` over a provider's client, whose own retries are off: `retries.py` has
    the only policy. `structure`: what its structured answers are made by, for the log."""

    def __init__(
        self, *, url: str, secret: str, clock: Clock, faults: Faults, structure: str
    ) -> None:
        self._url = url
        self._secret = secret
        self._clock = clock
        self._faults = faults
        self._structure = structure
        self._in_words_only = False

    def __call__(self, task: Task, text: Input, *, timeout: float) -> Answer:
        """Raises PassingFault, EndpointRefuses or CannotAnswer."""
        by_structure = structured = answers_structured(task) and not self._in_words_only
        deadline = self._clock.monotonic() + timeout
        refused = 0  # calls, for how they asked
        while True:
            left = deadline - self._clock.monotonic()
            try:
                answer = self._answer(task, text, left, structured)
                break
            except AskAgain:
                pass
            except self._faults.status as error:
                fault = self._fate(error)
                if not isinstance(fault, CannotAnswer) or not (
                    structured and may_not_know_how(_status(error))
                ):
                    fault.used = fault.used.after(refused)
                    raise fault from error
                structured = False
            except (PassingFault, CannotAnswer) as fault:
                fault.used = fault.used.after(refused)
                raise
            refused += 1
        if structured is not by_structure:
            log.warning("%s does not answer by %s: asking in words", self._url, self._structure)
            self._in_words_only = True
        return replace(answer, calls=1 + refused)

    def probe(self, *, timeout: float) -> None:
        """Whether the endpoint is there and lets us in. Raises PassingFault or EndpointRefuses."""
        try:
            with self._reaching(timeout):
                self._list_models(timeout)
        except self._faults.status as error:
            found = self._fate(error)
            # Not every endpoint lists its models; any other answer shows that it is there.
            if not isinstance(found, CannotAnswer):
                raise found from error

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def _ask(self, task: Task, text: Input, timeout: float, structured: bool) -> bytes:
        """The body of the answer. Raises AskAgain, or the library's faults."""

    @abstractmethod
    def _read(self, body: bytes, structured: bool) -> Answer:
        """Raises PassingFault or CannotAnswer."""

    @abstractmethod
    def _list_models(self, timeout: float) -> None: ...

    def _answer(self, task: Task, text: Input, timeout: float, structured: bool) -> Answer:
        """Raises PassingFault, CannotAnswer, AskAgain, or the library's status fault."""
        if timeout <= 0:
            raise PassingFault("no time left to ask once more")
        with self._reaching(timeout):
            body = self._ask(task, text, timeout, structured)
        return self._read(body, structured)

    @contextmanager
    def _reaching(self, timeout: float) -> Iterator[None]:
        """Raises PassingFault where there is no answer at all."""
        try:
            yield
        except (TimeoutError, self._faults.connection) as error:
            cause = error.__cause__
            # Some libraries hand on what is raised below them, some wrap it.
            overdue = isinstance(error, TimeoutError) or isinstance(cause, TimeoutError)
            if not overdue and not isinstance(error, self._faults.timeout):
                raise PassingFault(f"no connection to {self._url}") from error
            used = NOTHING if type(cause).__name__ in _NEVER_SENT else CHARGED
            raise PassingFault(f"no answer within {timeout:.1f} s", used=used) from error

    def _fate(self, error: Any) -> PassingFault | EndpointRefuses | CannotAnswer:
        return fate(
            _status(error),
            error.response.headers,
            str(error.message),
            url=self._url,
            secret=self._secret,
            now=self._clock.now(),
        )


def _status(error: Any) -> int:
    return int(error.status_code)
