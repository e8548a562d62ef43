"""What `models` has said, kept in memory: each console reads the topic once and follows it."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from shared.bus.base import Message
from shared.bus.errors import Fatal, Retryable
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import ModelAnnouncement

log = logging.getLogger(__name__)

KEPT_PER_TASK = 1_000
BATCH = 500
POLL_SECONDS = 0.25
RETRY_SECONDS = 2.0


class Reading(Protocol):
    """What `shared.bus.kafka_tail.Tail` does."""

    def poll(self, max_messages: int, timeout: float) -> list[Message]: ...

    def caught_up(self) -> bool: ...

    def close(self) -> None: ...


@dataclass
class Announcements:
    """By task, newest first. `follow` runs in a thread of its own; the rest may be asked anywhere.

    With the broker away pages go on with what is known, and say so.
    """

    open: Callable[[], Reading]
    trouble: str | None = "the announcements on `models` are still being read"
    _by_task: dict[str, deque[ModelAnnouncement]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT_PER_TASK))
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, task: str, limit: int = KEPT_PER_TASK) -> list[ModelAnnouncement]:
        with self._lock:
            return list(self._by_task[task])[:limit] if task in self._by_task else []

    def follow(self, stop: threading.Event) -> None:
        """Until `stop` is set, whatever the broker does. After a fault it reads from the start."""
        while not stop.is_set():
            try:
                self._read(stop)
            except (Retryable, Fatal) as error:
                self.trouble = f"the announcements on `models` cannot be read: {error}"
                log.warning("%s", self.trouble)
                stop.wait(RETRY_SECONDS)

    def _read(self, stop: threading.Event) -> None:
        tail = self.open()
        try:
            with self._lock:
                self._by_task.clear()
            while not stop.is_set():
                for message in tail.poll(BATCH, POLL_SECONDS):
                    self._take(message)
                if tail.caught_up():
                    self.trouble = None
        finally:
            tail.close()

    def _take(self, message: Message) -> None:
        try:
            announcement = decode(message.value, ModelAnnouncement)
        except InvalidEvent as error:  # of a newer release
            log.debug("an announcement was passed over: %s", error)
            return
        with self._lock:
            self._by_task[announcement.task].appendleft(announcement)
