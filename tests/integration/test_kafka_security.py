"""Services on a Kafka that wants to know who asks: SASL over TLS, certificates, ACLs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from deploy.kafka.local_kafka import KafkaUnavailable, LocalKafka
from services.ctl.embedded.ports import LOOPBACK, free_port
from services.ctl.embedded.processes import Child
from shared.bus.base import Message, Record
from shared.bus.errors import Fatal, Retryable
from shared.bus.kafka import KafkaPublisher, open_pipe
from tests.certificates import Authority, Certificate
from tests.integration.test_ingest import TASKS
from tests.kafka_fixtures import create_topic

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PASSWORD = "not-the-one-in-any-log"
_JAAS = "org.apache.kafka.common.security"


@dataclass(frozen=True)
class Secured:
    """One broker: an inner listener for the tests' own use, and the ways in from outside."""

    inner: str
    password: str  # SASL over TLS
    certificate: str  # TLS with a certificate of the client's
    authority: Authority
    client: Certificate

    def by_password(self, mechanism: str, user: str = "tracer", password: str = PASSWORD):
        """Settings in librdkafka's names, as TRACER_KAFKA has them."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": str(self.authority.file),
        }

    def by_certificate(self) -> dict[str, str]:
        return {
            "security.protocol": "SSL",
            "ssl.ca.location": str(self.authority.file),
            "ssl.certificate.location": str(self.client.certificate),
            "ssl.key.location": str(self.client.key),
        }

    def by_certificate_in_words(self) -> dict[str, str]:
        return {
            "security.protocol": "SSL",
            "ssl.ca.pem": self.authority.file.read_text(),
            "ssl.certificate.pem": self.client.certificate.read_text(),
            "ssl.key.pem": self.client.key.read_text(),
        }


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    ports = [free_port() for _ in range(4)]
    inner, password, certificate, controller = (f"{LOOPBACK}:{port}" for port in ports)
    try:
        with LocalKafka(
            port=ports[0], properties=_properties(authority, folder, ports, controller)
        ) as broker:
            admin = AdminClient({"bootstrap.servers": broker.bootstrap})
            _allow(admin)
            yield Secured(inner, password, certificate, authority, authority.issue("client"))
    except KafkaUnavailable as why:
        pytest.skip(str(why))


def _properties(
    authority: Authority, folder: Path, ports: list[int], controller: str
) -> dict[str, str]:
    server = authority.issue("broker")
    store = folder / "broker-both.pem"
    store.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
    outer = ",".join(
        f"{name}://{LOOPBACK}:{port}"
        for name, port in zip(("PLAINTEXT", "PASSWORD", "CERTIFICATE"), ports, strict=False)
    )
    plain = f'{_JAAS}.plain.PlainLoginModule required user_tracer="{PASSWORD}";'
    scram = f"{_JAAS}.scram.ScramLoginModule required;"
    return {
        "listeners": f"{outer},CONTROLLER://{controller}",
        "advertised.listeners": outer,
        "controller.quorum.voters": f"1@{controller}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORD:SASL_SSL,CERTIFICATE:SSL"
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
        "listener.name.certificate.ssl.client.auth": "required",
        "listener.name.password.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.password.plain.sasl.jaas.config": plain,
        "listener.name.password.scram-sha-256.sasl.jaas.config": scram,
        "listener.name.password.scram-sha-512.sasl.jaas.config": scram,
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }


def _allow(admin: AdminClient) -> None:
    """Two users by SCRAM: tracer may use everything, stranger nothing."""
    for user in ("tracer", "stranger"):
        for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512):
            credential = UserScramCredentialUpsertion(
                user, ScramCredentialInfo(mechanism, 4096), PASSWORD.encode()
            )
            admin.alter_user_scram_credentials([credential])[user].result(20)
    rules = [
        AclBinding(
            kind,
            "*" if kind is not ResourceType.BROKER else "kafka-cluster",
            ResourcePatternType.LITERAL,
            principal,
            "*",
            AclOperation.ALL,
            AclPermissionType.ALLOW,
        )
        for principal in ("User:tracer", "User:CN=client")
        for kind in (ResourceType.TOPIC, ResourceType.GROUP, ResourceType.TRANSACTIONAL_ID)
    ]
    for future in admin.create_acls(rules).values():
        future.result(20)


WAYS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "certificate", "certificate in words"]


def _way(secured: Secured, way: str) -> tuple[str, dict[str, str]]:
    if way == "certificate":
        return secured.certificate, secured.by_certificate()
    if way == "certificate in words":
        return secured.certificate, secured.by_certificate_in_words()
    return secured.password, secured.by_password(way)


@pytest.mark.parametrize("way", WAYS)
def test_a_transaction(secured: Secured, way: str) -> None:
    """Reader, transactional writer and publisher, as router and teacher use them."""
    bootstrap, settings = _way(secured, way)
    source, target = (create_topic(secured.inner) for _ in range(2))
    publisher = KafkaPublisher(bootstrap=bootstrap, client_config=settings)
    publisher.publish([Record(source, b"key", b"value")])
    publisher.close()
    name = uuid4().hex
    pipe = open_pipe(
        bootstrap=bootstrap,
        group=name,
        topics=[source],
        delivery="exactly_once",
        transactional_id=name,
        client_config=settings,
    )
    try:
        messages: list[Message] = []
        deadline = time.monotonic() + 30
        while not messages:
            assert time.monotonic() < deadline
            messages = list(pipe.poll(10, 0.2))
        pipe.commit([Record(target, b"key", messages[0].value)])
    finally:
        pipe.close()
    assert _read_one(secured.inner, target) == b"value"


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", *WAYS[-2:]])
def test_ingest(secured: Secured, way: str, redis_url: str, tmp_path: Path) -> None:
    """Faust's client takes the same settings."""
    bootstrap, settings = _way(secured, way)
    prefix = f"t{uuid4().hex[:8]}-"
    for topic in ("traces.raw", "traces", "dead-letters"):
        create_topic(secured.inner, name=prefix + topic)
    (tmp_path / "tasks.yaml").write_text(TASKS)
    child = Child(
        "ingest",
        [sys.executable, "-m", "services.ingest.main"],
        log=tmp_path / "ingest.log",
        environment={
            "TRACER_BOOTSTRAP_SERVERS": bootstrap,
            "TRACER_KAFKA": json.dumps(settings),
            "TRACER_REDIS_URL": redis_url,
            "TRACER_TASKS": str(tmp_path / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": prefix,
            "TRACER_GROUP_SUFFIX": f"-{prefix}",
        },
        health_port=free_port(),
    )
    trace = {"id": "t-1", "task": "support", "input": "my card is gone", "teacher": "card_lost"}
    publisher = KafkaPublisher(bootstrap=secured.inner)
    publisher.publish([Record(f"{prefix}traces.raw", b"key", json.dumps(trace).encode())])
    publisher.close()
    child.start()
    try:
        assert b"card_lost" in _read_one(secured.inner, f"{prefix}traces", child)
    finally:
        child.terminate(20)
    assert PASSWORD not in (tmp_path / "ingest.log").read_text()


def _read_one(bootstrap: str, topic: str, child: Child | None = None) -> bytes:
    settings = {"group.id": uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer({"bootstrap.servers": bootstrap, **settings})
    consumer.subscribe([topic])
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if child is not None:
                child.check()
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                return bytes(message.value() or b"")
    finally:
        consumer.close()
    raise AssertionError(f"nothing in {topic}")


def test_a_wrong_password_is_fatal_and_not_told(secured: Secured) -> None:
    settings = secured.by_password("SCRAM-SHA-256", password="a-wrong-one")
    settings["message.timeout.ms"] = "3000"
    with pytest.raises((Fatal, Retryable), match=r"(?i)authentication") as raised:
        _publish(secured.password, settings, create_topic(secured.inner))
    assert "a-wrong-one" not in str(raised.value)


def test_who_may_not_is_told_of_what(secured: Secured) -> None:
    topic = create_topic(secured.inner)
    with pytest.raises(Fatal, match=rf"(?i)authoriz.*{topic}|{topic}.*authoriz"):
        _publish(secured.password, secured.by_password("SCRAM-SHA-256", "stranger"), topic)


def test_a_broker_of_another_authority_is_not_talked_to(secured: Secured, tmp_path: Path) -> None:
    settings = secured.by_password("PLAIN") | {
        "ssl.ca.location": str(Authority(tmp_path, "stranger").file),
        "message.timeout.ms": "3000",
    }
    with pytest.raises((Fatal, Retryable)):
        _publish(secured.password, settings, create_topic(secured.inner))


def test_without_a_certificate_there_is_no_way_in(secured: Secured) -> None:
    settings = {
        "security.protocol": "SSL",
        "ssl.ca.location": str(secured.authority.file),
        "message.timeout.ms": "3000",
    }
    with pytest.raises((Fatal, Retryable)):
        _publish(secured.certificate, settings, create_topic(secured.inner))


def _publish(bootstrap: str, settings: dict[str, str], topic: str) -> None:
    publisher = KafkaPublisher(bootstrap=bootstrap, client_config=settings)
    try:
        publisher.publish([Record(topic, b"key", b"value")])
    finally:
        publisher.close()
