"""Create the topics that are missing; those that exist are left as they are."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from shared.bus.errors import Fatal, Retryable
from shared.clock import Clock, SystemClock
from shared.contracts.topics import Topic, TopicSpec

if TYPE_CHECKING:
    from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata

log = logging.getLogger(__name__)

_PASSING = frozenset(
    {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT}
    | {KafkaError._TIMED_OUT_QUEUE, KafkaError._RESOLVE, KafkaError._WAIT_COORD}
)


class TopicsNotCreated(Retryable):
    """The broker cannot be reached, or has not made the topics in time."""


def ensure_topics(
    bootstrap: str,
    specs: Iterable[TopicSpec],
    *,
    prefix: str = "",
    replication: int | None = None,
    client_config: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    clock: Clock | None = None,
) -> list[str]:
    """Create what is missing and wait until it is there; returns the created topics' names.

    `replication` overrides the specs'; left out, a cluster with fewer brokers than a spec's
    replication gets one copy a broker, with a warning. A topic that exists with another number of
    partitions is only warned about. librdkafka's embedded broker cannot create topics on request:
    there they are touched, so that it makes them with partitions of its own choosing.
    Raises TopicsNotCreated, or Fatal when the broker refuses. `timeout` is in seconds.
    """
    clock = clock or SystemClock()
    client = AdminClient({"bootstrap.servers": bootstrap, **(client_config or {})}, logger=log)
    cluster = _metadata(client, timeout)
    wanted = {f"{prefix}{spec.topic}": spec for spec in specs}
    missing = {name: spec for name, spec in wanted.items() if name not in cluster.topics}
    has_controller = cluster.controller_id in cluster.brokers
    if has_controller:
        copies = _copies(missing.values(), replication, len(cluster.brokers))
        created = _create(
            client, [_new(n, s, copies[s.topic]) for n, s in missing.items()], timeout
        )
    else:
        for name in missing:
            log.info("this broker has no controller: touching %s so that it makes it", name)
            touch(client, name, timeout=timeout)
        created = list(missing)
    cluster = _wait_for(client, wanted, timeout, clock)
    if has_controller:
        _warn_of_partitions(cluster, wanted)
    return created


def touch(client: AdminClient, topic: str, *, timeout: float = 30.0) -> int:
    """Ask for one topic's metadata, which makes a broker that creates topics on demand do so.

    Returns its number of partitions, 0 while it is being created. Raises TopicsNotCreated or Fatal.
    """
    found = _metadata(client, timeout, topic).topics[topic]
    being_made = (KafkaError.LEADER_NOT_AVAILABLE, KafkaError.UNKNOWN_TOPIC_OR_PART)
    if found.error is not None and found.error.code() not in being_made:
        _raise(f"topic {topic} cannot be touched", found.error)
    return len(found.partitions)


def create_topics(
    bootstrap: str,
    specs: Iterable[TopicSpec],
    *,
    prefix: str = "",
    replication: int | None = None,
    client_config: Mapping[str, str] | None = None,
) -> list[str]:
    """`ensure_topics` for people: one line a topic (for `tracerctl topics create`)."""
    specs = tuple(specs)
    created = ensure_topics(
        bootstrap, specs, prefix=prefix, replication=replication, client_config=client_config
    )
    names = [f"{prefix}{spec.topic}" for spec in specs]
    return [f"{'created' if name in created else 'exists'}\t{name}" for name in names]


def _copies(specs: Iterable[TopicSpec], replication: int | None, brokers: int) -> dict[Topic, int]:
    """Copies of each topic. A cluster cannot hold more than one a broker."""
    if replication is not None:
        return {spec.topic: replication for spec in specs}
    copies = {spec.topic: min(spec.replication, brokers) for spec in specs}
    short = sorted(spec.topic.value for spec in specs if copies[spec.topic] < spec.replication)
    if short:
        log.warning("only %d broker(s): fewer copies than specified of %s", brokers, short)
    return copies


def _new(name: str, spec: TopicSpec, copies: int) -> NewTopic:
    settings = spec.settings()
    if copies >= 3:
        # Acknowledged means on two brokers, or losing one of them can lose an event.
        settings["min.insync.replicas"] = "2"
    return NewTopic(
        name, num_partitions=spec.partitions, replication_factor=copies, config=settings
    )


def _create(client: AdminClient, topics: list[NewTopic], timeout: float) -> list[str]:
    if not topics:
        return []
    created = []
    futures = client.create_topics(topics, operation_timeout=timeout, request_timeout=timeout)
    for name, future in futures.items():
        try:
            future.result()
            created.append(name)
        except KafkaException as exception:
            error = exception.args[0]
            if error.code() != KafkaError.TOPIC_ALREADY_EXISTS:  # someone was quicker: as good
                _raise(f"topic {name} was not created", error)
    return created


def _wait_for(
    client: AdminClient, names: Iterable[str], timeout: float, clock: Clock
) -> ClusterMetadata:
    """Until every topic has partitions with leaders; a broker answers before it has told all."""
    deadline = clock.monotonic() + timeout
    waiting = set(names)
    while True:
        cluster = _metadata(client, timeout)
        waiting = {name for name in waiting if not _is_led(cluster.topics.get(name))}
        if not waiting:
            return cluster
        if clock.monotonic() >= deadline:
            raise TopicsNotCreated(f"topics not there after {timeout:g} s: {sorted(waiting)}")
        clock.sleep(0.05)


def _is_led(topic: TopicMetadata | None) -> bool:
    if topic is None or not topic.partitions:
        return False
    return all(partition.leader >= 0 for partition in topic.partitions.values())


def _warn_of_partitions(cluster: ClusterMetadata, wanted: Mapping[str, TopicSpec]) -> None:
    for name, spec in wanted.items():
        found = cluster.topics.get(name)
        if found is not None and len(found.partitions) != spec.partitions:
            log.warning(
                "topic %s has %d partitions, its specification says %d; left as it is",
                name,
                len(found.partitions),
                spec.partitions,
            )


def _metadata(client: AdminClient, timeout: float, topic: str | None = None) -> ClusterMetadata:
    try:
        return client.list_topics(topic, timeout=timeout)
    except KafkaException as exception:
        _raise("no answer from the broker", exception.args[0])


def _raise(what: str, error: KafkaError) -> NoReturn:
    passing = error.retriable() or error.code() in _PASSING
    kind = TopicsNotCreated if passing else Fatal
    raise kind(f"{what}: {error.name()}: {error.str()}")
