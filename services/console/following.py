"""Following a topic from its beginning in a thread of its own, whatever the broker does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from shared.bus.base import Message
from shared.bus.errors import Fatal, Retryable

log = logging.getLogger(__name__)

BATCH = 500
POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0


class Reading(Protocol):
    """What `shared.bus.kafka_tail.Tail` does."""

    def poll(self, max_messages: int, timeout: float) -> list[Message]: ...

    def caught_up(self) -> bool: ...

    def close(self) -> None: ...


class View(Protocol):
    """What is made of a topic. `trouble`: why it may lack something, None once it has it all."""

    trouble: str | None

    def clear(self) -> None:
        """Everything comes again from the beginning."""
        ...

    def take(self, message: Message) -> None: ...


def follow(view: View, open: Callable[[], Reading], what: str, stop: threading.Event) -> None:
    """Until `stop` is set. After a fault it reads from the start. `what`: named in the trouble."""
    while not stop.is_set():
        try:
            _read(view, open, stop)
        except (Retryable, Fatal) as error:
            view.trouble = f"{what} cannot be read: {error}"
            log.warning("%s", view.trouble)
            stop.wait(RETRY_SECONDS)


def _read(view: View, open: Callable[[], Reading], stop: threading.Event) -> None:
    tail = open()
    try:
        view.clear()
        while not stop.is_set():
            for message in tail.poll(BATCH, POLL_SECONDS):
                view.take(message)
            if tail.caught_up():
                view.trouble = None
    finally:
        tail.close()
