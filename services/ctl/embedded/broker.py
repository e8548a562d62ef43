"""A Kafka broker in one small process: librdkafka's mock cluster.

    python -m services.ctl.embedded.broker --port-file FILE

It writes host:port to FILE when it is ready and runs until SIGTERM. Measured with librdkafka
2.16: everything is in memory; a partition keeps its newest 5 MB; topics cannot be created by
CreateTopics but are when a client that may create topics asks for their metadata, always with 4
partitions (no setting changes that); transactional offsets are not applied; aborted records are
not hidden. Hence at-least-once only.
"""

from __future__ import annotations

import argparse
import os
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType
from typing import Self

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from services.ctl.embedded.processes import Child, run_module
from shared.bus.admin import touch

PARTITIONS = 4
_METADATA_SECONDS = 10.0


class EmbeddedBroker:
    """The broker as a child process; `bootstrap_servers` is known once it is started."""

    def __init__(self, folder: Path) -> None:
        self.bootstrap_servers = ""
        self._folder = folder
        self._port_file = folder / "broker.port"
        command = run_module("services.ctl.embedded.broker", "--port-file", str(self._port_file))
        self.child = Child("broker", command, log=folder / "broker.log")

    def start(self, timeout: float = 10.0) -> None:
        """Until it answers. Raises ChildDied or ChildNotReady."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._port_file.unlink(missing_ok=True)
        self.child.start()
        try:
            self.child.wait_until(self._port_file.exists, timeout)
        except BaseException:
            self.child.kill()
            raise
        self.bootstrap_servers = self._port_file.read_text().strip()

    def create_topics(self, names: Iterable[str]) -> None:
        """Bring topics into being, so that a consumer may subscribe before anyone produces."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        for name in names:
            touch(admin, name, timeout=_METADATA_SECONDS)

    def stop(self, grace: float = 10.0) -> None:
        self.child.terminate(grace)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A Kafka broker in memory, for the demo.")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write host:port")
    port_file: Path = parser.parse_args(arguments).port_file
    _serve(port_file)


def _serve(port_file: Path) -> None:
    # The cluster lives as long as the client that hosts it; nothing is sent through that client.
    host = Producer({"test.mock.num.brokers": 1, "log_level": 4})
    brokers = host.list_topics(timeout=_METADATA_SECONDS).brokers.values()
    part = port_file.with_suffix(".part")
    part.write_text(",".join(f"{broker.host}:{broker.port}" for broker in brokers))
    os.replace(part, port_file)
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    while True:
        # The hosting client's own events must be served, or they pile up; signals end this.
        host.poll(1.0)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


if __name__ == "__main__":
    main()
