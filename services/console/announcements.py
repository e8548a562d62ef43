"""What `models` has said, kept in memory: each console reads the topic once and follows it."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field

from shared.bus.base import Message
from shared.contracts.codec import InvalidEvent, decode
from shared.contracts.events import ModelAnnouncement

log = logging.getLogger(__name__)

KEPT_PER_TASK = 1_000


@dataclass
class Announcements:
    """By task, newest first. `following.follow` fills it; it may be asked from any thread.

    With the broker away pages go on with what is known, and say so.
    """

    trouble: str | None = "the announcements on `models` are still being read"
    _by_task: dict[str, deque[ModelAnnouncement]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT_PER_TASK))
    )
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, task: str, limit: int = KEPT_PER_TASK) -> list[ModelAnnouncement]:
        with self._lock:
            return list(self._by_task[task])[:limit] if task in self._by_task else []

    def clear(self) -> None:
        with self._lock:
            self._by_task.clear()

    def take(self, message: Message) -> None:
        try:
            announcement = decode(message.value, ModelAnnouncement)
        except InvalidEvent as error:  # of a newer release
            log.debug("an announcement was passed over: %s", error)
            return
        with self._lock:
            self._by_task[announcement.task].appendleft(announcement)
