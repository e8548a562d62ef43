"""The broker: does it answer, and are the topics there as schemas/topics describes them?"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType

from services.ctl.doctor.findings import Finding, Patient, failed, ok, skipped, warning
from shared.contracts.topics import FOREVER_MS, TopicSpec, load_topics

if TYPE_CHECKING:
    from confluent_kafka.admin._metadata import ClusterMetadata, TopicMetadata

# librdkafka writes to standard error what is returned as an error anyway.
quiet = logging.getLogger("tracerctl.doctor.librdkafka")
quiet.setLevel(logging.CRITICAL + 1)


class Broker:
    """The broker as this user reaches it. Raises KafkaException for settings that are none."""

    def __init__(self, patient: Patient) -> None:
        settings = patient.settings
        self._patient = patient
        self._complaints: list[str] = []
        config: dict[str, Any] = {"bootstrap.servers": settings.bootstrap_servers}
        config |= settings.kafka
        config["error_cb"] = lambda error: self._complaints.append(f"{error.str()}")
        self.admin = AdminClient(config, logger=quiet)

    def reach(self) -> tuple[Finding, ClusterMetadata | None]:
        """Does a broker answer?"""
        begun = time.monotonic()
        where = self._patient.settings.bootstrap_servers
        try:
            cluster = self.admin.list_topics(timeout=self._patient.patience)
        except KafkaException as error:
            self.admin.poll(0)  # why: a wrong password is told to a callback alone
            why = self._complaints[0] if self._complaints else said(error)
            fix = (
                "is it running, does TRACER_BOOTSTRAP_SERVERS name it, and is TRACER_KAFKA right "
                "(security.protocol, sasl.*, ssl.*)?"
            )
            return failed("kafka.reach", f"{where}: {why}", fix), None
        milliseconds = (time.monotonic() - begun) * 1_000
        found = f"{where}: {len(cluster.brokers)} broker(s), {milliseconds:.0f} ms"
        return ok("kafka.reach", found), cluster


def is_real(cluster: ClusterMetadata) -> bool:
    """The demo's broker has no controller."""
    return cluster.controller_id in cluster.brokers


def used_topics(patient: Patient) -> dict[str, TopicSpec]:
    """The topics that these services read or write, by their names here."""
    services = set(patient.services)
    return {
        patient.settings.topic(spec.topic): spec
        for spec in load_topics().values()
        if services & {*spec.consumers, *spec.producers}
    }


def topics(admin: AdminClient, cluster: ClusterMetadata, patient: Patient) -> Iterator[Finding]:
    """One finding per topic: existence, partitions, copies, settings."""
    wanted = used_topics(patient)
    present = [name for name in wanted if name in cluster.topics]
    real = is_real(cluster)
    settings = _settings_of(admin, present, patient) if real else {}
    for name, spec in wanted.items():
        check = f"topic.{spec.topic}"
        if name not in cluster.topics:
            fix = "`tracerctl topics create`; where it exists, this user may not describe it"
            yield failed(check, f"{name} is not there", fix)
        elif not real:
            yield ok(check, f"{name}, on the demo's broker, which takes no settings")
        else:
            yield _judged(check, name, spec, cluster, settings.get(name))


def source_topics(names: Iterable[str], cluster: ClusterMetadata) -> Iterator[Finding]:
    """One finding per topic of another system's that ingest reads: is it there?"""
    for name in names:
        if name in cluster.topics:
            partitions = len(cluster.topics[name].partitions)
            yield ok(f"source.{name}", f"{name}: {partitions} partitions")
        else:
            fix = (
                "name the topic that the other system writes to in the task's `sources`, or make "
                "it; where it exists, this user may not describe it"
            )
            yield failed(f"source.{name}", f"{name} is not there", fix)


def _judged(
    check: str,
    name: str,
    spec: TopicSpec,
    cluster: ClusterMetadata,
    settings: dict[str, str] | str | None,
) -> Finding:
    topic = cluster.topics[name]
    partitions = len(topic.partitions)
    headless = [p.id for p in topic.partitions.values() if p.leader < 0]
    if headless or not partitions:
        fix = "bring its brokers back: nobody leads these partitions"
        return failed(check, f"{name}: partitions {headless} have no leader", fix)
    if not isinstance(settings, dict):
        return skipped(check, f"{name}: {partitions} partitions; settings: {settings or 'unknown'}")
    wrong = _wrong(spec, settings)
    if wrong:
        change = ",".join(f"{key}=[{value}]" for key, (_, value) in wrong.items())
        found = ", ".join(f"{key} is {has}, not {value}" for key, (has, value) in wrong.items())
        fix = f"kafka-configs.sh --alter --topic {name} --add-config {change}"
        return failed(check, f"{name}: {found}", fix)
    copies = min(len(p.replicas) for p in topic.partitions.values())
    needed = int(settings.get("min.insync.replicas", "1"))
    if needed > copies:
        fix = f"kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas={copies}"
        return failed(check, f"{name}: {copies} copies, but writes wait for {needed}", fix)
    if partitions != spec.partitions:
        found = f"{name} has {partitions} partitions, its specification {spec.partitions}"
        if partitions < spec.partitions:
            fix = f"kafka-topics.sh --alter --topic {name} --partitions {spec.partitions}"
        else:
            fix = "none is needed, unless order by key matters across the change"
        return warning(check, found, fix)
    return _copies(check, name, spec, topic, copies, needed)


def _copies(
    check: str, name: str, spec: TopicSpec, topic: TopicMetadata, copies: int, needed: int
) -> Finding:
    """`copies` of each partition; an acknowledged write is on `needed` of them."""
    behind = [p.id for p in topic.partitions.values() if len(p.isrs) < len(p.replicas)]
    if behind:
        fix = "see whether a broker is down or slow"
        return warning(check, f"{name}: copies of partitions {behind} are behind", fix)
    if copies < spec.replication:
        fix = f"kafka-reassign-partitions.sh, on {spec.replication} brokers or more"
        found = f"{name}: {copies} of {spec.replication} copies: a lost disk loses events"
        return warning(check, found, fix)
    if copies >= 3 and needed < 2:
        fix = f"kafka-configs.sh --alter --topic {name} --add-config min.insync.replicas=2"
        return warning(check, f"{name}: writes are acknowledged by one broker alone", fix)
    return ok(check, f"{name}: {len(topic.partitions)} partitions, {copies} copies")


def _wrong(spec: TopicSpec, settings: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Settings that lose or refuse what the specification keeps and takes: (is, should be)."""
    wanted = spec.settings()
    wrong = {}
    for key, value in wanted.items():
        has = settings.get(key)
        if has is None:
            continue
        if key == "cleanup.policy":
            less = set(has.split(",")) != set(value.split(","))
        else:
            less = _amount(has) < _amount(value)
        if less:
            wrong[key] = (has, value)
    return wrong


def _amount(value: str) -> float:
    return float("inf") if value == str(FOREVER_MS) else float(value)


def _settings_of(
    admin: AdminClient, names: list[str], patient: Patient
) -> dict[str, dict[str, str] | str]:
    """Each topic's settings, or why the broker does not tell them."""
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str] | str] = {}
    asked: dict[Any, Any] = admin.describe_configs(resources, request_timeout=patient.patience)
    for resource, future in asked.items():
        try:
            entries = future.result(patient.patience + 1)
            found[resource.name] = {n: e.value for n, e in entries.items() if e.value is not None}
        except KafkaException as error:
            found[resource.name] = said(error)
    return found


def said(error: KafkaException) -> str:
    """librdkafka's error, in words and by name."""
    inner = error.args[0]
    return f"{inner.str()} ({inner.name()})"
