"""`make bench-official`: issue 3's targets on the published splits.

Writes benchmarks/results/official.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import replace_section
from services.ctl.bench_commands import read_training_set
from services.ctl.bench_gate import Outcome, evaluate_prepared
from services.ctl.files import read_rows
from shared.core.fit import Settings, prepare
from shared.core.gate import NEXT_SAMPLE, Refused
from shared.fitting.graphs import serve_as_onnx

HERE = Path(__file__).parent
ALPHAS = {
    "banking77": (0.90, 0.95, 0.97, 0.98, 0.99),
    "banking77_qwen3_30b": (0.85, 0.90, 0.95),
    "clinc150": (0.90, 0.95, 0.97, 0.98, 0.99),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    results = {name: measure(arguments.data_dir / f"{name}.jsonl", ALPHAS[name]) for name in ALPHAS}
    (HERE / "results" / "official.json").write_text(json.dumps(results, indent=1) + "\n")
    replace_section(Path("docs/benchmarks.md"), "official", table(results))


def measure(file: Path, alphas: tuple[float, ...]) -> list[dict[str, Any]]:
    """Both claims at every α, fitted on all rows but the published test rows."""
    rows, kind = read_training_set(file, None)
    splits = [row.split for row in read_rows(file) if not (row.split or "").startswith("oos")]
    test = np.asarray([split == "test" for split in splits])
    prepared = prepare(rows.take(~test), Settings(), serve_as_onnx)
    if isinstance(prepared, Refused):
        raise SystemExit(prepared.reason)
    points = []
    for next_sample in (NEXT_SAMPLE, 0.0):
        settings = Settings(next_sample=next_sample)
        for alpha in alphas:
            found = evaluate_prepared(
                prepared, rows.take(test), kind, replace(settings, alpha=alpha)
            )
            points.append({"next_sample": next_sample, **vars(found)})
    return points


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    lines = [
        "| data | certified of | α | certified | answered | by the lexical stage | agreement |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, points in results.items():
        lines += [_row(name, point) for point in points]
    return "\n".join(lines)


def _row(name: str, point: dict[str, Any]) -> str:
    outcome = Outcome(**{key: value for key, value in point.items() if key != "next_sample"})
    claim = "samples" if point["next_sample"] else "the traffic"
    if outcome.agreement is None:
        return f"| {name} | {claim} | {outcome.alpha} | refused | | | |"
    agreement = f"{outcome.agreement:.4f}"
    if outcome.agreement < outcome.alpha:
        agreement = f"**{agreement}**"
    return (
        f"| {name} | {claim} | {outcome.alpha} | {outcome.certified_coverage:.4f} | "
        f"{outcome.coverage:.4f} | {outcome.lexical_share:.4f} | {agreement} |"
    )


if __name__ == "__main__":
    main()
