from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.ctl.embedded import broker as broker_module
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import (
    Child,
    ChildDied,
    ChildNotReady,
    Fleet,
    run_module,
    run_program,
)
from services.ctl.embedded.redis_server import EmbeddedRedis

HEALTHY = """
import os, signal, sys, threading
from shared.clock import SystemClock
from shared.telemetry.health import Health, HealthServer
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
health = Health(SystemClock())
server = HealthServer(health, "127.0.0.1", int(os.environ["TRACER_HEALTH_PORT"]))
if os.environ.get("READY", "yes") == "yes":
    health.ready()
else:
    health.not_ready("waiting for its model")
stop.wait()
print("drained", flush=True)
sys.exit(int(os.environ.get("CODE", "0")))
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], list[str]]:
    """Makes a module of the given source that children can run."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def make(name: str, source: str) -> list[str]:
        (folder / f"{name}.py").write_text(source)
        return run_module(name)

    return make


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker


def running(pid: int) -> bool:
    """A zombie, dead but not yet waited for by its new parent, does not run."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], timeout: float = 8.0) -> bool:
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


# --- Child


def test_a_child_becomes_ready_and_ends_when_asked(
    tmp_path: Path, module: Callable[[str, str], list[str]]
) -> None:
    child = Child(
        "healthy",
        module("healthy", HEALTHY),
        log=tmp_path / "logs" / "healthy.log",
        environment={"CODE": "3"},
        health_port=free_port(),
    )
    child.start()
    child.wait_ready(20)
    assert child.alive()
    assert child.exit_code is None
    with pytest.raises(RuntimeError, match="already running"):
        child.start()
    assert child.terminate() == 3
    assert not child.alive()
    assert child.exit_code == 3
    assert child.tail() == "drained"
    child.start()
    child.wait_ready(20)
    child.kill()
    assert child.exit_code == -signal.SIGKILL
    assert child.terminate() == -signal.SIGKILL


def test_a_child_that_is_not_ready_says_why(
    tmp_path: Path, module: Callable[[str, str], list[str]]
) -> None:
    child = Child(
        "unready",
        module("unready", HEALTHY),
        log=tmp_path / "unready.log",
        environment={"READY": "no"},
        health_port=free_port(),
    )
    with Fleet() as fleet:
        fleet.start(child)
        with pytest.raises(ChildNotReady, match="waiting for its model"):
            child.wait_ready(3)


def test_a_child_that_dies_while_starting_shows_its_log(
    tmp_path: Path, module: Callable[[str, str], list[str]]
) -> None:
    source = "for n in range(50): print('line', n)\nraise SystemExit('no such topic')"
    child = Child("broken", module("broken", source), log=tmp_path / "log", health_port=free_port())
    child.start()
    with pytest.raises(ChildDied, match=r"(?s)broken ended with exit code 1.*no such topic") as e:
        child.wait_ready(20)
    assert "line 49" in str(e.value)
    assert "line 30" not in str(e.value)


def test_a_child_deaf_to_sigterm_is_killed_after_the_grace(
    tmp_path: Path, module: Callable[[str, str], list[str]]
) -> None:
    child = Child("deaf", module("deaf", STUBBORN), log=tmp_path / "deaf.log")
    child.start()
    child.wait_until(lambda: child.tail() == "deaf", 20)
    started = time.monotonic()
    assert child.terminate(grace=0.5) == -signal.SIGKILL
    assert time.monotonic() - started < 5


def test_a_program_passes_on_its_exit_code(tmp_path: Path) -> None:
    child = Child("shell", run_program("/bin/sh", "-c", "echo out; exit 7"), log=tmp_path / "log")
    child.start()
    assert eventually(lambda: not child.alive())
    assert (child.exit_code, child.tail()) == (7, "out")


# --- Fleet


def test_a_fleet_stops_in_reverse_even_upon_ctrl_c(
    tmp_path: Path, module: Callable[[str, str], list[str]]
) -> None:
    order = tmp_path / "order"
    source = HEALTHY.replace(
        'print("drained", flush=True)', 'open(os.environ["ORDER"], "a").write(os.environ["NAME"])'
    )
    command = module("ordered", source)
    children = [
        Child(
            name,
            command,
            log=tmp_path / f"{name}.log",
            environment={"NAME": name, "ORDER": str(order)},
            health_port=free_port(),
        )
        for name in "abc"
    ]

    def interrupted() -> None:
        with Fleet() as fleet:
            for child in children:
                fleet.start(child)
            for child in children:
                child.wait_ready(20)
            fleet.check()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not any(child.alive() for child in children)
    assert order.read_text() == "cba"


def test_a_fleet_notices_a_death(tmp_path: Path, module: Callable[[str, str], list[str]]) -> None:
    with Fleet() as fleet:
        first = fleet.start(
            Child("one", module("healthy", HEALTHY), log=tmp_path / "1", health_port=free_port())
        )
        second = fleet.start(
            Child("two", module("healthy", HEALTHY), log=tmp_path / "2", health_port=free_port())
        )
        first.wait_ready(20)
        second.wait_ready(20)
        fleet.check()
        second.kill()
        with pytest.raises(ChildDied, match="two ended with exit code -9"):
            fleet.check()
    assert not first.alive()


def test_a_second_ctrl_c_kills_what_is_left(
    tmp_path: Path, module: Callable[[str, str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet()
    first = fleet.start(Child("first", module("deaf", STUBBORN), log=tmp_path / "1"))
    second = fleet.start(Child("second", module("deaf", STUBBORN), log=tmp_path / "2"))

    def interrupted(grace: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(second, "terminate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fleet.stop()
    assert first.exit_code == second.exit_code == -signal.SIGKILL


# --- servers


def test_redis_round_trip_and_restart(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    with server, redis.Redis.from_url(server.url) as client:
        assert client.set("key", "value")
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
    assert not server.child.alive()
    with pytest.raises(redis.ConnectionError):
        redis.Redis.from_url(server.url).ping()
    with server, redis.Redis.from_url(server.url) as client:
        assert client.get("key") == b"value"


def test_redis_on_a_taken_port_fails_with_its_log(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path / "one") as one:
        two = EmbeddedRedis(tmp_path / "two", one.port)
        with pytest.raises(ChildDied, match="Address already in use"):
            two.start()


def test_messages_cross_the_broker_between_processes(broker: EmbeddedBroker) -> None:
    broker.create_topics(["crossing"])
    code = (
        "import sys; from confluent_kafka import Producer\n"
        "producer = Producer({'bootstrap.servers': sys.argv[1]})\n"
        "for n in range(100): producer.produce('crossing', str(n), key=str(n % 7))\n"
        "sys.exit(producer.flush(10))"
    )
    subprocess.run([sys.executable, "-c", code, broker.bootstrap_servers], check=True, timeout=30)
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "crossing",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe(["crossing"])
    found: set[bytes] = set()
    deadline = time.monotonic() + 20
    while len(found) < 100 and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None
            found.add(message.value())
    consumer.close()
    assert found == {str(n).encode() for n in range(100)}


def test_the_limits_the_broker_is_said_to_have(broker: EmbeddedBroker) -> None:
    """Measured again with the librdkafka installed, since the docs and the demo lean on them."""
    broker.create_topics(["limits"])
    servers = {"bootstrap.servers": broker.bootstrap_servers}
    admin = AdminClient(servers)
    assert len(admin.list_topics(timeout=10).topics["limits"].partitions) == (
        broker_module.PARTITIONS
    )
    producer = Producer(servers)
    for _ in range(20):
        producer.produce("limits", bytes(500_000), partition=0)
    assert producer.flush(20) == 0
    consumer = Consumer({**servers, "group.id": "limits"})
    low, high = consumer.get_watermark_offsets(TopicPartition("limits", 0), timeout=10)
    assert (low, high) == (10, 20)
    consumer.close()


def test_the_broker_ends_when_asked(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path)
    broker.start()
    broker.stop(grace=5)
    assert broker.child.exit_code == 0


# --- nothing is left behind

PARENT = """
import sys, time
from pathlib import Path
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.processes import Child, run_module
from services.ctl.embedded.redis_server import EmbeddedRedis
folder = Path(sys.argv[1])
server, broker = EmbeddedRedis(folder / "redis"), EmbeddedBroker(folder / "broker")
server.start()
broker.start()
import redis
real = redis.Redis.from_url(server.url).info("server")["process_id"]
print(server.child.pid, real, broker.child.pid, flush=True)
time.sleep(60)
"""


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        assert all(running(pid) for pid in pids)
    finally:
        parent.kill()  # no chance to clean up
        parent.wait()
    assert eventually(lambda: not any(running(pid) for pid in pids)), pids


def test_killing_a_program_leaves_no_orphan(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        real = int(client.info("server")["process_id"])
    assert real != server.child.pid
    server.kill()
    assert eventually(lambda: not running(real))
    assert os.getpgid(0) != real
