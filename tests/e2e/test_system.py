"""The whole system as a user starts it: every service a process, live requests, real LLM protocol.

The embedded broker's run shows the daily cycle; Apache Kafka's that every request gets exactly one
final decision though a router is killed with -9 in the middle.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ctl.embedded.ports import free_port
from services.ctl.sample.generator import generate

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1_500
ALPHA = 0.85


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sample.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in generate(ROWS)))
    return path


def command(data: Path, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "services.ctl.main", "demo", "--data", str(data),
            "--alpha", str(ALPHA), "--folder", str(folder), "--json", *more]  # fmt: skip


def demo(data: Path, folder: Path, *more: str) -> dict[str, Any]:
    run = subprocess.run(
        command(data, folder, *more), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    summary: dict[str, Any] = json.loads(run.stdout)
    assert summary == json.loads((folder / "summary.json").read_text())
    return summary


def demo_with_console(
    data: Path, folder: Path, look: Callable[[httpx.Client, dict[str, Any]], None]
) -> dict[str, Any]:
    """The demo with a console that stays; `look` at it, then Ctrl-C."""
    port = free_port()
    said = folder.with_suffix(".said")
    more = ("--console", "--console-port", str(port))
    with said.open("w") as output:
        run = subprocess.Popen(
            command(data, folder, *more), cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + 280
        while "Console: http" not in said.read_text():
            assert run.poll() is None, said.read_text()
            assert time.monotonic() < end
            time.sleep(0.2)
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            look(client, summary)
        explained_and_reported(folder, summary["task"])
        run.send_signal(signal.SIGINT)
        assert run.wait(60) == 0, said.read_text()
        return summary
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait(60)


def certified_every_day(days: list[dict[str, Any]]) -> None:
    """A challenger that covers no more than the incumbent does not take its place."""
    assert days[0]["verdict"] == "published"
    assert {day["verdict"] for day in days[1:]} <= {"published", "kept"}


def explained_and_reported(folder: Path, task: str) -> None:
    """In another terminal, as the demo's last lines say."""

    def tracerctl(arguments: str) -> str:
        typed = f". '{folder}/env'; '{sys.executable}' -m services.ctl.main {arguments}"
        return subprocess.run(
            ["/bin/sh", "-c", typed], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout

    found = json.loads(tracerctl(f"explain 'my parcel never came' --task {task} --json"))
    assert found["stages"][0]["stage"] == "lexical"
    assert found["overruled"] is None
    assert found["nearest_handled"]
    assert found["nearest_handled"][0]["why"].startswith("sure enough")
    page = folder / "of-the-last-day.html"
    tracerctl(f"report --task {task} --out '{page}'")
    assert '<section id="money">' in page.read_text()


def five_days_visible(client: httpx.Client, summary: dict[str, Any]) -> None:
    """The console says what the demo counted."""
    task = summary["task"]
    end = time.monotonic() + 30
    while client.get("/api/v1/tasks").json()["requests"] < summary["requests"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    overview = client.get("/api/v1/tasks").json()
    assert (overview["requests"], overview["calls_saved"]) == (
        summary["requests"], summary["calls_saved"],
    )  # fmt: skip
    assert overview["saved"] == pytest.approx(summary["dollars_saved"], rel=0.2)
    view = client.get(f"/api/v1/tasks/{task}").json()
    assert view["row"]["active"] == summary["days"][-1]["version"]
    assert view["row"]["state"] == "serving"
    assert {entry["kind"] for entry in view["timeline"]} <= {"published", "refused", "kept"}
    windows = [entry["window"] for entry in view["timeline"] if entry["window"]]
    assert windows == [day["day"] for day in reversed(summary["days"])]
    coverage = [day["coverage"] for day in view["days"]]
    # Requests before the first verdict are of the first day, those after a day's of the next one.
    expected = [0.0, *(day["live"]["coverage"] for day in summary["days"])]
    assert coverage == pytest.approx(expected, abs=1e-3)
    assert sum(day["audited"] for day in view["days"]) == summary["audited"]
    assert "Certified" in client.get(f"/tasks/{task}").text
    fleet = client.get("/api/v1/fleet").json()["routers"]
    assert [(router["instance"], router["behind"]) for router in fleet] == [("router-1", [])]


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_five_days_on_the_embedded_broker(sample: Path, tmp_path: Path) -> None:
    summary = demo_with_console(sample, tmp_path / "demo", five_days_visible)
    assert (summary["broker"], summary["delivery"]) == ("embedded", "at_least_once")
    assert summary["before"]["coverage"] == 0.0
    assert summary["decided_once"] == summary["requests"]
    assert summary["dead_letters"] == 0
    days = summary["days"]
    assert len(days) == 5
    # Every logged trace is in a window, every deferred request came back as a trace.
    traces = [day["traces"] for day in days]
    assert traces == sorted(traces)
    certified_every_day(days)
    assert summary["coverage"] > 0.3
    if days[-1]["version"] != days[0]["version"]:  # else only chance is between the two days
        assert summary["coverage"] > days[0]["live"]["coverage"]
    assert summary["coverage"] > days[0]["live"]["coverage"] - 0.2
    assert summary["overall_agreement"] > ALPHA - 0.05
    live = [day["live"] for day in days]
    assert summary["calls_saved"] == sum(day["handled"] - day["audited"] for day in live)
    assert summary["audited"] == sum(day["audited"] for day in live)
    assert summary["dollars_saved"] > 0


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_a_teacher_nobody_can_imitate_is_refused_and_everything_deferred(
    sample: Path, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in sample.read_text().splitlines()]
    labels = [row["teacher"] for row in rows]
    random.Random(0).shuffle(labels)
    noise = tmp_path / "noise.jsonl"
    noise.write_text(
        "".join(
            json.dumps(row | {"teacher": label}) + "\n"
            for row, label in zip(rows, labels, strict=True)
        )
    )
    summary = demo(noise, tmp_path / "demo")
    assert {day["verdict"] for day in summary["days"]} == {"refused"}
    assert all("does not separate the labels" in day["reason"] for day in summary["days"])
    assert summary["calls_saved"] == 0
    assert summary["decided_once"] == summary["requests"]


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_exactly_once_on_kafka_though_a_router_is_killed(
    kafka: str, sample: Path, tmp_path: Path
) -> None:
    summary = demo(
        sample, tmp_path / "demo", "--bootstrap", kafka, "--routers", "2",
        "--kill-router-on", "5", "--last-day-share", "0.6",
    )  # fmt: skip
    assert (summary["broker"], summary["delivery"]) == ("kafka", "exactly_once")
    assert summary["decided_once"] == summary["requests"]
    assert summary["decided_more_than_once"] == summary["undecided"] == 0
    certified_every_day(summary["days"])
    assert summary["coverage"] > 0.3
