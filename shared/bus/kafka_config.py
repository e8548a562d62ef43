"""librdkafka's settings for each kind of client: our defaults, the user's, and what is not theirs.

Users override anything but the settings that the delivery guarantees rest on. The classic group
protocol is assumed (`group.protocol=consumer` is refused by librdkafka together with these).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.bus.errors import Fatal

ClientConfig = Mapping[str, str | int | float | bool]

_COMMON: dict[str, Any] = {
    "socket.nagle.disable": True,
    "reconnect.backoff.max.ms": 1_000,
    # What a commit may wait for a broker that went away; librdkafka's 60 s ignore our timeouts.
    "socket.timeout.ms": 10_000,
    # Topics created and partitions added later are seen after this.
    "topic.metadata.refresh.interval.ms": 10_000,
}
_CONSUMER: dict[str, Any] = {
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 10_000,
    "heartbeat.interval.ms": 2_000,
    # A fetch returns with the first byte; this only bounds how late an end of partition is known.
    "fetch.wait.max.ms": 100,
    "fetch.queue.backoff.ms": 50,
    # What is fetched ahead of the handler: at most so many messages or so many KiB, whichever is
    # less; then fetching pauses. This is the back-pressure.
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 32_768,
}
_PRODUCER: dict[str, Any] = {
    "linger.ms": 1,
    "compression.type": "lz4",
    # As the Java client places keys, so that topics written by either are partitioned alike.
    "partitioner": "murmur2_random",
    # Each topic enforces its own limit. The dead-letter topic's is twice the others': a letter
    # carries the whole record and its context, and one that could not be sent would stop us.
    "message.max.bytes": 2_097_152,
    "message.timeout.ms": 20_000,
    "topic.metadata.propagation.max.ms": 5_000,
}
_TRANSACTIONS: dict[str, Any] = {
    "transaction.timeout.ms": 60_000,
    # A transaction begun right after another waits for its markers: 130 ms at the default of
    # 100 ms, 30 ms at this. It doubles with each attempt, up to a second.
    "retry.backoff.ms": 5,
}

_OURS = frozenset(
    {
        "bootstrap.servers",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "error_cb",
        "group.id",
        "group.instance.id",
        "isolation.level",
        "metadata.broker.list",
        "transactional.id",
    }
)
# librdkafka warns of every setting that is not for its kind of client.
_ONLY_CONSUMERS = (
    "auto.offset.",
    "check.crcs",
    "fetch.",
    "group.",
    "heartbeat.",
    "max.partition.",
    "max.poll.",
    "partition.assignment.",
    "queued.",
    "session.",
)
_ONLY_PRODUCERS = (
    "acks",
    "batch.",
    "compression.",
    "linger.",
    "message.timeout.",
    "partitioner",
    "queue.buffering.",
    "retries",
    "sticky.",
    "topic.metadata.propagation.",
    "transaction.",
)


def consumer_config(
    bootstrap: str, group: str, instance_id: str | None, client_config: ClientConfig
) -> dict[str, Any]:
    """A consumer that reads committed records only and never commits by itself."""
    config = {
        **_COMMON,
        **_CONSUMER,
        **_theirs(client_config, without=_ONLY_PRODUCERS),
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    if instance_id is not None:
        config["group.instance.id"] = instance_id
    return config


def range_config(bootstrap: str, client_config: ClientConfig) -> dict[str, Any]:
    """A consumer of no group, for who says himself which offsets to read. Commits nothing."""
    return {
        **consumer_config(bootstrap, "tracer-range", None, client_config),
        "auto.offset.reset": "error",  # a range that is gone is said, never skipped
    }


def producer_config(bootstrap: str, client_config: ClientConfig) -> dict[str, Any]:
    """An idempotent producer: retries neither repeat nor reorder."""
    return {
        **_COMMON,
        **_PRODUCER,
        **_theirs(client_config, without=_ONLY_CONSUMERS),
        "bootstrap.servers": bootstrap,
        "enable.idempotence": True,
        "delivery.report.only.error": True,
    }


def transactional_config(
    bootstrap: str, transactional_id: str, client_config: ClientConfig
) -> dict[str, Any]:
    """A transactional producer. Raises Fatal when a message could outlive its transaction."""
    config = {
        **_TRANSACTIONS,
        **producer_config(bootstrap, client_config),
        "transactional.id": transactional_id,
    }
    if int(config["message.timeout.ms"]) >= int(config["transaction.timeout.ms"]):
        raise Fatal("message.timeout.ms must be less than transaction.timeout.ms")
    return config


def unusable(client_config: ClientConfig) -> str | None:
    """Why a user's settings are refused; None where they are not."""
    taken = sorted(_OURS & client_config.keys())
    if taken:
        return f"Kafka settings that are not configurable: {', '.join(taken)}"
    if "delivery.timeout.ms" in client_config:
        return "set message.timeout.ms, not its alias delivery.timeout.ms"
    return None


def _theirs(client_config: ClientConfig, *, without: tuple[str, ...]) -> dict[str, Any]:
    if problem := unusable(client_config):
        raise Fatal(problem)
    return {name: value for name, value in client_config.items() if not name.startswith(without)}
