"""The main job on real data, measured: `make acceptance DATA_DIR=../shared/data`.

Six runs, each through `tracerctl` as a user would start it; the figures go to
`benchmarks/results/acceptance.json` and, as a table, to standard output. Exits 1 when one falls
short. About ten minutes on two cores the first time (embeddings are cached), four after that.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "acceptance.json"
sys.path.insert(0, str(ROOT / "deploy" / "kafka"))

from local_kafka import KafkaUnavailable, LocalKafka  # noqa: E402


@dataclass(frozen=True)
class Result:
    name: str
    command: str
    wanted: str
    figures: dict[str, Any]
    met: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the runs to do")
    chosen = parser.parse_args()
    if not chosen.data_dir.is_dir():
        print(f"{chosen.data_dir}: no such folder; set DATA_DIR", file=sys.stderr)
        return 2
    runs: list[Callable[[Path], Result]] = [
        lambda d: scanned("1 banking77", d / "banking77.jsonl", 0.95, 0.92, 0.95),
        # Since inputs unlike the task's are deferred, 1.0 is no longer wanted here.
        lambda d: scanned("2 clinc150", d / "clinc150.jsonl", 0.90, 0.95, 0.90),
        refused,
        lambda d: scanned("4 qwen3-30b", d / "banking77_qwen3_30b.jsonl", 0.85, 0.95, 0.85),
        lambda d: on_kafka("5 on Kafka", d, []),
        lambda d: on_kafka("6 kill -9", d, ["--kill-router-on", "5"]),
    ]
    results = []
    for number, run in enumerate(runs, start=1):
        if not chosen.only or number in chosen.only:
            results.append(run(chosen.data_dir))
            show(results[-1])
    RESULTS.parent.mkdir(exist_ok=True)
    document = {"machine": machine(), "results": [asdict(result) for result in results]}
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(result.met for result in results) else 1


def scanned(name: str, file: Path, alpha: float, coverage: float, agreement: float) -> Result:
    command = ["scan", str(file), "--alpha", str(alpha), "--json"]
    found = tracerctl(command)
    figures = {
        key: found[key]
        for key in ("coverage", "agreement", "certified_coverage", "certified_agreement_lower",
                    "method", "fit_seconds")
    }  # fmt: skip
    met = not found["refused"] and (
        found["coverage"] >= coverage and found["agreement"] >= agreement
    )
    return Result(
        name, shown(command), f"coverage ≥ {coverage}, agreement ≥ {agreement}", figures, met
    )


def refused(data: Path) -> Result:
    """MNLI: refused at every α from 0.80, and end to end everything is deferred."""
    file = data / "mnli_matched.jsonl"
    scan = ["scan", str(file), "--alpha", "0.8", "--json"]
    found = tracerctl(scan)
    certified = [p["alpha"] for p in found["frontier"] if p["coverage"] > 0]
    with tempfile.TemporaryDirectory() as folder:
        demo = ["demo", "--data", str(file), "--alpha", "0.8", "--folder", folder, "--json"]
        summary = tracerctl(demo)
    published = sum(day["verdict"] == "published" for day in summary["days"])
    figures = {
        "refused": found["refused"],
        "reason": found["reason"],
        "certified_at": certified,  # of 0.80, 0.85, … 0.99: none
        "published": published,
        "requests": summary["requests"],
        "deferred": summary["requests"] - summary["calls_saved"],
        "decided_once": summary["decided_once"],
    }
    met = (
        found["refused"]
        and not certified
        and published == 0
        and figures["deferred"] == figures["requests"] == figures["decided_once"]
    )
    return Result(
        "3 mnli", f"{shown(scan)}; {shown(demo)}",
        "refused at α ≥ 0.80, nothing published, everything deferred", figures, met,
    )  # fmt: skip


def on_kafka(name: str, data: Path, more: list[str]) -> Result:
    """Banking77 on Apache Kafka with two routers in one group."""
    file = data / "banking77.jsonl"
    with LocalKafka() as kafka, tempfile.TemporaryDirectory() as folder:
        command = [
            "demo", "--data", str(file), "--alpha", "0.95", "--routers", "2",
            "--bootstrap", kafka.bootstrap, "--last-day-share", "0.6", "--folder", folder,
            "--json", *more,
        ]  # fmt: skip
        summary = tracerctl(command)
    coverages = [summary["before"]["coverage"]] + [d["live"]["coverage"] for d in summary["days"]]
    certified = [day["certified_coverage"] for day in summary["days"] if day["certified_coverage"]]
    figures = {
        "requests": summary["requests"],
        "decided_once": summary["decided_once"],
        "decided_at_kill": summary["decided_at_kill"],
        "certified_coverage_by_day": [round(coverage, 3) for coverage in certified],
        "decided_more_than_once": summary["decided_more_than_once"],
        "coverage_by_day": coverages,
        "agreement_by_day": [d["live"]["agreement"] for d in summary["days"]],
        "seconds": summary["seconds"],
    }
    met = (
        summary["decided_once"] == summary["requests"]
        and summary["delivery"] == "exactly_once"
        and coverages[-1] > coverages[1] > coverages[0]
        and certified == sorted(certified)
        and summary["coverage"] >= 0.92
        and summary["agreement"] >= 0.95
    )
    return Result(
        name, shown(command), "each request once; last day: coverage ≥ 0.92, agreement ≥ 0.95",
        figures, met,
    )  # fmt: skip


def tracerctl(arguments: list[str]) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "services.ctl.main", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, check=False, text=True,
    )  # fmt: skip
    if not run.stdout.strip():
        raise SystemExit(f"{shown(arguments)} printed nothing (exit code {run.returncode})")
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def show(result: Result) -> None:
    mark = "ok  " if result.met else "MISS"
    print(f"{mark} {result.name}: {json.dumps(result.figures)}   (wanted: {result.wanted})")


def shown(arguments: list[str]) -> str:
    return " ".join(["tracerctl", *arguments])


def machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KafkaUnavailable as error:
        sys.exit(f"no Apache Kafka here: {error}")
