"""Everything the demo needs, started as real processes and stopped again."""

from __future__ import annotations

import http.client
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from services.ctl.demo.plan import Plan, teacher_model
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, Fleet, run_module
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.ctl.files import Row
from services.ctl.key_commands import KEYRING, SIGNING_KEY, make_key
from shared.bus.admin import ensure_topics
from shared.contracts.topics import load_topics


@dataclass(frozen=True)
class ClusterSettings:
    """`bootstrap` names a running Kafka; None starts the embedded broker, which has no
    transactions, so routers and teacher run at least once there. `console_port`: of a console
    beside it, None for none."""

    folder: Path
    encoder: Path
    cache: Path
    alpha: float
    routers: int = 1
    bootstrap: str | None = None
    redis_url: str | None = None
    teacher_latency_ms: int = 0
    console_port: int | None = None


class Cluster:
    """Broker, Redis, recorded LLM, ingest, trainer, routers and teacher."""

    def __init__(self, settings: ClusterSettings, plan: Plan, rows: Sequence[Row]) -> None:
        self.settings = settings
        self.plan = plan
        self._rows = rows
        self._fleet = Fleet()
        self._servers: list[EmbeddedBroker | EmbeddedRedis] = []
        self.bootstrap = settings.bootstrap or ""
        self.redis_url = settings.redis_url or ""
        # Runs on one Kafka keep out of each other's way.
        self.prefix = f"demo-{secrets.token_hex(4)}." if settings.bootstrap else ""
        self.routers: list[Child] = []

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
        self._fleet.stop()
        for server in reversed(self._servers):
            server.stop()
        self._servers.clear()

    def check(self) -> None:
        """Raises ChildDied when a process has ended that should run."""
        self._fleet.check()

    def _start(self) -> None:
        folder = self.settings.folder
        if not self.bootstrap:
            broker = EmbeddedBroker(folder)
            self._servers.append(broker)
            broker.start()
            self.bootstrap = broker.bootstrap_servers
        if not self.redis_url:
            redis = EmbeddedRedis(folder / "redis")
            self._servers.append(redis)
            redis.start()
            self.redis_url = redis.url
        ensure_topics(self.bootstrap, load_topics().values(), prefix=self.prefix)
        self._write_files()
        port_file = folder / "llm.port"
        port_file.unlink(missing_ok=True)
        llm = self._fleet.start(
            Child(
                "llm",
                run_module(
                    "services.ctl.recorded_llm", "--answers", str(folder / "answers.jsonl"),
                    "--port", "0", "--port-file", str(port_file),
                    "--latency-ms", str(self.settings.teacher_latency_ms),
                ),
                log=folder / "llm.log",
            )
        )  # fmt: skip
        llm.wait_until(port_file.exists, 15.0)
        environment = self._environment(int(port_file.read_text().strip().rsplit(":", 1)[-1]))
        services = [self._child(name, environment) for name in ("ingest", "trainer", "teacher")]
        self.routers = [
            self._child("router", environment, number) for number in range(self.settings.routers)
        ]
        if self.settings.console_port is not None:
            services.append(self._child("console", environment))
        for child in (*services, *self.routers):
            child.wait_ready(60.0)

    def _write_files(self) -> None:
        folder = self.settings.folder
        task = {
            "name": self.plan.task,
            "alpha": self.settings.alpha,
            "labels": list(self.plan.labels),
            "price": {"per_million_input_tokens": 3.0, "per_million_output_tokens": 15.0},
        }
        make_key(folder / "keys", "of this demo")
        (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [task]}, sort_keys=False))
        with (folder / "answers.jsonl").open("w", encoding="utf-8") as out:
            for row in self._rows:
                texts: Any = row.texts[0] if len(row.texts) == 1 else list(row.texts)
                out.write(json.dumps({"input": texts, "teacher": row.teacher}) + "\n")

    def _environment(self, llm_port: int) -> dict[str, str]:
        folder = self.settings.folder
        return {
            "TRACER_BOOTSTRAP_SERVERS": self.bootstrap,
            "TRACER_REDIS_URL": self.redis_url,
            "TRACER_TASKS": str(folder / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": self.prefix,
            "TRACER_GROUP_SUFFIX": f"-{self.prefix.rstrip('.')}" if self.prefix else "",
            "TRACER_DELIVERY": "exactly_once" if self.prefix else "at_least_once",
            "TRACER_ENCODER": str(self.settings.encoder),
            "TRACER_STORE": str((folder / "windows").absolute()),
            "TRACER_CACHE": str(self.settings.cache),
            "TRACER_TRUSTED_KEYS": str(folder / "keys" / KEYRING),
            "TRACER_UNSIGNED": "refuse",
            "TRACER_LATENESS": "0",
            "TRACER_PARTITION_IDLE": "2",
            # The traces that close the last day are no day: a console left open shows five.
            "TRACER_IDLE": "86400",
            "TRACER_FIT_JOBS": "2",
            "TRACER_TEACHER_BASE_URL": f"http://127.0.0.1:{llm_port}/v1",
            "TRACER_TEACHER_MODEL": teacher_model(self._rows),
            "TRACER_TEACHER_CONCURRENCY": "16",
        }

    def _child(self, service: str, environment: dict[str, str], number: int = 0) -> Child:
        name = f"{service}-{number + 1}" if service == "router" else service
        folder = self.settings.folder
        own = {"TRACER_INSTANCE": name}
        if service == "trainer":
            own["TRACER_SIGNING_KEY_FILE"] = str(folder / "keys" / SIGNING_KEY)
        if service == "router":
            # Two cores: routers with more threads than that each would only wait for one another.
            own |= {"TRACER_MODELS": str(folder / "models" / name), "TRACER_THREADS": "1"}
            own |= {"TRACER_GROUP_INSTANCE": name, "TRACER_DOOR_PORT": "0"}
        if service == "console":
            own |= {"TRACER_CONSOLE_PORT": str(self.settings.console_port)}
        return self._fleet.start(
            Child(
                name,
                run_module(f"services.{service}.main"),
                log=folder / f"{name}.log",
                environment=environment | own,
                health_port=free_port(),
            )
        )

    def active_epochs(self) -> list[int]:
        """The epoch of the version each running router serves; -1 where it cannot be read."""
        return [_epoch(child, self.plan.task) for child in self.routers]


def _epoch(child: Child, task: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", child.health_port or 0, timeout=2.0)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except OSError:
        return -1
    finally:
        connection.close()
    found = re.search(
        rf'^tracer_router_active_epoch\{{task="{re.escape(task)}"\}} (\S+)', text, re.M
    )
    return int(float(found[1])) if found else -1
