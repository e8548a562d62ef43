"""The whole system as a user starts it: every service a process, live requests, real LLM protocol.

The embedded broker's run shows the daily cycle; Apache Kafka's that every request gets exactly one
final decision though a router is killed with -9 in the middle.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.ctl.sample.generator import generate

ROOT = Path(__file__).resolve().parents[2]
ROWS = 1_500
ALPHA = 0.85


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "sample.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in generate(ROWS)))
    return path


def demo(data: Path, folder: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "services.ctl.main", "demo", "--data", str(data),
               "--alpha", str(ALPHA), "--folder", str(folder), "--json", *more]  # fmt: skip
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    summary: dict[str, Any] = json.loads(run.stdout)
    assert summary == json.loads((folder / "summary.json").read_text())
    return summary


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.timeout(300)
def test_five_days_on_the_embedded_broker(sample: Path, tmp_path: Path) -> None:
    summary = demo(sample, tmp_path / "demo")
    assert (summary["broker"], summary["delivery"]) == ("embedded", "at_least_once")
    assert summary["before"]["coverage"] == 0.0
    assert summary["decided_once"] == summary["requests"]
    assert summary["dead_letters"] == 0
    days = summary["days"]
    assert len(days) == 5
    # Every logged trace is in a window, every deferred request came back as a trace.
    traces = [day["traces"] for day in days]
    assert traces == sorted(traces)
    assert days[-1]["verdict"] == "published"
    assert summary["coverage"] > 0.3
    assert summary["coverage"] > days[0]["live"]["coverage"]
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
    assert all("below α" in day["reason"] for day in summary["days"])
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
    assert summary["days"][-1]["verdict"] == "published"
    assert summary["coverage"] > 0.3
