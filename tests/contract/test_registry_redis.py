from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.ctl.embedded.ports import free_port
from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.registry.base import (
    Active,
    CorruptArtifact,
    Registry,
    RegistryError,
    RegistryUnavailable,
    State,
)
from shared.registry.glances import connect_glances
from shared.registry.redis import RedisRegistry, connect
from shared.registry.scripts import (
    END_TRIAL,
    MAX_HISTORY,
    RETIRE,
    ROLLBACK,
    SET_ALPHA,
    SET_STATE,
    Keys,
)
from tests.artifacts import make_artifact
from tests.contract.registry_laws import (
    AT,
    RegistryLaws,
    publish,
    publish_windows,
    settle,
    window_artifact,
)
from tests.contract.registry_report_laws import ReportLaws
from tests.contract.registry_state_laws import StateLaws, set_state, start_trial

pytestmark = pytest.mark.redis


class TestRedisRegistry(RegistryLaws, StateLaws, ReportLaws):
    @pytest.fixture(autouse=True)
    def _server(self, redis_url: str) -> None:
        self.url = redis_url

    def make(self, keep_versions: int = 20) -> RedisRegistry:
        return connect(self.url, keep_versions=keep_versions)

    def corrupt(self, registry: Registry, task: str, version: str) -> None:
        with redis.Redis.from_url(self.url) as client:
            for field, blob in client.hscan_iter(Keys.of(task).blobs, f"{version}/*"):
                client.hset(Keys.of(task).blobs, field, bytes([blob[0] ^ 1]) + blob[1:])

    def corrupt_report(self, registry: Registry, task: str, key: str) -> None:
        with redis.Redis.from_url(self.url) as client:
            stored = client.hget(Keys.of(task).reports, key)
            client.hset(Keys.of(task).reports, key, stored[:-1])


@pytest.fixture
def registry(redis_url: str) -> Iterator[RedisRegistry]:
    registry = connect(redis_url)
    yield registry
    registry.close()


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """One that a test may stop and kill."""
    with EmbeddedRedis(tmp_path / "redis") as server:
        yield server


def test_bytes_of_another_size_are_not_even_fetched(
    registry: RedisRegistry, client: redis.Redis
) -> None:
    artifact = make_artifact("sizes")
    publish(registry, artifact)
    (digest,) = artifact.blobs
    client.hset(Keys.of("sizes").blobs, f"{artifact.version}/{digest}", bytes(100_000))
    with pytest.raises(CorruptArtifact, match="has 100000 bytes, published 512"):
        registry.load("sizes", artifact.version)
    client.hdel(Keys.of("sizes").blobs, f"{artifact.version}/{digest}")
    with pytest.raises(CorruptArtifact, match="has 0 bytes"):
        registry.load("sizes", artifact.version)


@pytest.mark.parametrize("replacement", [b"", b"\xff\x00", b"[]", b"[" * 100_000])
def test_a_changed_manifest_is_detected(
    registry: RedisRegistry, client: redis.Redis, replacement: bytes
) -> None:
    artifact = make_artifact("manifests")
    publish(registry, artifact)
    changed = replacement or artifact.manifest_bytes.replace(b"0.5", b"0.1")
    client.hset(Keys.of("manifests").manifests, artifact.version, changed)
    with pytest.raises(CorruptArtifact, match=artifact.version):
        registry.load("manifests", artifact.version)


def test_an_artifact_of_another_task_is_detected(
    registry: RedisRegistry, client: redis.Redis
) -> None:
    artifact = make_artifact("origin")
    publish(registry, artifact)
    client.copy(Keys.of("origin").manifests, Keys.of("moved").manifests)
    with pytest.raises(CorruptArtifact, match="made for task origin"):
        registry.load("moved", artifact.version)


def test_what_a_newer_release_wrote_into_the_history_is_passed_over(
    redis_url: str, registry: RedisRegistry, client: redis.Redis
) -> None:
    publish(registry, make_artifact("newer"))
    known = registry.history("newer")
    client.lpush(Keys.of("newer").history, b'{"kind": "hibernated", "version": null}')
    assert registry.history("newer") == known
    glances = connect_glances(redis_url)
    assert glances.glance(["newer"])[0].newest is None
    glances.close()


def test_a_deleted_version_leaves_no_bytes_behind(redis_url: str, client: redis.Redis) -> None:
    registry = connect(redis_url, keep_versions=2)
    versions = publish_windows(registry, "pruned", 1)
    set_state(registry, "pruned", State.TRIPPED, versions[0])
    for number in range(5):
        versions.append(publish(registry, window_artifact("pruned", number)).version or "")
        registry.record_audits("pruned", versions[-1], 0, [(number, True)])
    registry.close()
    keys = Keys.of("pruned")
    kept = {version.encode() for version in versions[-2:]}
    assert set(client.hkeys(keys.manifests)) == set(client.hkeys(keys.files)) == kept
    assert {field.split(b"/")[0] for field in client.hkeys(keys.blobs)} == kept
    assert client.lrange(keys.trail, 0, -1) == [versions[-2].encode()]
    assert client.smembers(keys.tripped) == set()
    left = {key.rpartition(b":")[2] for key in client.keys(f"{keys.outcomes}:*")}
    assert left == {key.rpartition(b":")[2] for key in client.keys(f"{keys.marks}:*")} == kept


def test_the_history_is_bounded(registry: RedisRegistry, client: redis.Redis) -> None:
    first, second = publish_windows(registry, "long", 2)
    client.lpush(Keys.of("long").history, *[b'{"call": ""}'] * MAX_HISTORY)
    registry.rollback("long", to=first, at=AT, reason="")
    assert client.llen(Keys.of("long").history) == MAX_HISTORY
    assert registry.history("long", limit=1)[0].previous == second


def test_a_cluster_takes_every_script(tmp_path: Path) -> None:
    """One node that owns every slot, and refuses a script whose keys lie on several."""
    port = next(port for port in iter(free_port, None) if port < 55_000)  # its bus: 10,000 above
    with EmbeddedRedis(tmp_path, port, settings={"cluster-enabled": "yes"}) as node:
        with redis.Redis.from_url(node.url) as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
            deadline = time.monotonic() + 20
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline
                time.sleep(0.05)
        registry = connect(node.url, keep_versions=2)
        versions = publish_windows(registry, "slots", 4)
        assert registry.rollback("slots", to=None, at=AT, reason="").version == versions[-2]
        set_state(registry, "slots", State.PROBATION, versions[-2])
        start_trial(registry, window_artifact("slots", 4))
        trial = registry.promote("slots", at=AT, reason="").version or ""
        assert registry.record_audits("slots", trial, 0, [(1, True)]) == 1
        assert registry.audits("slots", trial) == (True,)
        registry.retire("slots", at=AT, reason="")
        assert registry.load("slots", trial).version == trial
        registry.close()


def test_a_change_sent_again_after_a_lost_reply_happens_once(
    registry: RedisRegistry, client: redis.Redis
) -> None:
    versions = publish_windows(registry, "replies", 3)
    keys = Keys.of("replies").all()
    rollback = ["channel", "replies", "call-1", AT.isoformat(), "why", "maria", ""]
    first = client.eval(ROLLBACK, len(keys), *keys, *rollback)
    assert client.eval(ROLLBACK, len(keys), *keys, *rollback) == first
    assert registry.active("replies").version == versions[1]
    retire = ["channel", "replies", "call-2", AT.isoformat(), "why", "", ""]
    first = client.eval(RETIRE, len(keys), *keys, *retire)
    assert client.eval(RETIRE, len(keys), *keys, *retire) == first
    assert registry.active("replies").epoch == 5


@pytest.mark.parametrize(
    ("script", "arguments", "kind"),
    [
        (SET_STATE, ["paused", ""], "paused"),
        (SET_STATE, ["probation", "serving"], "probation"),
        (END_TRIAL, ["promoted", "", ""], "promoted"),
        (END_TRIAL, ["promoted", "", "2"], "promoted"),
        (END_TRIAL, ["withdrawn", "", ""], "withdrawn"),
        (SET_ALPHA, ["0.97", ""], "alpha"),
        (SET_ALPHA, ["0.97", "2"], "alpha"),
    ],
)
def test_states_and_trials_sent_again_change_once(
    registry: RedisRegistry,
    client: redis.Redis,
    script: str,
    arguments: list[str],
    kind: str,
) -> None:
    task = f"again-{kind}-{sum(map(bool, arguments))}"
    (version,) = publish_windows(registry, task, 1)
    start_trial(registry, window_artifact(task, 1))
    if script is SET_STATE:
        arguments = [version, *arguments]
    call = ["channel", task, "call-1", AT.isoformat(), "why", "", *arguments]
    keys = Keys.of(task).all()
    first = client.eval(script, len(keys), *keys, *call)
    after = registry.active(task)
    assert client.eval(script, len(keys), *keys, *call) == first
    assert registry.active(task) == after
    assert [entry.kind for entry in registry.history(task)] == [kind, "shadow", "published"]


@pytest.mark.parametrize("field", [{"state": "asleep"}, {"trial": "v", "mode": "x", "share": "1"}])
def test_a_pointer_only_a_newer_registry_understands_is_no_pointer(
    registry: RedisRegistry, client: redis.Redis, field: dict[str, str]
) -> None:
    task = f"newer-{len(field)}"
    publish_windows(registry, task, 1)
    client.hset(Keys.of(task).active, mapping=field)
    with pytest.raises(RegistryError, match="cannot be read"):
        registry.active(task)
    found = registry.pointers([task, f"{task}-other"])
    assert isinstance(found[task], RegistryError)
    assert found[f"{task}-other"] == Active(None, 0)


def test_data_survives_a_crash_of_the_server(server: EmbeddedRedis) -> None:
    registry = connect(server.url)
    first, second = publish_windows(registry, "durable", 2)
    fence = registry.acquire("durable")
    server.kill()
    server.start()
    assert registry.active("durable").version == second
    assert registry.load("durable", second).version == second
    assert registry.acquire("durable") > fence
    assert registry.rollback("durable", to=None, at=AT, reason="").version == first
    registry.close()


def test_a_killed_server_is_unavailable_at_once_and_welcome_back(server: EmbeddedRedis) -> None:
    registry = connect(server.url)
    artifact = make_artifact("killed")
    fence = registry.acquire("killed")
    active = registry.publish(artifact, fence=fence, at=AT, reason="")
    settle(registry)
    server.stop()
    for call in (
        lambda: registry.active("killed"),
        lambda: registry.pointers(["killed", "other"]),
        lambda: registry.load("killed", artifact.version),
        lambda: registry.publish(artifact, fence=fence, at=AT, reason=""),
        lambda: registry.rollback("killed", to=None, at=AT, reason=""),
        lambda: registry.retire("killed", at=AT, reason=""),
        lambda: set_state(registry, "killed", State.PAUSED, artifact.version),
        lambda: registry.promote("killed", at=AT, reason=""),
        lambda: registry.record_audits("killed", artifact.version, 0, [(1, True)]),
        lambda: registry.audits("killed", artifact.version),
        lambda: registry.acquire("killed"),
        lambda: registry.versions("killed"),
        lambda: registry.history("killed"),
        lambda: registry.wait_for_change(30.0),
    ):
        started = time.monotonic()
        with pytest.raises(RegistryUnavailable, match=str(server.port)):
            call()
        assert time.monotonic() - started < 3.0
    server.start()
    assert registry.active("killed") == active
    assert registry.load("killed", artifact.version).version == artifact.version
    assert registry.wait_for_change(5.0)  # hints may have been missed
    settle(registry)
    registry.retire("killed", at=AT, reason="")
    assert registry.wait_for_change(5.0)
    registry.close()


def test_a_silent_server_is_noticed(server: EmbeddedRedis) -> None:
    """As behind a half-open connection: the socket stays open and nothing ever comes."""
    registry = connect(server.url, socket_timeout=0.5, quiet_seconds=0.5)
    with redis.Redis.from_url(server.url) as client:
        pid = int(client.info("server")["process_id"])
    settle(registry)
    registry.active("silent")
    os.kill(pid, signal.SIGSTOP)
    try:
        for call in (lambda: registry.wait_for_change(30.0), lambda: registry.active("silent")):
            started = time.monotonic()
            with pytest.raises(RegistryUnavailable):
                call()
            assert time.monotonic() - started < 3.0
    finally:
        os.kill(pid, signal.SIGCONT)
    assert registry.active("silent").epoch == 0
    assert registry.wait_for_change(5.0)
    registry.close()


def test_a_quiet_but_living_subscription_is_kept(redis_url: str) -> None:
    registry = connect(redis_url, socket_timeout=0.3, quiet_seconds=0.2)
    settle(registry)
    assert not registry.wait_for_change(1.5)
    registry.close()


def test_hints_cross_from_one_registry_to_another(registry: RedisRegistry, redis_url: str) -> None:
    other = connect(redis_url)
    settle(other)
    publish(registry, make_artifact("crossing"))
    assert other.wait_for_change(5.0)
    assert other.active("crossing") == registry.active("crossing")
    other.close()


def test_closing_ends_a_wait(redis_url: str) -> None:
    registry = connect(redis_url)
    settle(registry)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(registry.wait_for_change(30.0)))
    thread.start()
    time.sleep(0.2)
    registry.close()
    thread.join(3.0)
    assert [bool(hint) for hint in answers] == [False]


def test_a_read_only_replica_is_unavailable(server: EmbeddedRedis) -> None:
    registry = connect(server.url)
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(RegistryUnavailable):
            publish(registry, window_artifact("replica", 0))
    registry.close()


def test_other_refusals_are_registry_errors(registry: RedisRegistry, client: redis.Redis) -> None:
    client.set(Keys.of("wrong-type").active, "a string")
    with pytest.raises(RegistryError, match="WRONGTYPE") as caught:
        registry.active("wrong-type")
    assert not isinstance(caught.value, RegistryUnavailable)
    found = registry.pointers(["right-type", "wrong-type"])
    assert found["right-type"] == Active(None, 0)
    assert isinstance(found["wrong-type"], RegistryError)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2/2@127.0.0.1:1/0",
        "redis://user:pass@127.0.0.1:hunter2/0",
        "hunter2://127.0.0.1:1",
        "redis://127.0.0.1:1/0?socket_timeout=hunter2",
    ],
)
def test_a_wrong_url_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL") as caught:
        connect(url)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_never_in_an_error(server: EmbeddedRedis) -> None:
    away = connect("redis://tracer:hunter2@127.0.0.1:1/0")
    with pytest.raises(RegistryUnavailable) as caught:
        away.active("secret")
    assert "hunter2" not in str(caught.value)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("requirepass", "correct")
    refused = connect(f"redis://:hunter2@127.0.0.1:{server.port}/0")
    with pytest.raises(RegistryUnavailable) as caught:
        refused.active("secret")
    assert "hunter2" not in repr(caught.value)
