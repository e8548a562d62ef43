"""`tracerctl doctor` on the demo's own broker and a real redis-server, well and unwell."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from confluent_kafka.admin import AclOperation, AdminClient
from typer.testing import CliRunner

from services.ctl.doctor import files, permissions, probe, redis_checks
from services.ctl.doctor.findings import (
    DoctorSettings,
    Finding,
    Patient,
    Service,
    State,
    clock,
    ok,
)
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.key_commands import KEYRING, SIGNING_KEY, make_key
from services.ctl.main import app
from shared.contracts.topics import Topic, load_topics
from shared.registry.redis import connect
from tests.artifacts import make_artifact
from tests.redis_topologies import cluster

ROOT = Path(__file__).resolve().parents[3]
NO_ENCODER = ("--service", "ingest", "--service", "teacher", "--service", "console")
TASKS = "tasks:\n- name: support\n  labels: [a, b]\n"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as started:
        started.create_topics(topic.value for topic in Topic)
        yield started


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def stack(
    broker: EmbeddedBroker, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The environment of a stack that is well; the tasks file."""
    tasks = tmp_path / "tasks.yaml"
    tasks.write_text(TASKS)
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    monkeypatch.setenv("TRACER_REDIS_URL", redis_url)
    monkeypatch.setenv("TRACER_TASKS", str(tasks))
    return tasks


def examined(*arguments: str, code: int) -> dict[str, dict[str, Any]]:
    """The findings by check. What is not well always says what to do."""
    result = CliRunner().invoke(app, ["doctor", "--json", "--patience", "3", *arguments])
    assert result.exit_code == code, result.output
    told = json.loads(result.stdout)
    assert told["well"] == (code == 0)
    for check in told["checks"]:
        assert check["found"]
        assert bool(check["fix"]) == (check["state"] in ("failed", "warning")), check
    return {check["check"]: check for check in told["checks"]}


def test_a_stack_that_is_well(stack: Path) -> None:
    found = examined(*NO_ENCODER, code=0)
    assert {f"topic.{topic}" for topic in Topic} == {c for c in found if c[:6] == "topic."}
    assert {found[f"topic.{topic}"]["state"] for topic in Topic} == {"ok"}
    for check in ("tasks.file", "kafka.reach", "redis.reach", "redis.clock", "redis.memory"):
        assert found[check]["state"] == "ok", found[check]
    assert found["redis.persistence"]["found"] == "append-only file"
    assert found["redis.permissions"]["state"] == "ok"
    assert found["encoder.artifact"]["state"] == "skipped"
    assert found["kafka.permissions"]["state"] == "skipped"


def test_people_get_a_table_with_what_to_do(stack: Path) -> None:
    stack.write_text("tasks: 3\n")
    result = CliRunner().invoke(app, ["doctor", *NO_ENCODER])
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert "→" in result.stdout
    assert "1 failed" in result.stdout
    assert "\x1b" not in result.stdout


def test_nobody_answers(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("TRACER_BOOTSTRAP_SERVERS", nowhere)
    monkeypatch.setenv("TRACER_REDIS_URL", f"redis://:hush@{nowhere}/0")
    found = examined(*NO_ENCODER, code=1)
    assert found["kafka.reach"]["state"] == "failed"
    assert "TRACER_BOOTSTRAP_SERVERS" in found["kafka.reach"]["fix"]
    assert found["redis.reach"]["state"] == "failed"
    assert "TRACER_REDIS_URL" in found["redis.reach"]["fix"]
    assert found["redis.permissions"]["state"] == "skipped"
    assert "hush" not in json.dumps(found)


def test_topics_that_are_missing(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACER_TOPIC_PREFIX", "elsewhere-")
    found = examined("--service", "ingest", code=1)
    assert found["topic.traces"]["state"] == "failed"
    assert "tracerctl topics create" in found["topic.traces"]["fix"]
    assert "topic.decisions" not in found  # none of ingest's


def test_the_sources_that_ingest_reads(stack: Path, broker: EmbeddedBroker) -> None:
    broker.create_topics(["otlp_spans"])
    mapping = "  sources: [{format: otlp_proto, topic: %s}]\n"
    stack.write_text(TASKS + mapping % "otlp_spans")
    found = examined("--service", "ingest", code=0)
    assert found["sources.mappings"]["found"] == "1, of topics: otlp_spans"
    assert found["source.otlp_spans"]["state"] == "ok"
    assert "source.otlp_spans" not in examined("--service", "teacher", code=0)
    stack.write_text(TASKS + mapping % "otel_spans")
    found = examined("--service", "ingest", code=1)
    assert found["source.otel_spans"]["state"] == "failed"
    assert "`sources`" in found["source.otel_spans"]["fix"]
    stack.write_text(TASKS + "  sources: [{format: jsonl, input: '$.['}]\n")
    found = examined("--service", "ingest", code=1)
    assert "task 'support', source 'jsonl': input" in found["sources.mappings"]["found"]


def test_what_a_trial_needs_of_a_day(stack: Path) -> None:
    assert not [check for check in examined(*NO_ENCODER, code=0) if check[:8] == "rollout."]
    stack.write_text(TASKS + "  rollout: shadow\n  promote_after: 200\n  audit_share: 0.02\n")
    found = examined(*NO_ENCODER, "--service", "trainer", code=1)  # no encoder
    assert found["rollout.support"]["state"] == "ok"
    assert "10,000 requests a day" in found["rollout.support"]["found"]
    stack.write_text(TASKS + "  rollout: canary\n  audit_share: 0\n")
    found = examined(*NO_ENCODER, "--service", "trainer", code=1)  # no encoder
    assert found["rollout.support"]["state"] == "warning"


def test_a_setting_that_is_none_is_a_usage_error(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_DELIVERY", "sometimes")
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 2
    assert "TRACER_DELIVERY" in result.stderr


def test_kafka_settings_that_librdkafka_does_not_know(
    stack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACER_KAFKA", '{"no.such.setting": "1"}')
    found = examined("--service", "ingest", code=1)
    assert "no.such.setting" in found["kafka.settings"]["found"]


def test_keys(stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only = ("--service", "trainer")
    monkeypatch.setenv("TRACER_ENCODER", str(tmp_path))
    assert examined(*only, code=1)["keys.trusted"]["state"] == "warning"  # unsigned is allowed
    monkeypatch.delenv("TRACER_UNSIGNED")
    refused = examined(*only, code=1)
    assert refused["keys.trusted"]["state"] == "failed"
    assert "tracerctl keys new" in refused["keys.trusted"]["found"]
    assert "tracerctl encoder export" in refused["encoder.artifact"]["fix"]


def test_keys_that_others_may_change_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "keys"
    make_key(folder)
    monkeypatch.delenv("TRACER_UNSIGNED")
    monkeypatch.setenv("TRACER_TRUSTED_KEYS", str(folder / KEYRING))
    monkeypatch.setenv("TRACER_SIGNING_KEY_FILE", str(folder / SIGNING_KEY))

    def said() -> Finding:
        return files.keys(Patient(DoctorSettings(), (Service.TRAINER,)))

    assert said().state is State.OK
    (folder / SIGNING_KEY).chmod(0o644)
    assert said().state is State.WARNING
    assert "chmod 600" in said().fix
    (folder / KEYRING).chmod(0o666)
    assert "others may write" in said().found


def test_an_active_version_of_another_encoder(
    stack: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.write_text(TASKS.replace("support", "doctored"))
    artifact = make_artifact("doctored")
    registry = connect(redis_url)
    registry.publish(
        artifact, fence=registry.acquire("doctored"), at=datetime.now(UTC), reason="test"
    )
    registry.close()
    digests = [artifact.manifest.encoder, "0" * 64]
    monkeypatch.setattr(files, "encoder", lambda _: (ok("encoder.artifact", "-"), digests.pop(0)))
    assert examined("--service", "router", code=0)["version.doctored"]["state"] == "ok"
    other = examined("--service", "router", code=1)["version.doctored"]
    assert "TRACER_ENCODER" in other["fix"]


def looked(url: str) -> dict[str, Finding]:
    patient = Patient(DoctorSettings(redis_url=url), patience=3)  # type: ignore[arg-type]
    return {finding.check: finding for finding in redis_checks.examine(patient)}


def test_a_redis_that_evicts_and_forgets(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        assert looked(own_redis.url)["redis.memory"].state is State.WARNING  # never full
        admin.config_set("maxmemory", "50mb")
        admin.config_set("appendonly", "no")
        found = looked(own_redis.url)
        assert found["redis.memory"].state is State.FAILED
        assert found["redis.persistence"].state is State.FAILED
        assert "appendonly yes" in found["redis.persistence"].fix
        admin.config_set("save", "3600 1")
        assert looked(own_redis.url)["redis.persistence"].state is State.WARNING
        keys = admin.keys("*")
    assert keys == [], "it left something behind"


def test_a_redis_user_who_may_not_enough(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as admin:
        admin.execute_command(
            "ACL SETUSER reader on >pw ~tracer:* resetchannels +@read +ping +info +time"
        )
        url = own_redis.url.replace("://", "://reader:pw@")
        found = looked(url)
        refused = found["redis.permissions"]
        assert refused.state is State.FAILED
        for word in ("SET", "DEL", "EVAL", "PUBLISH", "SUBSCRIBE"):
            assert f"({word}" in refused.found, refused
        assert "(GET)" not in refused.found
        admin.execute_command(
            "ACL SETUSER reader ~tracer:* &tracer:* "
            "+@read +@write +@scripting +@pubsub +@connection"
        )
        assert looked(url)["redis.permissions"].state is State.OK  # the fix is one
        wrong = looked(url.replace("pw@", "guess@"))["redis.reach"]
        assert wrong.state is State.FAILED
        assert "password" in wrong.fix
        assert "guess" not in wrong.found


@pytest.fixture
def redis_users(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """With the users of deploy/redis; the tests' own redis-server knows no read-only keys."""
    users = tmp_path / "users.conf"
    users.write_text((ROOT / "deploy/redis/users.conf").read_text().replace("%R~", "~"))
    with EmbeddedRedis(tmp_path / "redis", settings={"include": str(users)}) as server:
        yield server


def seen_as(server: EmbeddedRedis, user: str, *services: Service) -> dict[str, Finding]:
    settings = DoctorSettings(
        redis_url=f"redis://{user}:change-me-{user}@127.0.0.1:{server.port}/0",  # type: ignore[arg-type]
        teacher_budget_store="redis",
    )
    patient = Patient(settings, services, patience=3)
    return {finding.check: finding for finding in redis_checks.examine(patient)}


@pytest.mark.parametrize(
    ("user", "services"),
    [
        ("owner", (Service.TRAINER, Service.CONSOLE)),
        ("owner", tuple(Service)),
        ("router", (Service.ROUTER,)),
        ("ingest", (Service.INGEST,)),
        ("teacher", (Service.TEACHER,)),
    ],
)
def test_the_redis_users_that_are_shipped_are_well(
    redis_users: EmbeddedRedis, user: str, services: tuple[Service, ...]
) -> None:
    found = seen_as(redis_users, user, *services)
    states = {check: finding.state for check, finding in found.items()}
    assert (states["redis.reach"], states["redis.permissions"]) == (State.OK, State.OK), found
    assert State.FAILED not in states.values()
    asked = State.OK if user == "owner" else State.SKIPPED  # INFO and TIME
    assert states["redis.memory"] is states["redis.persistence"] is asked
    assert states["redis.clock"] is asked
    with redis.Redis(port=redis_users.port) as admin:
        assert admin.keys("*") == [], "it left something behind"


@pytest.mark.parametrize("user", ["router", "ingest", "teacher"])
def test_a_redis_user_of_another_service_is_advised_its_own_rights(
    redis_users: EmbeddedRedis, user: str
) -> None:
    for service in (Service.ROUTER, Service.INGEST, Service.TEACHER):
        if service != user:
            found = seen_as(redis_users, user, service)["redis.permissions"]
            assert found.state is State.FAILED
            assert found.fix == f"give it what deploy/redis/users.conf gives to {service}"
    owning = seen_as(redis_users, user, Service.TRAINER)["redis.permissions"]
    assert owning.state is State.FAILED
    assert "~tracer:*" in owning.fix


def test_a_teacher_that_counts_by_itself_asks_nothing_of_redis(redis_url: str) -> None:
    settings = DoctorSettings(redis_url=redis_url)  # type: ignore[arg-type]
    found = redis_checks.examine(Patient(settings, (Service.TEACHER,), patience=3))
    assert {f.check: f.state for f in found}["redis.permissions"] is State.SKIPPED


def test_a_redis_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        found = looked(f"redis+cluster://{hosts}")
    assert {finding.state for finding in found.values()} == {State.OK}, found


@pytest.mark.parametrize(
    ("ahead", "state"), [(0.4, State.OK), (-1.2, State.OK), (1.6, State.FAILED), (-9, State.FAILED)]
)
def test_clocks(ahead: float, state: State) -> None:
    assert clock("redis.clock", ahead, 0.5, Patient(DoctorSettings()), "Redis").state is state


def test_a_transaction_that_does_not_come_back_is_a_finding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    class Away:
        def __init__(self, config: object, logger: object) -> None: ...

        def init_transactions(self, timeout: float) -> None:
            answered.wait(30)

    monkeypatch.setattr(probe, "Producer", Away)
    monkeypatch.setattr(probe, "_GRACE", 0.05)
    found = probe._transaction("topic", Patient(DoctorSettings(), patience=0.05))
    assert found.state is State.FAILED
    assert "did not come back" in found.found
    answered.set()


def test_redis_of_another_time(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(redis_checks.time, "time", lambda: now() + 60)
    found = looked(redis_url)["redis.clock"]
    assert found.state is State.FAILED
    assert "-60" in found.found


def test_trouble_needs_a_fix() -> None:
    with pytest.raises(ValueError, match="names no fix"):
        Finding("x", State.FAILED, "broken")


class Groups:
    """An admin client of a broker that lets this user read every group, and no more."""

    def describe_consumer_groups(self, names: list[str], **_: Any) -> dict[str, Any]:
        may = SimpleNamespace(authorized_operations=[AclOperation.READ, AclOperation.DESCRIBE])
        return {name: SimpleNamespace(result=lambda _: may) for name in names}


def test_the_trainer_must_be_able_to_begin_anew() -> None:
    """It deletes its group where its store is lost; without the right it would go on where it was,
    and the windows of before would be gone."""
    patient = Patient(DoctorSettings(), (Service.TRAINER, Service.ROUTER))
    found = {
        each.check: each for each in permissions.of_groups(cast(AdminClient, Groups()), patient)
    }
    assert found["may.group.router"].state is State.OK
    assert found["may.group.trainer"].state is State.FAILED
    assert "--operation Delete --group tracer-trainer" in found["may.group.trainer"].fix


def test_the_guide_names_the_rights_that_services_need() -> None:
    """Of topics: what schemas/topics say, which doctor asks for."""
    text = (ROOT / "docs" / "connections.md").read_text()
    rows = dict(re.findall(r"^\| (\w+) \| (.*)$", text, re.M))
    for spec in load_topics().values():
        for service in Service:
            reads, writes, *_ = rows[service].split(" | ")
            if service in spec.consumers:
                assert f"`{spec.topic}`" in reads, f"{service} reads {spec.topic}"
            if service in spec.producers:
                assert f"`{spec.topic}`" in writes, f"{service} writes {spec.topic}"
