"""A real Apache Kafka on loopback without Docker: one Java 17 process in KRaft combined mode.

    python deploy/kafka/local_kafka.py fetch                        # jars into .cache/kafka
    python deploy/kafka/local_kafka.py run --port 9092 --data DIR   # foreground, until a signal

Tests use `LocalKafka` as a context manager. Whatever is missing (Java, Maven, the network) is
said by KafkaUnavailable.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import ctypes
import fcntl
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".cache" / "kafka"
START_SECONDS = 60.0
STOP_SECONDS = 15.0
_PR_SET_PDEATHSIG = 1

# One broker, little of everything: fast to start, and groups and transactions without waiting.
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # A killed broker registers again only when the session of its former self is over.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
}


class KafkaUnavailable(RuntimeError):
    """A local Kafka cannot run here; the message says what is missing."""


def version() -> str:
    """The Kafka version that pom.xml pins."""
    found = ElementTree.parse(HERE / "pom.xml").getroot().find(".//{*}kafka.version")
    if found is None or not found.text:
        raise KafkaUnavailable(f"{HERE / 'pom.xml'} names no kafka.version")
    return found.text


def fetch(*, maven: str = "mvn", cache: Path = CACHE, attempts: int = 3) -> Path:
    """The folder of Kafka's jars, fetched with Maven unless it is there. Raises KafkaUnavailable.

    Safe to call from several processes at once: the folder appears whole or not at all.
    """
    libs = cache / version() / "libs"
    if libs.is_dir():
        return libs
    if shutil.which(maven) is None:
        raise KafkaUnavailable(f"no Maven: {maven!r} is not on the PATH, and {libs} is not there")
    libs.parent.mkdir(parents=True, exist_ok=True)
    with (libs.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if libs.is_dir():
            return libs
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=libs.parent))
        try:
            _copy_dependencies(maven, partial, attempts)
            partial.rename(libs)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return libs


def _copy_dependencies(maven: str, target: Path, attempts: int) -> None:
    command = [maven, "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={target}", "-DincludeScope=runtime"]
    said = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(2.0**attempt)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        said = (done.stdout + done.stderr).strip()
    reason = next((line for line in said.splitlines() if "ERROR" in line), said[:300])
    raise KafkaUnavailable(f"Maven could not fetch Apache Kafka {version()}: {reason}")


def new_cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LocalKafka:
    """One broker process; `bootstrap` is its address, the same again after `restart`.

    Without `data` it keeps its log in a temporary folder that `stop` removes. `properties` override
    the broker's own; brokers of one cluster are given the same `cluster_id`, and are all launched
    before any is waited for. `lasting`: compiled as Kafka's own start script has it, for whoever
    measures; it takes a minute of load to pay.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        data: Path | None = None,
        properties: Mapping[str, str] | None = None,
        heap: str = "512m",
        cluster_id: str | None = None,
        lasting: bool = False,
        java: str = "java",
        maven: str = "mvn",
    ) -> None:
        if shutil.which(java) is None:
            raise KafkaUnavailable(f"no Java: {java!r} is not on the PATH (Kafka needs Java 17)")
        self._libs = fetch(maven=maven)
        self._own_data = data is None
        self._cluster_id = cluster_id or new_cluster_id()
        self._data = data or Path(tempfile.mkdtemp(prefix="local-kafka-"))
        self._data.mkdir(parents=True, exist_ok=True)
        self._log = self._data / "server.log"
        self._config = self._data / "server.properties"
        # Serial collection and the quick compiler: half the start time, less memory.
        self._command = [java, f"-Xmx{heap}", "-XX:+UseSerialGC"]
        if not lasting:
            self._command.append("-XX:TieredStopAtLevel=1")
        self._command += [f"-Dlog4j2.configurationFile={HERE / 'log4j2.properties'}"]
        self._command += ["-cp", f"{self._libs}/*"]
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._write_config(free_port(), properties or {})

    def __enter__(self) -> LocalKafka:
        self.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def start(self) -> None:
        """Prepare, start, and return when the broker serves."""
        self.launch()
        self.wait_started()

    def launch(self) -> None:
        """Prepare, and start the process without waiting for it.

        It ends with the thread that calls this (Linux), so that has to be a lasting one.
        """
        self.prepare()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "kafka.Kafka", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def started(self) -> bool:
        """Whether the broker has said that it serves."""
        return "Kafka Server started" in self._log.read_text(errors="replace")

    def wait_started(self, seconds: float = START_SECONDS) -> None:
        """Until the launched broker serves. Raises KafkaUnavailable with the end of its log."""
        deadline = time.monotonic() + seconds
        while not self.started():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise KafkaUnavailable(f"Kafka did not start:\n{self._tail()}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Block until the broker process ends; its exit code."""
        return self._process.wait() if self._process is not None else 0

    def kill(self) -> None:
        """End the broker as a crash would (SIGKILL); its log stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill and start again on the same port with the same log."""
        self.kill()
        self.start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self.kill()
        if self._own_data:
            shutil.rmtree(self._data, ignore_errors=True)

    def _write_config(self, controller: int, properties: Mapping[str, str]) -> None:
        listener = f"PLAINTEXT://{self.bootstrap}"
        settings = {
            **_PROPERTIES,
            "listeners": f"{listener},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listener,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "log.dirs": str(self._data / "log"),
            **properties,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def prepare(self) -> None:
        """Format the log folder, if it is new."""
        if (self._data / "log" / "meta.properties").exists():
            return
        # "=": an id may start with a dash.
        arguments = ["format", f"--cluster-id={self._cluster_id}", f"--config={self._config}"]
        done = subprocess.run(
            [*self._command, "kafka.tools.StorageTool", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise KafkaUnavailable(f"Kafka's storage could not be formatted:\n{done.stderr}")

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-20:])


def _die_with_parent() -> None:
    """Linux: the broker never outlives the process that started it, however that one ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def _signals_as_exit() -> Iterator[None]:
    def leave(signum: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch the jars and stop")
    run = commands.add_parser("run", help="run a broker until SIGTERM or Ctrl-C")
    run.add_argument("--port", type=int, default=9092)
    run.add_argument("--data", type=Path, help="keep the log here (default: a temporary folder)")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "fetch":
            print(fetch())
            return 0
        with _signals_as_exit(), LocalKafka(port=chosen.port, data=chosen.data) as kafka:
            print(f"Apache Kafka {version()} on {kafka.bootstrap}", flush=True)
            return kafka.wait()
    except KafkaUnavailable as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
