"""Apache Kafka with three brokers on this machine, each client's way to each of them a link."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deploy.kafka.local_kafka import LocalKafka, new_cluster_id
from tests.faults.ports import LOOPBACK, fresh_port
from tests.faults.proxy import Link, Links

DIRECT = "DIRECT"
_CONTROLLER = "CONTROLLER"
_START_SECONDS = 120.0

# What three brokers do otherwise than one: every topic of Kafka's own is kept three times, and an
# acknowledgement means two copies. The rest makes failing over quick.
_REPLICATED = {
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "replica.lag.time.max.ms": "5000",
    "leader.imbalance.check.interval.seconds": "10",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "group.coordinator.threads": "1",
    "log.cleaner.enable": "false",
    # Where retention is short, it is meant.
    "log.segment.bytes": str(64 * 2**20),
    "log.retention.check.interval.ms": "60000",
}


class Brokers:
    """Three brokers in KRaft combined mode.

    `bootstrap(client)` is where that client connects; the brokers then name themselves to it by
    the ports of its own links. `bootstrap()` is direct, for who watches. Start and stop it from
    one lasting thread.
    """

    def __init__(self, folder: Path, clients: Sequence[str], links: Links, *, heap: str) -> None:
        ports = [[fresh_port() for _ in range(len(clients) + 2)] for _ in range(3)]
        quorum = ",".join(
            f"{node}@{LOOPBACK}:{ports[node - 1][0]}" for node in (1, 2, 3)
        )  # fmt: skip
        self._direct = [own[1] for own in ports]
        self.links: dict[str, list[Link]] = {
            client: [links.add(own[place]) for own in ports]
            for place, client in enumerate(clients, start=2)
        }
        cluster = new_cluster_id()
        self.nodes = [
            LocalKafka(
                port=own[1],
                data=folder / f"broker-{node}",
                heap=heap,
                cluster_id=cluster,
                properties=self._properties(node, own, quorum, clients),
            )
            for node, own in enumerate(ports, start=1)
        ]

    def bootstrap(self, client: str | None = None) -> str:
        ports = self._direct if client is None else [link.port for link in self.links[client]]
        return ",".join(f"{LOOPBACK}:{port}" for port in ports)

    def start(self) -> None:
        """Raises KafkaUnavailable."""
        with ThreadPoolExecutor(len(self.nodes)) as threads:
            list(threads.map(LocalKafka.prepare, self.nodes))
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_started(_START_SECONDS)

    def stop(self) -> None:
        """Killed: their data is not kept, and an orderly end would take each of them seconds."""
        for node in self.nodes:
            node.kill()

    def _properties(
        self, node: int, own: Sequence[int], quorum: str, clients: Sequence[str]
    ) -> dict[str, str]:
        names = [_listener(client) for client in clients]
        ways = [self.links[client][node - 1].port for client in clients]
        inner = [f"{DIRECT}://{LOOPBACK}:{own[1]}"]
        listeners = [f"{name}://{LOOPBACK}:{p}" for name, p in zip(names, own[2:], strict=True)]
        advertised = [f"{name}://{LOOPBACK}:{p}" for name, p in zip(names, ways, strict=True)]
        protocols = [f"{name}:PLAINTEXT" for name in (_CONTROLLER, DIRECT, *names)]
        return _REPLICATED | {
            "node.id": str(node),
            "controller.quorum.voters": quorum,
            "listeners": ",".join([*inner, *listeners, f"{_CONTROLLER}://{LOOPBACK}:{own[0]}"]),
            "advertised.listeners": ",".join(inner + advertised),
            "listener.security.protocol.map": ",".join(protocols),
            "inter.broker.listener.name": DIRECT,
        }


def _listener(client: str) -> str:
    return client.replace("-", "").upper()
