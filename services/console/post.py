"""Putting dead letters back over Kafka, as `tracerctl dead-letters redrive` does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass

from services.console.config import ConsoleSettings
from shared.bus.base import Publisher
from shared.bus.kafka import KafkaPublisher
from shared.bus.kafka_range import RangeReader
from shared.bus.kafka_transaction import TransactionalPublisher
from shared.bus.redriving import StoredLetter, letters_of, topics_taking_back
from shared.contracts.tasks import Task
from shared.contracts.topics import Topic


@dataclass(frozen=True)
class KafkaPost:
    """Implements `letters.Post`."""

    settings: ConsoleSettings
    tasks: Collection[Task]

    def publisher(self) -> Publisher:
        settings = self.settings
        if not self.transactions:
            return KafkaPublisher(
                bootstrap=settings.bootstrap_servers, client_config=settings.kafka
            )
        return TransactionalPublisher(
            bootstrap=settings.bootstrap_servers,
            # The command's own: two re-drives at once fence one another off.
            transactional_id=f"tracer-redrive-{settings.topic(Topic.DEAD_LETTERS)}",
            client_config=settings.kafka,
        )

    def letters(self, places: Collection[str]) -> list[StoredLetter]:
        reader = RangeReader(
            bootstrap=self.settings.bootstrap_servers, client_config=self.settings.kafka
        )
        with closing(reader):
            whole = reader.whole(self.settings.topic(Topic.DEAD_LETTERS))
            return letters_of(reader.read(whole), places)[0]

    @property
    def transactions(self) -> bool:
        return self.settings.delivery == "exactly_once"

    @property
    def topics(self) -> Sequence[str]:
        return topics_taking_back(self.tasks, self.settings.topic_prefix)
