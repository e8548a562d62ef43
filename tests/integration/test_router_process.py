"""The router as it is run: a process, ready when it knows its models, its door till the end."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from surrogates import make_surrogate, text_of

from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, ChildNotReady
from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.bus.admin import ensure_topics
from shared.bus.kafka import KafkaSource
from shared.contracts.codec import decode
from shared.contracts.events import Decision
from shared.contracts.topics import Topic, load_topics
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.registry.redis import connect

ROOT = Path(__file__).resolve().parents[2]
TOKEN = uuid4().hex

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.timeout(180)]


class Place:
    """Topics, settings and processes of one test."""

    def __init__(self, kafka: str, folder: Path, redis_port: int) -> None:
        self.kafka, self.folder = kafka, folder
        self.prefix = f"{uuid4().hex[:8]}."
        self.door_port = free_port()
        self.encoder = ensure_default_encoder(ROOT / ".cache" / "encoder")
        ensure_topics(kafka, load_topics().values(), prefix=self.prefix, replication=1)
        (folder / "tasks.yaml").write_text("tasks: [{name: support, audit_share: 0.0}]\n")
        self.environment = {
            "TRACER_BOOTSTRAP_SERVERS": kafka,
            "TRACER_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
            "TRACER_TASKS": str(folder / "tasks.yaml"),
            "TRACER_TOPIC_PREFIX": self.prefix,
            "TRACER_GROUP_SUFFIX": f"-{self.prefix}",
            "TRACER_INSTANCE": "one",
            "TRACER_ENCODER": str(self.encoder),
            "TRACER_MODELS": str(folder / "models"),
            "TRACER_DOOR_HOST": "0.0.0.0",
            "TRACER_DOOR_PORT": str(self.door_port),
        }

    def start(self, **more: str) -> Child:
        child = Child(
            "router", [sys.executable, "-m", "services.router.main"],
            log=self.folder / "router.log", environment=self.environment | more,
            health_port=free_port(),
        )  # fmt: skip
        child.start()
        return child

    def ask(self, request_id: str) -> httpx.Response:
        return httpx.post(
            f"http://127.0.0.1:{self.door_port}/v1/classify",
            json={"id": request_id, "task": "support", "input": text_of("billing")},
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=20,
        )

    def decided(self) -> list[Decision]:
        topic = f"{self.prefix}{Topic.DECISIONS}"
        source = KafkaSource(bootstrap=self.kafka, group=uuid4().hex, topics=[topic])
        found: list[Decision] = []
        end = time.monotonic() + 20
        while not found and time.monotonic() < end:
            found += [decode(message.value, Decision) for message in source.poll(10, 0.5)]
        source.close()
        return found


def test_ready_when_the_models_are_known_and_open_until_the_end(kafka: str, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis", free_port())
    place = Place(kafka, tmp_path, server.port)
    child = place.start(TRACER_DOOR_TOKEN=TOKEN)
    try:
        # Nobody has said yet whether there is a version: it defers, and is not ready.
        with pytest.raises(ChildNotReady, match="registry not reached and no disk copy"):
            child.wait_ready(12)
        server.start()
        child.wait_ready(20)
        assert place.ask("early").json()["reason"] == "no_active_version"

        registry = connect(server.url)
        artifact = make_surrogate(OnnxEncoder(place.encoder, threads=1))
        registry.publish(
            artifact, fence=registry.acquire("support"), reason="test",
            at=datetime(2026, 1, 5, tzinfo=UTC),
        )  # fmt: skip
        registry.close()
        end = time.monotonic() + 20
        while place.ask("later").json().get("label") != "billing":
            assert time.monotonic() < end
            time.sleep(0.1)
        assert place.decided()[0].request_id == "later"
        assert child.terminate(20) == 0
        with pytest.raises(httpx.TransportError):
            place.ask("too late")

        server.stop()
        child = place.start(TRACER_DOOR_TOKEN=TOKEN)
        child.wait_ready(30)  # from the disk copy
        assert place.ask("again").json()["label"] == "billing"
        assert child.terminate(20) == 0
        assert TOKEN not in child.log.read_text()
    finally:
        child.kill()
        server.stop()


def test_it_does_not_start_with_a_door_that_anybody_can_reach(kafka: str, tmp_path: Path) -> None:
    child = Place(kafka, tmp_path, 1).start()
    try:
        end = time.monotonic() + 30
        while child.alive():
            assert time.monotonic() < end
            time.sleep(0.1)
        assert child.exit_code == 2
        said = child.log.read_text()
        assert "set TRACER_DOOR_TOKEN, which callers must show" in said
        assert "Traceback" not in said
    finally:
        child.kill()
