"""`make bench-console`: how long the console's pages take with 50 tasks and 200 versions.

Real processes: redis-server, a broker, the console. Over HTTP on localhost, and, where there is a
Chromium, until the page has loaded in it. Writes benchmarks/results/console.json and a section of
docs/console.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import redis

from benchmarks.made_up import made_up
from benchmarks.tables import replace_section
from services.console.tallies import Tally
from services.console.tally_store import RedisTallies
from services.ctl.embedded.broker import EmbeddedBroker
from services.ctl.embedded.ports import free_port
from services.ctl.embedded.processes import Child, run_module
from services.ctl.embedded.redis_server import EmbeddedRedis
from shared.bus.admin import ensure_topics
from shared.bus.base import TopicPartition
from shared.contracts.topics import load_topics
from shared.registry.base import MAX_AUDITS_PER_CALL, Artifact
from shared.registry.redis import RedisRegistry, connect

HERE = Path(__file__).parent
DOCUMENT = HERE.parent / "docs" / "console.md"
DAYS, AUDITS = 30, 5_000
FIRST_DAY = date(2026, 1, 5)
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# Charts are drawn as they come into view.
DRAWN = """[...document.querySelectorAll('[data-chart]')]
  .filter((chart) => chart.getBoundingClientRect().top < innerHeight)
  .every((chart) => chart.querySelector('canvas'))"""
CHROMIUM = os.environ.get("TRACER_CHROMIUM", "/usr/bin/chromium")


def artifact(task: str, number: int) -> Artifact:
    day = FIRST_DAY + timedelta(days=number)
    return made_up(task, day, coverage=0.5 + 0.1 * number, seed=f"{task}{number}")


def fill(registry: RedisRegistry, tallies: RedisTallies, task: str, versions: int) -> str:
    """Versions, audits of the active one and 30 days of counts; returns the active version."""
    at = datetime(2026, 2, 4, tzinfo=UTC)
    active = ""
    for number in range(versions):
        made = artifact(task, number)
        registry.publish(made, fence=registry.acquire(task), at=at, reason="certified")
        active = made.version
    rng = random.Random(task)
    audits = [(n, rng.random() < 0.97) for n in range(AUDITS)]
    for start in range(0, AUDITS, MAX_AUDITS_PER_CALL):
        registry.record_audits(task, active, 0, audits[start : start + MAX_AUDITS_PER_CALL])
    fields = (
        "decided|handled|certified", "decided|audited|certified",
        "decided|deferred|below_threshold", "decided|deferred|out_of_distribution",
        f"audit|{active}|agree", f"audit|{active}|differ", "priced", "micro_dollars",
    )  # fmt: skip
    counts = [
        Tally(n, FIRST_DAY + timedelta(days=n), field, rng.randint(1, 10_000))
        for n in range(DAYS)
        for field in fields
    ]
    tallies.add(task, TopicPartition("decisions", 0), counts)
    return active


def milliseconds(client: httpx.Client, path: str, times: int) -> list[float]:
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        client.get(path).raise_for_status()
        taken.append(1_000 * (time.perf_counter() - started))
    return taken


def in_browser(url: str, paths: dict[str, str]) -> dict[str, dict[str, float]]:
    """Milliseconds from the address on, with nothing cached: until something is painted, until the
    page has loaded (its `load` event), and until every chart in view is drawn. Each in a context
    of its own, and the first in a browser that has shown nothing yet."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        for name, path in paths.items():
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            page.goto(url + path)
            # The page's policy lets no script wait for a condition given as text.
            while not page.evaluate(f"{LOADED} > 0 && {DRAWN}"):
                page.wait_for_timeout(5)
            drawn = float(page.evaluate("performance.now()"))
            found[name] = {
                "painted_ms": round(float(page.evaluate(PAINTED)), 1),
                "loaded_ms": round(float(page.evaluate(LOADED)), 1),
                "drawn_ms": round(drawn, 1),
            }
        browser.close()
    return found


def measure(tasks: int, versions: int, times: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedBroker(folder) as broker, EmbeddedRedis(folder / "redis") as server:
            ensure_topics(broker.bootstrap_servers, load_topics().values())
            registry = connect(server.url)
            tallies = RedisTallies(redis.Redis.from_url(server.url))
            names = [f"task-{n:02}" for n in range(tasks)]
            active = [fill(registry, tallies, task, versions) for task in names][-1]
            listed = [{"name": task, "alpha": 0.95} for task in names]
            (folder / "tasks.yaml").write_text(json.dumps({"tasks": listed}))
            port = free_port()
            child = Child(
                "console",
                run_module("services.console.main"),
                log=folder / "console.log",
                environment={
                    "TRACER_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
                    "TRACER_REDIS_URL": server.url,
                    "TRACER_TASKS": str(folder / "tasks.yaml"),
                    "TRACER_CONSOLE_PORT": str(port),
                    "TRACER_CONSOLE_RATE": "100000",
                },
                health_port=free_port(),
            )
            child.start()
            try:
                child.wait_ready(60)
                return timed(f"http://127.0.0.1:{port}", names[-1], active, times)
            finally:
                child.terminate()


def timed(url: str, task: str, version: str, times: int) -> dict[str, Any]:
    paths = {
        "overview": "/",
        "task": f"/tasks/{task}",
        "version": f"/tasks/{task}/versions/{version}",
    }
    found: dict[str, Any] = {}
    with httpx.Client(base_url=url, timeout=60) as client:
        for name, path in paths.items():
            first, *rest = milliseconds(client, path, times + 1)
            found[name] = {
                "first_ms": round(first, 1),
                "median_ms": round(statistics.median(rest), 1),
                "p95_ms": round(sorted(rest)[int(0.95 * len(rest))], 1),
            }
    if shutil.which(CHROMIUM):
        for name, value in in_browser(url, paths).items():
            found[name] |= value
    return found


def table(found: dict[str, Any], tasks: int, versions: int) -> str:
    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.0f} ms"

    rows = [
        f"{tasks} tasks, {tasks * versions} versions, {DAYS} days of counts each, {AUDITS:,} "
        "audits of each active version; one console on localhost.",
        "",
        "Over HTTP, and in Chromium with nothing cached, from the address on:",
        "",
        "| page | first answer | median | 95th percentile | painted | loaded | charts drawn |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | {cell(each['first_ms'])} | {cell(each['median_ms'])} | "
        f"{cell(each['p95_ms'])} | {cell(each.get('painted_ms'))} | "
        f"{cell(each.get('loaded_ms'))} | {cell(each.get('drawn_ms'))} |"
        for name, each in found.items()
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--versions", type=int, default=4, help="of each task")
    parser.add_argument("--times", type=int, default=40)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    found = measure(options.tasks, options.versions, options.times)
    print(json.dumps(found, indent=2))
    if options.dry:
        return
    results = HERE / "results" / "console.json"
    results.parent.mkdir(exist_ok=True)
    whole = {"tasks": options.tasks, "versions": options.tasks * options.versions, "pages": found}
    results.write_text(json.dumps(whole, indent=2) + "\n")
    replace_section(DOCUMENT, "console", table(found, options.tasks, options.versions))


if __name__ == "__main__":
    main()
