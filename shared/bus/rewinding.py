"""A consumer group back to the beginning: for who has lost what he made of the topic."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from shared.clock import Clock

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


def rewind(
    bootstrap: str,
    group: str,
    topic: str,
    *,
    clock: Clock,
    client_config: Mapping[str, str | int | float | bool] | None = None,
    patience: float = 60.0,
) -> bool:
    """Forget how far `group` has read, so that it begins again with the oldest record kept.

    Waits up to `patience` seconds while the group has members, as it has after a crash until its
    session ends. Returns whether there was something to forget and it is forgotten; what could not
    be done is logged, and the group goes on where it was.
    """
    client = AdminClient({"bootstrap.servers": bootstrap, **(client_config or {})}, logger=log)
    deadline = clock.monotonic() + patience
    while True:
        try:
            if not _has_read(client, group, topic):
                return False
            client.delete_consumer_groups([group])[group].result()
            return True
        except KafkaException as exception:
            error: KafkaError = exception.args[0]
            if error.code() == KafkaError.GROUP_ID_NOT_FOUND:
                return False
            if error.code() == KafkaError._UNSUPPORTED_FEATURE or clock.monotonic() >= deadline:
                log.error("%s goes on where it was, not from the beginning: %s", group, error.str())
                return False
            log.info("%s cannot be rewound yet: %s", group, error.str())
        clock.sleep(RETRY_SECONDS)


def _has_read(client: AdminClient, group: str, topic: str) -> bool:
    asked = ConsumerGroupTopicPartitions(group)
    found = client.list_consumer_group_offsets([asked])[group].result()
    return any(p.topic == topic and p.offset > 0 for p in found.topic_partitions or [])
