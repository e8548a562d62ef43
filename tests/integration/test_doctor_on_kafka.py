"""`tracerctl doctor` on a real Apache Kafka: topics as described and not, permissions, clocks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic
from typer.testing import CliRunner

from deploy.kafka.local_kafka import KafkaUnavailable, LocalKafka
from services.ctl.doctor import probe
from services.ctl.embedded.ports import LOOPBACK, free_port
from services.ctl.main import app
from shared.bus.admin import ensure_topics
from shared.contracts.topics import Topic, load_topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
ALL_BUT_MODELS = ("--service", "ingest", "--service", "teacher", "--service", "console")
PASSWORD = "not-to-be-shown"


@pytest.fixture(scope="module")
def secured() -> Iterator[dict[str, str]]:
    """One broker with ACLs: `inner` for whoever is on this machine, `outer` for user tracer."""
    inner, outer, controller = (free_port() for _ in range(3))
    listeners = f"PLAINTEXT://{LOOPBACK}:{inner},OUTER://{LOOPBACK}:{outer}"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = {
        "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller}",
        "advertised.listeners": listeners,
        "controller.quorum.voters": f"1@{LOOPBACK}:{controller}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTER:SASL_PLAINTEXT"
        ),
        "listener.name.outer.sasl.enabled.mechanisms": "PLAIN",
        "listener.name.outer.plain.sasl.jaas.config": (
            f'{login} required user_tracer="{PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
    }
    try:
        with LocalKafka(port=inner, properties=properties):
            yield {"inner": f"{LOOPBACK}:{inner}", "outer": f"{LOOPBACK}:{outer}"}
    except KafkaUnavailable as why:
        pytest.skip(str(why))


@pytest.fixture
def prefix(
    secured: dict[str, str], redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    prefix = f"d{uuid4().hex[:8]}-"
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text("tasks:\n- name: support\n")
    monkeypatch.setenv("TRACER_TASKS", str(tasks))
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", secured["inner"])
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("TRACER_GROUP_SUFFIX", f"-{prefix}")
    return prefix


@pytest.fixture
def admin(secured: dict[str, str]) -> AdminClient:
    return AdminClient({"bootstrap.servers": secured["inner"]})


def examined(*arguments: str, code: int) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(app, ["doctor", "--json", *ALL_BUT_MODELS, *arguments])
    assert result.exit_code == code, result.output
    assert PASSWORD not in result.output
    return {check["check"]: check for check in json.loads(result.stdout)["checks"]}


def as_tracer(secured: dict[str, str], monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    login = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "tracer",
        "sasl.password": password,
    }
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", secured["outer"])
    monkeypatch.setenv("TRACER_KAFKA", json.dumps(login))


def allow(
    admin: AdminClient, kind: ResourceType, name: str, pattern: ResourcePatternType, *may: str
) -> None:
    rules = [
        AclBinding(
            kind,
            name,
            pattern,
            "User:tracer",
            "*",
            AclOperation[operation],
            AclPermissionType.ALLOW,
        )
        for operation in may
    ]
    for future in admin.create_acls(rules).values():
        future.result(20)
    time.sleep(1)  # the broker hears of it from the controller


def test_a_cluster_that_is_well_and_a_record_through_it(
    secured: dict[str, str], prefix: str, admin: AdminClient
) -> None:
    ensure_topics(secured["inner"], load_topics().values(), prefix=prefix)
    found = examined("--probe", code=0)
    for topic in set(Topic) - {Topic.REQUESTS}:
        # One broker: fewer copies than production wants, which is said and no failure.
        assert found[f"topic.{topic}"]["state"] == "warning"
        assert "1 of 3 copies" in found[f"topic.{topic}"]["found"]
        assert found[f"may.{topic}"]["state"] == "ok", found[f"may.{topic}"]
    for check in ("kafka.reach", "kafka.round_trip", "kafka.clock", "kafka.transactions"):
        assert found[check]["state"] == "ok", found[check]
    deadline = time.monotonic() + 20  # a broker deletes after it has said that it will
    while any("doctor" in name for name in admin.list_topics(timeout=10).topics):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_broker_whose_clock_is_wrong(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(probe, "_now", lambda: now() - 120)
    found = examined("--probe", code=1)["kafka.clock"]
    assert found["state"] == "failed"
    assert "clock is +1" in found["found"]


def test_topics_unlike_their_description(prefix: str, admin: AdminClient) -> None:
    wrong = {
        "models": {"cleanup.policy": "compact", "retention.ms": "-1"},
        "traces": {"retention.ms": "1000"},
        "traces.raw": {"max.message.bytes": "1000"},
        "decisions": {"retention.ms": "-1", "min.insync.replicas": "2"},
    }
    new = [
        NewTopic(prefix + name, 3, 1, config={"retention.ms": "-1"} | config)
        for name, config in wrong.items()
    ]
    for future in admin.create_topics(new).values():
        future.result(20)
    found = examined(code=1)
    for name, setting in (
        ("models", "cleanup.policy=[delete]"),
        ("traces", "retention.ms=["),
        ("traces.raw", "max.message.bytes=[1048576]"),
        ("decisions", "min.insync.replicas=1"),
    ):
        assert found[f"topic.{name}"]["state"] == "failed", found[f"topic.{name}"]
        assert setting in found[f"topic.{name}"]["fix"]
    assert "tracerctl topics create" in found["topic.deferred"]["fix"]


def test_a_user_who_may_not(
    secured: dict[str, str], prefix: str, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(secured["inner"], load_topics().values(), prefix=prefix)
    as_tracer(secured, monkeypatch, PASSWORD)
    prefixed = ResourcePatternType.PREFIXED
    allow(admin, ResourceType.TOPIC, prefix, prefixed, "READ", "DESCRIBE_CONFIGS")
    found = examined(code=1)
    assert found["may.traces"]["state"] == "failed"  # ingest writes them
    assert found["may.traces"]["found"].endswith("may not write")
    grant = found["may.traces"]["fix"]
    assert f"--operation Write --topic {prefix}traces" in grant
    assert "User:tracer" in grant
    assert found["may.group.teacher"]["state"] == "failed"
    assert f"--group tracer-teacher-{prefix}" in found["may.group.teacher"]["fix"]

    allow(admin, ResourceType.TOPIC, prefix, prefixed, "WRITE")
    allow(admin, ResourceType.GROUP, "tracer-", prefixed, "READ")
    found = examined("--probe", code=0)
    assert found["may.traces"]["state"] == "ok"
    assert found["kafka.round_trip"]["state"] == "skipped"  # may not make a topic
    assert "AUTHORIZATION_FAILED" in found["kafka.round_trip"]["found"]

    allow(admin, ResourceType.TOPIC, prefix, prefixed, "CREATE", "DELETE")
    found = examined("--probe", code=1)
    assert found["kafka.round_trip"]["state"] == "ok"
    assert found["kafka.transactions"]["state"] == "failed"
    assert "transactional id" in found["kafka.transactions"]["fix"]


def test_a_source_that_ingest_may_not_read(
    secured: dict[str, str], prefix: str, tmp_path: Path, admin: AdminClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ensure_topics(secured["inner"], load_topics().values(), prefix=prefix)
    theirs = f"otlp_spans_{prefix}"
    for future in admin.create_topics([NewTopic(theirs, 1, 1)]).values():
        future.result(20)
    source = f"  sources: [{{format: otlp_proto, topic: {theirs}}}]\n"
    (tmp_path / "tasks.yaml").write_text(f"tasks:\n- name: support\n{source}")
    as_tracer(secured, monkeypatch, PASSWORD)
    literal, topic = ResourcePatternType.LITERAL, ResourceType.TOPIC
    allow(admin, topic, theirs, literal, "DESCRIBE")
    found = examined(code=1)
    assert found[f"source.{theirs}"]["state"] == "ok"
    assert found[f"may.source.{theirs}"]["found"].endswith("may not read")
    assert f"--operation Read --topic {theirs}" in found[f"may.source.{theirs}"]["fix"]
    allow(admin, topic, theirs, literal, "READ")
    assert examined(code=1)[f"may.source.{theirs}"]["state"] == "ok"


def test_a_wrong_password(
    secured: dict[str, str], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_tracer(secured, monkeypatch, "a-guess")
    found = examined("--patience", "3", code=1)["kafka.reach"]
    assert found["state"] == "failed"
    assert "uthentication" in found["found"]
    assert "a-guess" not in json.dumps(found)
