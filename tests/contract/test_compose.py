"""docker-compose.yml and Dockerfile name only what exists. (No Docker engine is needed.)"""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.ingest.config import IngestSettings
from services.ingest.main import _open_door
from shared.clock import SystemClock
from shared.contracts.tasks import load_tasks
from shared.contracts.topics import Topic, load_topics
from shared.secret_files import is_secret
from shared.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
KEYRING = "/keys/trusted.json"
SERVICES = {"ingest", "trainer", "teacher", "router", "console"}


def settings_of(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"services.{service}.config")
    found: type[ServiceSettings] = getattr(module, f"{service.capitalize()}Settings")
    return found


@pytest.mark.parametrize("name", sorted(COMPOSE["services"]))
def test_build_targets_exist(name: str) -> None:
    build = COMPOSE["services"][name].get("build")
    if build:
        assert re.search(rf"^FROM \S+ AS {build['target']}$", DOCKERFILE, re.M)


@pytest.mark.parametrize("name", ["ingest", "trainer", "teacher", "router", "router-2", "console"])
def test_environment_names_are_settings(name: str) -> None:
    service = COMPOSE["services"][name]
    fields = settings_of(service["build"]["target"]).model_fields
    known = {f"TRACER_{field.upper()}" for field in fields}
    known |= {f"TRACER_{n.upper()}_FILE" for n, f in fields.items() if is_secret(f)}
    assert set(service["environment"]) <= known
    image = re.search(
        rf"^FROM base AS {service['build']['target']}\n(.*?)(?=^FROM|\Z)", DOCKERFILE, re.M | re.S
    )
    assert image
    assert set(re.findall(r"(TRACER_[A-Z_]+)=", image[1])) <= known


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_images_run_modules_that_exist(service: str) -> None:
    assert f'CMD ["python", "-m", "services.{service}.main"]' in DOCKERFILE
    assert (ROOT / "services" / service / "main.py").exists()


def test_every_service_waits_for_topics_and_redis_and_runs_unprivileged() -> None:
    for name in [*SERVICES, "router-2", "ctl"]:
        service = COMPOSE["services"][name]
        assert set(service["depends_on"]) == {"topics", "redis", "keys"}
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["tmpfs"] == ["/tmp"]
    assert re.search(r"^USER tracer$", DOCKERFILE, re.M)


def test_only_the_trainer_is_given_the_signing_key() -> None:
    mounts = {
        name: [str(v) for v in service.get("volumes", [])]
        for name, service in COMPOSE["services"].items()
    }
    holders = {name for name, volumes in mounts.items() if any("signing:" in v for v in volumes)}
    assert holders == {"keys", "trainer"}
    assert "signing:/signing:ro" in mounts["trainer"]
    for name in ("trainer", "router", "router-2", "console", "ctl"):
        assert "keys:/keys:ro" in mounts[name]
        assert COMPOSE["services"][name]["environment"]["TRACER_TRUSTED_KEYS"] == KEYRING
        assert "TRACER_UNSIGNED" not in COMPOSE["services"][name]["environment"]
    assert COMPOSE["services"]["keys"]["network_mode"] == "none"
    assert re.search(r"chown tracer /data /keys /signing", DOCKERFILE)  # volumes inherit the owner


def test_two_routers_in_the_scale_profile() -> None:
    assert COMPOSE["services"]["router-2"]["profiles"] == ["scale", "production-small"]
    instances = {
        COMPOSE["services"][name]["environment"]["TRACER_INSTANCE"]
        for name in ("router", "router-2")
    }
    assert len(instances) == 2


def test_kafka_and_redis_keep_their_data() -> None:
    for name in ("kafka", "redis"):
        assert COMPOSE["services"][name]["volumes"]
        assert COMPOSE["services"][name]["healthcheck"]
    assert "--appendonly" in COMPOSE["services"]["redis"]["command"]


def test_the_router_image_is_small() -> None:
    """The router's extra names nothing the router has no use for."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[><=\[ ]", need)[0] for need in extras["router"]}
    assert names == {
        "confluent-kafka", "onnxruntime", "redis", "starlette", "tokenizers", "uvicorn",
    }  # fmt: skip


def test_an_operator_reaches_what_the_services_do() -> None:
    """`docker compose run --rm ctl …`: Redis has no port on the host, the broker another one."""
    ctl, trainer = COMPOSE["services"]["ctl"], COMPOSE["services"]["trainer"]
    for name in ("TRACER_BOOTSTRAP_SERVERS", "TRACER_REDIS_URL", "TRACER_TASKS"):
        assert ctl["environment"][name] == trainer["environment"][name]
    assert "./config:/config:ro" in ctl["volumes"]
    assert "trainer:/trainer:ro" in ctl["volumes"]
    assert ctl["environment"]["TRACER_STORE"] == "/trainer/windows"
    assert ctl["profiles"] == ["ctl"]


def test_every_image_can_send_spans() -> None:
    """A service refuses to start where an address is set and the exporter is missing."""
    assert re.search(r"^ARG EXTRAS=otel$", DOCKERFILE, re.M)
    for service in SERVICES:
        stage = re.search(
            rf"^FROM builder AS build-{service}\n(.*?)(?=^FROM)", DOCKERFILE, re.M | re.S
        )
        assert stage
        assert stage[1].startswith("ARG EXTRAS\n")
        assert re.search(rf'"\.\[{service}\S*,\$\{{EXTRAS\}}\]"', stage[1])


def test_every_topic_has_a_spec() -> None:
    assert set(load_topics()) == set(Topic)


def test_the_door_is_not_open_to_the_network_unasked() -> None:
    """Only on this machine's own address, and of one router: two cannot share the port."""
    router = COMPOSE["services"]["router"]
    assert router["ports"] == ["127.0.0.1:8010:8010"]
    assert router["environment"]["TRACER_DOOR_HOST"] == "${DOOR_HOST:-127.0.0.1}"
    assert COMPOSE["services"]["router-2"]["ports"] == []


TOKEN = {"OTLP_TOKEN": "a-long-enough-token"}


@pytest.mark.parametrize(
    ("chosen", "starts"),
    [({}, True), ({"OTLP_HOST": "0.0.0.0"}, False), ({"OTLP_HOST": "0.0.0.0"} | TOKEN, True)],
)
def test_spans_are_taken_from_this_machine_alone_and_by_token(
    monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str], starts: bool
) -> None:
    """`chosen`: what .env says."""
    ingest = COMPOSE["services"]["ingest"]
    assert ingest["ports"] == ["127.0.0.1:4318:4318"]
    for name, value in ingest["environment"].items():
        if "OTLP" in name:
            told = re.sub(r"\$\{(\w+):-(.*?)\}", lambda m: chosen.get(m[1], m[2]), str(value))
            monkeypatch.setenv(name, told)
    if starts:
        assert settings_of("ingest")().model_dump()["otlp_port"] == 4318
    else:
        with pytest.raises(ValueError, match="TRACER_OTLP_TOKEN"):
            settings_of("ingest")()


def test_ingest_starts_with_the_tasks_that_are_shipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """No task of config/tasks.yaml takes spans, and the door's port is set all the same."""
    for name, value in COMPOSE["services"]["ingest"]["environment"].items():
        if "OTLP" in name:
            monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)))
    settings = IngestSettings(tasks=ROOT / "config" / "tasks.yaml")
    assert settings.otlp_port is not None
    tasks = load_tasks(settings.tasks)
    assert asyncio.run(_open_door(settings, tasks, SystemClock())) == (None, None)


def test_the_console_asks_who_it_is() -> None:
    """Without a token in .env it stops, saying what to set, rather than being open."""
    console = COMPOSE["services"]["console"]
    assert console["environment"]["TRACER_CONSOLE_TOKEN"] == "${CONSOLE_TOKEN:-}"
    assert console["ports"] == ["127.0.0.1:8020:8020"]
    image = re.search(r"^FROM base AS console\n(.*?)(?=^FROM)", DOCKERFILE, re.M | re.S)
    assert image
    assert "TRACER_CONSOLE_HOST=0.0.0.0" in image[1]


def test_a_small_production_has_everything_twice_or_watched() -> None:
    """`docker compose --profile production-small up -d` on one machine."""
    services = COMPOSE["services"]
    runs = {
        name
        for name, service in services.items()
        if "production-small" in service.get("profiles", ["production-small"])
    }
    assert runs == set(services) - {"ctl"}  # runs when it is asked
    for name in SERVICES | {"router-2", "kafka", "redis", "prometheus", "grafana"}:
        assert services[name]["restart"] == "unless-stopped", name
    for name in ("kafka", "redis", "trainer", "prometheus"):
        assert any(
            str(volume).split(":")[0] in COMPOSE["volumes"] for volume in services[name]["volumes"]
        ), name


def test_services_are_given_as_long_to_stop_as_in_the_chart() -> None:
    for name in SERVICES:
        template = (ROOT / f"deploy/helm/tracer/templates/{name}.yaml").read_text()
        wanted = re.search(r'"grace" (\d+)', template)
        given = COMPOSE["services"][name]["stop_grace_period"]
        assert given == f"{wanted[1] if wanted else 30}s", name
