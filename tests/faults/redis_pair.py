"""Redis with a replica, and links that lead clients to whichever of the two is the primary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import redis

from services.ctl.embedded.redis_server import EmbeddedRedis
from tests.faults.ports import LOOPBACK, fresh_port
from tests.faults.proxy import Link, Links


class RedisPair:
    """Replication is asynchronous, as Redis has it: a failover may lose the last writes."""

    def __init__(self, folder: Path, clients: Sequence[str], links: Links) -> None:
        self.primary = EmbeddedRedis(folder / "redis-1", fresh_port())
        self.replica = EmbeddedRedis(folder / "redis-2", fresh_port())
        self.links: dict[str, Link] = {client: links.add(self.primary.port) for client in clients}

    def url(self, client: str | None) -> str:
        """Where the client connects; without one, the primary itself."""
        port = self.primary.port if client is None else self.links[client].port
        return f"redis://{LOOPBACK}:{port}/0"

    def start(self) -> None:
        self.primary.start()
        self.replica.start()
        self._follow()

    def kill(self) -> None:
        self.primary.kill()

    def revive(self) -> None:
        """Start the primary again with what its append-only file kept."""
        if not self.primary.child.alive():
            self.primary.start()

    def lose_everything(self) -> None:
        """Both servers forget all they hold."""
        with self.client() as client:
            client.flushall()

    def fail_over(self) -> None:
        """The primary dies and the replica takes its place; clients are led to it."""
        self.primary.kill()
        self.primary, self.replica = self.replica, self.primary
        with self.client() as client:
            client.replicaof("NO", "ONE")
        for link in self.links.values():
            link.retarget(self.primary.port)

    def rejoin(self) -> None:
        """The former primary comes back as a replica."""
        if not self.replica.child.alive():
            self.replica.start()
        self._follow()

    def stop(self) -> None:
        self.replica.kill()
        self.primary.kill()

    def client(self) -> redis.Redis:
        """A direct connection to the primary."""
        return redis.Redis(host=LOOPBACK, port=self.primary.port, socket_timeout=5.0)

    def _follow(self) -> None:
        server = redis.Redis(host=LOOPBACK, port=self.replica.port, socket_timeout=5.0)
        server.replicaof(LOOPBACK, str(self.primary.port))
        server.close()
