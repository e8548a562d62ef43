"""What a service does with a message it cannot use: count it, and make it a dead letter; and stop
when nothing else comes of its messages any more."""

from __future__ import annotations

import re

from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage
from shared.bus.fates import DeadLetterLimit
from shared.clock import Clock
from shared.contracts.events import Deferral, RawTrace, Request, Trace
from shared.telemetry import metrics

_FIELDS = frozenset().union(*(e.__struct_fields__ for e in (RawTrace, Trace, Request, Deferral)))


def field_label(field: str) -> str:
    """For a metric: the field of an event that `field` lies in, of a deferral's request too.

    `other` where it is none, because what a sender makes up must not become a series."""
    head = re.split(r"[.\[]", field.removeprefix("request."), maxsplit=1)[0]
    return head if head in _FIELDS else "other"


class Rejecting:
    """Makes records for a dead-letter topic. One per consumer, told of every message in order."""

    def __init__(self, service: str, topic: str, clock: Clock, limit: DeadLetterLimit) -> None:
        self._service = service
        self._topic = topic
        self._clock = clock
        self._limit = limit

    def __call__(self, message: Message, error: InvalidMessage, part: int = 0) -> Record:
        """The dead letter. Raises Fatal, naming `error`, when there were too many in a row.

        `part`: which of a message that holds several things; each has a dead letter of its own."""
        if self._limit.rejected(message, error, part):
            field = field_label(error.field)
            metrics.DEAD_LETTERS.labels(self._service, message.topic, field).inc()
        return dead_letter(
            message,
            service=self._service,
            error=error,
            field=error.field,
            at=self._clock.now(),
            topic=self._topic,
        )

    def accepted(self, message: Message) -> None:
        """It could be used. What came by another way than a topic (offset below 0) says nothing
        of the topic."""
        if message.offset >= 0:
            self._limit.handled()


def rejecting(
    service: str, topic: str, clock: Clock, limit: DeadLetterLimit | None = None
) -> Rejecting:
    """For the dead-letter `topic`, with its prefix; the usual limit unless another is given."""
    return Rejecting(service, topic, clock, limit or DeadLetterLimit())
