"""`make bench-gate`: the certificate on random splits of real data.

Writes benchmarks/results/gate.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.tables import replace_section
from services.ctl.bench_commands import read_training_set
from services.ctl.bench_gate import bench_gate
from shared.core.fit import Settings

HERE = Path(__file__).parent
# File, settings, copies of every trace, share of labels flipped, rows (0: all), α.
TRAFFIC_ALONE = Settings(next_sample=0.0)
RUNS = (
    ("banking77", Settings(), 1, 0.0, 0, (0.90, 0.95, 0.97, 0.98, 0.99)),
    ("banking77", TRAFFIC_ALONE, 1, 0.0, 0, (0.90, 0.95, 0.97, 0.98, 0.99)),
    ("banking77_qwen3_30b", Settings(), 1, 0.0, 0, (0.80, 0.85, 0.90, 0.95)),
    ("clinc150", Settings(), 1, 0.0, 0, (0.95, 0.97, 0.98, 0.99)),
    ("banking77", Settings(), 2, 0.0, 1_000, (0.90, 0.95)),
    ("banking77", Settings(), 5, 0.0, 1_000, (0.90, 0.95)),
    ("banking77", Settings(), 1, 0.08, 0, (0.85, 0.90, 0.95)),
    ("banking77", Settings(kind="holdout"), 1, 0.0, 0, (0.90, 0.95, 0.97)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--runs", default=",".join(map(str, range(len(RUNS)))))
    arguments = parser.parse_args()
    out = HERE / "results" / "gate.json"
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for number in map(int, arguments.runs.split(",")):
        name, settings, copies, noise, sample, alphas = RUNS[number]
        rows, kind = read_training_set(
            arguments.data_dir / f"{name}.jsonl", None, sample=sample, noise=noise
        )
        found = bench_gate(
            rows, kind, alphas, settings,
            splits=arguments.splits, copies=copies, done=lambda: print(".", end="", flush=True),
        )  # fmt: skip
        results[str(number)] = {"data": name, "copies": copies, "noise": noise} | found
        out.write_text(json.dumps(results, indent=1) + "\n")
    replace_section(Path("docs/benchmarks.md"), "gate", table(results))


def table(results: dict[str, Any]) -> str:
    lines = [
        "| data | α | certified | answered | by the lexical stage | agreement | lowest | below α |",
        "|---|---|---|---|---|---|---|---|",
    ]
    in_order = [results[key] for key in sorted(results, key=int)]
    lines += [_row(result, point) for result in in_order for point in result["alphas"]]
    return "\n".join(lines)


def _row(result: dict[str, Any], point: dict[str, Any]) -> str:
    if not point["deployed"]:
        figures = "refused | | | | | "
    else:
        figures = (
            f"{point['certified_coverage']:.3f} | {point['coverage']:.3f} | "
            f"{point['lexical_share']:.3f} | {point['agreement']:.4f} | "
            f"{point['lowest_agreement']:.4f} | {point['violations']} of {point['deployed']}"
        )
    return f"| {_name(result)} | {point['alpha']} | {figures} |"


def _name(result: dict[str, Any]) -> str:
    parts = [result["data"], f"{result['rows']} rows"]
    if result["copies"] > 1:
        parts.append(f"every trace {result['copies']} times")
    if result["noise"]:
        parts.append(f"{result['noise']:.0%} of labels flipped")
    if not result["next_sample"]:
        parts.append("certified of the traffic alone")
    if result["evidence"] == "holdout":
        parts.append("hold-out")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
