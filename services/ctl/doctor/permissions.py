"""What this user may do with the topics and groups, as the broker says. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation

from services.ctl.doctor.broker import said, used_topics
from services.ctl.doctor.findings import Finding, Patient, Service, failed, ok, skipped

# No group yet: who may make one cannot be asked.
_UNKNOWN_GROUP = {KafkaError.GROUP_ID_NOT_FOUND}
_REFUSED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}


def of_topics(admin: AdminClient, present: set[str], patient: Patient) -> Iterator[Finding]:
    """One finding per topic that is there: may these services do what they do with it?"""
    wanted = {name: spec for name, spec in used_topics(patient).items() if name in present}
    asked = _described(admin, wanted, patient)
    services = set(patient.services)
    for name, spec in wanted.items():
        needed = {AclOperation.DESCRIBE}
        needed |= {AclOperation.READ} if services & set(spec.consumers) else set()
        needed |= {AclOperation.WRITE} if services & set(spec.producers) else set()
        yield _judged(f"may.{spec.topic}", "topic", name, asked[name], needed, patient)


def of_sources(admin: AdminClient, present: Collection[str], patient: Patient) -> Iterator[Finding]:
    """One finding per topic of another system's that is there: may ingest read it?"""
    needed = {AclOperation.DESCRIBE, AclOperation.READ}
    for name, answer in _described(admin, present, patient).items():
        yield _judged(f"may.source.{name}", "topic", name, answer, needed, patient)


def _described(admin: AdminClient, names: Collection[str], patient: Patient) -> dict[str, Any]:
    if not names:
        return {}
    asked: dict[str, Any] = admin.describe_topics(
        TopicCollection(list(names)),
        include_authorized_operations=True,
        request_timeout=patient.patience,
    )
    return asked


def of_groups(admin: AdminClient, patient: Patient) -> Iterator[Finding]:
    """One finding per consumer group of these services."""
    groups = {service: patient.settings.group(service) for service in patient.services}
    asked: dict[str, Any] = admin.describe_consumer_groups(
        list(groups.values()),
        include_authorized_operations=True,
        request_timeout=patient.patience,
    )
    for service, group in groups.items():
        needed = {AclOperation.READ}
        # A trainer that has lost its store deletes its group, to read all that Kafka has kept.
        needed |= {AclOperation.DELETE} if service is Service.TRAINER else set()
        yield _judged(f"may.group.{service}", "group", group, asked[group], needed, patient)


def _judged(
    check: str, kind: str, name: str, answer: Any, needed: set[AclOperation], patient: Patient
) -> Finding:
    try:
        may = answer.result(patient.patience + 1).authorized_operations
    except KafkaException as error:
        code = error.args[0].code()
        if code in _UNKNOWN_GROUP:
            return skipped(check, f"{name} does not exist yet; --probe would try one like it")
        if code in _REFUSED:
            return failed(check, f"{name}: {said(error)}", _grant(kind, name, needed, patient))
        return skipped(check, f"{name}: {said(error)}")
    if may is None:
        return skipped(check, f"{name}: the broker does not say")
    words = ", ".join(sorted(operation.name.lower() for operation in needed))
    missing = set() if AclOperation.ALL in may else needed - set(may)
    if missing:
        refused = ", ".join(sorted(operation.name.lower() for operation in missing))
        return failed(check, f"{name}: may not {refused}", _grant(kind, name, missing, patient))
    return ok(check, f"{name}: may {words}")


def _grant(kind: str, name: str, needed: set[AclOperation], patient: Patient) -> str:
    user = patient.settings.kafka.get("sasl.username", "USER")
    operations = " ".join(f"--operation {operation.name.title()}" for operation in sorted_(needed))
    return f"kafka-acls.sh --add --allow-principal User:{user} {operations} --{kind} {name}"


def sorted_(operations: set[AclOperation]) -> list[AclOperation]:
    return sorted(operations, key=lambda operation: operation.name)
