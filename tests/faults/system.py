"""The whole system as real processes: three brokers, Redis with a replica, a teacher's endpoint,
and every service behind links of its own."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import msgspec
import yaml

from services.ctl.embedded.processes import Child, Fleet, run_module
from services.ctl.key_commands import KEYRING, SIGNING_KEY, make_key
from shared.bus.admin import ensure_topics
from shared.contracts.topics import Topic, TopicSpec, load_topics
from tests.faults.brokers import Brokers
from tests.faults.clocks import WallClock
from tests.faults.disk import SmallDisk
from tests.faults.language import LABELS
from tests.faults.llm import MoodyLLM
from tests.faults.ports import LOOPBACK, fresh_port
from tests.faults.proxy import Link, Links
from tests.faults.redis_pair import RedisPair

SERVICES = ("ingest", "trainer", "teacher", "router-1", "router-2")
WITH_REDIS = ("ingest", "trainer", "router-1", "router-2")
TASK, UNTRAINED = "support", "greeting"
ALPHAS = {TASK: 0.9, UNTRAINED: 0.9999}  # nothing reaches the second: the teacher answers it all
TEACHER = "word-counter"
PARTITIONS = 4
_BUSY = (Topic.REQUESTS, Topic.DECISIONS, Topic.DEFERRED)
_READY_SECONDS = 90.0

# Production's settings but for patience: a member that died is missed after six seconds.
_KAFKA = {
    "session.timeout.ms": "6000",
    "heartbeat.interval.ms": "1000",
    "message.timeout.ms": "10000",
    "transaction.timeout.ms": "15000",
    "socket.timeout.ms": "5000",
}


class System:
    """Start it in a `with` block; whatever ends the block ends every process by its own pid.

    `direct`: for load, where no link may be the bottleneck; nothing can be parted then, and no
    clock jumps. `environment` is added to every service's. `retention`: of requests, decisions and
    deferrals, where not the production's.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Path,
        *,
        heap: str = "256m",
        direct: bool = False,
        environment: Mapping[str, str] | None = None,
        audit_share: float = 0.2,
        retention: str | None = None,
    ) -> None:
        self.folder, self.encoder = folder, encoder
        self._direct = direct
        self._audit_share = audit_share
        self._retention = retention
        self._environment = dict(environment or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.links = Links()
        self.brokers = Brokers(folder, SERVICES, self.links, heap=heap)
        self.redis = RedisPair(folder, WITH_REDIS, self.links)
        self.llm = MoodyLLM()
        self.disk = SmallDisk(folder / "windows")
        self.clocks = {name: WallClock(folder / f"{name}.clock") for name in SERVICES}
        self.doors = {name: fresh_port() for name in SERVICES if name.startswith("router")}
        self.services: dict[str, Child] = {}
        self.ended: Counter[str] = Counter()  # services that ended of their own accord, with why
        self._down: set[str] = set()
        self._fleet = Fleet()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Killed: nothing is read after this."""
        for child in self.services.values():
            child.kill()
        self._fleet.stop()
        self.llm.close()
        self.redis.stop()
        self.brokers.stop()
        self.links.close()
        self.disk.stop()

    def kill(self, service: str) -> None:
        """As a crash would; it stays down until `revive`."""
        self._down.add(service)
        self.services[service].kill()

    def revive(self, service: str) -> None:
        self._down.discard(service)
        if not self.services[service].alive():
            self.services[service].start()

    def freeze(self, service: str) -> None:
        """Stop it in the middle of whatever it does, as a suspended machine would."""
        os.kill(self.services[service].pid, signal.SIGSTOP)

    def thaw(self, service: str) -> None:
        if self.services[service].alive():
            os.kill(self.services[service].pid, signal.SIGCONT)

    def ask_where(self, service: str) -> None:
        """Have it write the stacks of its threads to its log."""
        if self.services[service].alive() and not self._direct:
            os.kill(self.services[service].pid, signal.SIGUSR1)
            time.sleep(0.5)

    def way(self, service: str, to: str) -> list[Link]:
        """The service's links to `kafka` or `redis`."""
        return self.brokers.links[service] if to == "kafka" else [self.redis.links[service]]

    def supervise(self) -> None:
        """Restart what has ended of its own accord, as any supervisor of containers does."""
        for name, child in self.services.items():
            if name not in self._down and not child.alive():
                self.ended[f"{name} ({child.exit_code}): {_last_words(child)}"] += 1
                child.start()

    def _start(self) -> None:
        self.disk.start()
        self.brokers.start()
        self.redis.start()
        specs = [self._spec(spec) for spec in load_topics().values()]
        ensure_topics(self.brokers.bootstrap(), specs)
        self._write_tasks()
        make_key(self.folder / "keys", "of the fault suite")
        for name in SERVICES:
            self.services[name] = self._fleet.start(self._child(name))
        for child in self.services.values():
            child.wait_ready(_READY_SECONDS)

    def _spec(self, spec: TopicSpec) -> TopicSpec:
        spec = msgspec.structs.replace(spec, partitions=min(spec.partitions, PARTITIONS))
        if self._retention is None or spec.topic not in _BUSY:
            return spec
        return msgspec.structs.replace(spec, retention=self._retention)

    def _write_tasks(self) -> None:
        tasks = [
            {
                "name": name,
                "alpha": alpha,
                "labels": list(LABELS),
                "unknown_labels": "dead_letter",
                "audit_share": self._audit_share,
                "horizon_days": 6,
            }
            for name, alpha in ALPHAS.items()
        ]
        (self.folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": tasks}))

    def _child(self, name: str) -> Child:
        service = name.partition("-")[0]
        environment = {
            "TRACER_INSTANCE": name,
            "TRACER_BOOTSTRAP_SERVERS": self.brokers.bootstrap(None if self._direct else name),
            "TRACER_TASKS": str(self.folder / "tasks.yaml"),
            "TRACER_ENCODER": str(self.encoder),
            **self._trusting(name),
            "OMP_NUM_THREADS": "1",
            "PYTHONFAULTHANDLER": "1",  # a crash in a library says where
            **({} if self._direct else self.clocks[name].environment),
            **self._environment,
        }
        if name in WITH_REDIS:
            environment["TRACER_REDIS_URL"] = self.redis.url(None if self._direct else name)
        if service != "ingest":
            environment["TRACER_KAFKA"] = json.dumps(_KAFKA)
        return Child(
            name,
            self._command(name, f"services.{service}.main"),
            log=self.folder / f"{name}.log",
            environment=environment | self._own(name, service),
            health_port=fresh_port(),
        )

    def _command(self, name: str, module: str) -> list[str]:
        return run_module(*([] if self._direct else ["tests.faults.clocks"]), module)

    def _trusting(self, name: str) -> dict[str, str]:
        return {
            "TRACER_TRUSTED_KEYS": str(self.folder / "keys" / KEYRING),
            "TRACER_UNSIGNED": "refuse",
        }

    def _own(self, name: str, service: str) -> dict[str, str]:
        match service:
            case "ingest":
                return {
                    "TRACER_INGEST_SESSION_TIMEOUT_SECONDS": "6",
                    "TRACER_INGEST_REQUEST_TIMEOUT_SECONDS": "8",
                }
            case "trainer":
                return {
                    "TRACER_STORE": str(self.disk.folder),
                    "TRACER_SIGNING_KEY_FILE": str(self.folder / "keys" / SIGNING_KEY),
                    "TRACER_CACHE": str(self.folder / "cache"),
                    "TRACER_LATENESS": "0",
                    "TRACER_IDLE": "5",
                    "TRACER_PARTITION_IDLE": "2",
                    "TRACER_ENCODER_THREADS": "1",
                }
            case "teacher":
                return {
                    "TRACER_TEACHER_BASE_URL": f"http://{LOOPBACK}:{self.llm.port}/v1",
                    "TRACER_TEACHER_MODEL": TEACHER,
                    "TRACER_TEACHER_TIMEOUT_SECONDS": "2",
                    "TRACER_TEACHER_BATCH_SECONDS": "10",
                    "TRACER_TEACHER_MAX_WAIT_SECONDS": "0.2",
                    "TRACER_TEACHER_CONCURRENCY": "16",
                }
            case _:
                return {
                    "TRACER_MODELS": str(self.folder / "models" / name),
                    "TRACER_THREADS": "1",
                    "TRACER_GROUP_INSTANCE": name,
                    "TRACER_DOOR_PORT": "0" if self._direct else str(self.doors[name]),
                }


def _last_words(child: Child) -> str:
    """The last critical line of its log, or its last line."""
    lines = child.tail(200).splitlines()
    critical = [line for line in lines if '"CRITICAL"' in line or '"critical"' in line]
    return (critical or lines or ["nothing"])[-1][:300]
