"""A version this router would not serve, told to people: an announcement on the topic `models`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from shared.bus.base import Publisher, Record
from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock
from shared.contracts.codec import encode
from shared.contracts.events import AnnouncementKind, ModelAnnouncement

log = logging.getLogger(__name__)

# Rejections come in swaps, which wait for this; a broker that is away must not hold them for long.
PATIENCE = 4.0
Rejected = Callable[[str, str | None, int, str], None]  # task, version, epoch, why


def unheard(task: str, version: str | None, epoch: int, why: str) -> None:
    """For a router that announces nothing."""


class Announcer:
    """Opens a publisher for each announcement: they are rare, and a producer has threads."""

    def __init__(
        self, open_publisher: Callable[[], Publisher], *, topic: str, instance: str, clock: Clock
    ) -> None:
        self._open = open_publisher
        self._topic = topic
        self._instance = instance
        self._clock = clock

    def rejected(self, task: str, version: str | None, epoch: int, why: str) -> None:
        """Serving goes on whether or not it can be announced."""
        announcement = ModelAnnouncement(
            kind=AnnouncementKind.REJECTED,
            task=task,
            announced_at=self._clock.now(),
            reason=f"router {self._instance}: {why}",
            version=version,
            epoch=epoch,
        )
        publisher: Publisher | None = None
        try:
            publisher = self._open()
            publisher.publish([Record(self._topic, task.encode(), encode(announcement))])
        except (Retryable, Fatal) as error:
            log.warning("a rejection is not announced: %s", error, extra={"task": task})
        finally:
            if publisher is not None:
                publisher.close()
