"""What a service does with a message it cannot use: count it, and make it a dead letter."""

from __future__ import annotations

from collections.abc import Callable

from shared.bus.base import Message, Record
from shared.bus.dead_letters import dead_letter
from shared.bus.errors import InvalidMessage
from shared.clock import Clock
from shared.telemetry import metrics


def rejecting(
    service: str, topic: str, clock: Clock
) -> Callable[[Message, InvalidMessage], Record]:
    """Makes records for the dead-letter `topic`."""

    def reject(message: Message, error: InvalidMessage) -> Record:
        metrics.DEAD_LETTERS.labels(service, message.topic).inc()
        return dead_letter(
            message, service=service, error=error, field=error.field, at=clock.now(), topic=topic
        )

    return reject
