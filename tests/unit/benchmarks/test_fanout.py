"""The fan-out's benchmark on a small fleet, and the sizing page made of results."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks import sizing
from benchmarks.fanout import FIRST_DAY, QUICK, measure, renamed, table
from benchmarks.fleet import polls
from benchmarks.footprint import TOPICS, events
from benchmarks.made_up import made_up
from services.ctl.embedded.redis_server import EmbeddedRedis
from services.router.models import POINTERS_PER_POLL
from shared.contracts.codec import decode
from shared.contracts.events import Decision, Deferral, Request, Trace
from shared.registry.base import Artifact
from shared.registry.redis import connect


def _version(blob_bytes: int) -> Artifact:
    return made_up("made-up", FIRST_DAY, coverage=0.9, seed=0, blob_bytes=blob_bytes)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return measure(QUICK, _version(20_000), "made up")


@pytest.mark.redis
def test_the_servers_own_figures_are_those_of_what_was_done(found: dict[str, Any]) -> None:
    assert found["poll"]["pointers"] == POINTERS_PER_POLL
    # A pointer of ours is some 60 bytes, a version its blob and manifest and little more.
    assert 30 < found["poll"]["bytes_out"] / POINTERS_PER_POLL < 120
    whole = found["artifact"]["blob_bytes"] + found["artifact"]["manifest_bytes"]
    assert whole < found["load"]["bytes_out"] < 1.05 * whole
    assert whole < found["memory"]["version_bytes"] < 2 * whole
    for what in ("poll", "load", "change"):
        assert 0 < found[what]["cpu_us"] < 100_000


@pytest.mark.redis
def test_each_router_hears_of_each_change(found: dict[str, Any]) -> None:
    heard = found["change_heard"]
    assert 0 < heard["heard_median_ms"] <= heard["heard_last_ms"] <= heard["heard_worst_ms"]
    hint = (heard["bytes_out"] - found["change"]["bytes_out"]) / QUICK.routers
    assert 30 < hint < 90  # its channel and its task


@pytest.mark.redis
def test_the_fleet_polls_at_its_interval(found: dict[str, Any]) -> None:
    polled = found["fleet"]["polls_per_second"]
    assert 0.5 * QUICK.routers < polled < 1.3 * QUICK.routers
    assert found["fleet"]["poll_p99_ms"] >= found["fleet"]["poll_median_ms"] > 0


@pytest.mark.redis
def test_every_figure_has_its_place_in_the_tables(found: dict[str, Any]) -> None:
    assert "20 simulated routers, 450 tasks" in table(found)
    assert "1,000 tasks with 3 versions" in sizing.redis(found)
    assert "20 routers, 450 tasks" in sizing.fleet(found)


@pytest.mark.redis
def test_a_simulated_poll_is_the_routers_own(tmp_path: Path) -> None:
    """The server is sent the same commands by both."""
    tasks = [f"task-{number}" for number in range(POINTERS_PER_POLL)]
    with EmbeddedRedis(tmp_path) as server, redis.Redis.from_url(server.url) as client:
        registry = connect(server.url)

        def sent() -> list[tuple[str, int]]:
            stats = client.info("commandstats")
            return [(name, stats[name]["calls"]) for name in sorted(stats) if "hmget" in name]

        registry.pointers(tasks)
        assert sent() == [("cmdstat_hmget", POINTERS_PER_POLL)]
        registry.close()
        (request,) = polls(tasks)
        assert request.count(b"\r\nHMGET\r\n") == POINTERS_PER_POLL


def test_versions_of_other_days_are_other_versions() -> None:
    first, second = (
        renamed(_version(2_000), "full-size", date(2026, 1, day), blobs=True) for day in (5, 6)
    )
    assert set(first.blobs).isdisjoint(second.blobs)
    for artifact in (first, second):
        artifact.verify(artifact.version)


@pytest.mark.parametrize("topic", TOPICS)
def test_the_events_that_are_weighed_are_events(topic: Any) -> None:
    kinds = {"requests": Request, "decisions": Decision, "deferred": Deferral, "traces": Trace}
    records = list(events(topic, ["where is my card?"], 50))
    assert len({record.key for record in records}) == 50
    for record in records:
        decode(record.value, kinds[topic.value])


# --- the sizing page


def test_the_page_says_what_the_results_say() -> None:
    """Renewed by `python -m benchmarks.sizing`."""
    page = sizing.DOCUMENT.read_text()
    for name, text in sizing.sections(sizing.RESULTS).items():
        assert f"<!-- {name} -->\n{text}\n<!-- /{name} -->" in page, f"{name} is stale"


def test_what_nobody_measured_names_its_command(tmp_path: Path) -> None:
    found = sizing.sections(tmp_path)
    assert found["sizing-trainer"] == "Not measured yet: `make bench-scale`."
    assert found["sizing-redis"] == "Not measured yet: `make bench-fanout`."


def test_the_trainers_table(tmp_path: Path) -> None:
    one = {
        "stored": 10_000, "rows": 9_900, "read_seconds": 1.0, "embed_seconds": 60.0,
        "fit_seconds": 20.0, "fit_cpu_seconds": 35, "peak_mib": 900,
    }  # fmt: skip
    (tmp_path / "scale.json").write_text(json.dumps({"sizes": [one]}))
    text = sizing.sections(tmp_path)["sizing-trainer"]
    assert text.splitlines()[-1] == "| 10,000 | 9,900 | 81 | 21 | 35 | 900 |"


def test_what_pods_ask_for_stands_beside_what_services_took(tmp_path: Path) -> None:
    peaks = {"router-1": 300.0, "router-2": 310.0, "trainer": 900.0, "ingest": 90.0,
             "teacher": 150.0, "redis": 50.0}  # fmt: skip
    cores = {"router-1": 0.4, "router-2": 0.25, "trainer": 0.5, "ingest": 0.1}
    found = {
        "steady": {"memory": {name: {"peak_mb": mb} for name, mb in peaks.items()}, "cores": cores},
        "overload": {"peak_mb": {name: mb + 20 for name, mb in peaks.items()}},
    }
    (tmp_path / "load.json").write_text(json.dumps(found))
    rows = sizing.sections(tmp_path)["sizing-pods"].splitlines()[2:]
    assert rows == [
        "| router | 310 | 330 | 0.40 | 1 CPU, 512Mi | 1Gi |",
        "| trainer | 900 | 920 | 0.50 | 1 CPU, 2Gi | 4Gi |",
        "| ingest | 90 | 110 | 0.10 | 250m CPU, 256Mi | 512Mi |",
        "| teacher | 150 | 170 | not measured | 250m CPU, 256Mi | 512Mi |",
    ]


def test_the_routers_table() -> None:
    mode = {"per_s": 4_000, "cpu_s_per_1000": 0.25, "memory_mb": 300}
    found = {
        "machine": {"cores": 2},
        "ours": {"lexical_share": 0.77},
        "kafka": {
            "exactly_once": mode,
            "at_least_once": {**mode, "cpu_s_per_1000": 0.2},
            "scale_out": {
                "1 routers, lexical stage on": 2_500.0,
                "1 routers, lexical stage off": 300.0,
            },
        },
    }
    assert "| requests/s of one router core, by its CPU seconds | 4,000 | 5,000 |" in sizing.router(
        found
    )


@pytest.mark.parametrize(
    ("number", "text"), [(12, "12 B"), (1_500, "1.5 kB"), (2.5e6, "2.5 MB"), (3e12, "3.0 TB")]
)
def test_sizes(number: float, text: str) -> None:
    assert sizing.size(number) == text
