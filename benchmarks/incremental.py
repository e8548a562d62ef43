"""`make bench-incremental`: five days of Banking77, refitted in full every day and incrementally.

Every row is a request; the same rows in the same order for both. Writes
benchmarks/results/incremental.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from benchmarks.tables import replace_section
from services.ctl.paths import cache_folder
from services.ctl.rehearsal.flywheel import ALL_LABELS, Day, Regime, run_regime
from services.ctl.rehearsal.remembering import RememberingEncoder
from services.ctl.rehearsal.traffic import read_traffic
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent
DAYS = 5
REGIMES = (ALL_LABELS, Regime.audits(0.05))
Mode = Literal["full", "incremental"]
MODES: tuple[Mode, ...] = ("full", "incremental")
Run = tuple[Mode, Day]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--dry", action="store_true", help="write no file")
    arguments = parser.parse_args()
    rows = read_traffic(arguments.data_dir / "banking77.jsonl")
    encoder = RememberingEncoder(
        OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=None)
    )
    encoder.encode([text for row in rows for text in row.texts])
    runs: list[Run] = []
    for seed in range(arguments.seeds):
        for regime in REGIMES:
            for mode in MODES:
                task = Task(name="banking77", alpha=arguments.alpha, refit=mode)
                days = run_regime(
                    rows, encoder, regime, task, days=DAYS, seed=seed,
                    done=lambda day: print(day, flush=True),
                )  # fmt: skip
                runs += [(mode, day) for day in days]
    print(table(runs))
    if not arguments.dry:
        result = {"alpha": arguments.alpha, "days": [vars(d) | {"mode": m} for m, d in runs]}
        (HERE / "results" / "incremental.json").write_text(json.dumps(result, indent=1) + "\n")
        replace_section(Path("docs/benchmarks.md"), "incremental", table(runs))


def table(runs: Sequence[Run]) -> str:
    """Means over the seeds, full → incremental; of coverage also what is lost at worst."""
    lines = [
        "| day | regime | incremental | fit, CPU s | ratio | report, CPU s | test coverage |"
        " lost at worst, points | test agreement | claims refuted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for number in range(1, DAYS + 1):
        for regime in REGIMES:
            chosen = [(m, d) for m, d in runs if (d.day, d.regime) == (number, regime.name)]
            full, other = ([d for m, d in chosen if m == mode] for mode in MODES)
            lines.append(_row(full, other))
    return "\n".join(lines)


def _row(full: Sequence[Day], other: Sequence[Day]) -> str:
    seconds = [float(np.mean([d.fit_cpu_seconds for d in days])) for days in (full, other)]
    coverage = [float(np.mean([d.coverage for d in days])) for days in (full, other)]
    agreement = [
        float(np.mean([d.agreement for d in days if d.agreement is not None]))
        for days in (full, other)
    ]
    lost = max(100 * (f.coverage - o.coverage) for f, o in zip(full, other, strict=True))
    refuted = [sum(d.claim_refuted for d in days) for days in (full, other)]
    return (
        f"| {full[0].day} | {full[0].regime} | {sum(d.incremental for d in other)} of {len(other)} "
        f"| {seconds[0]:.1f} → {seconds[1]:.1f} | {seconds[0] / seconds[1]:.1f} "
        f"| {np.mean([d.report_cpu_seconds for d in other]):.1f} "
        f"| {coverage[0]:.3f} → {coverage[1]:.3f} | {lost:+.1f} "
        f"| {agreement[0]:.3f} → {agreement[1]:.3f} | {refuted[0]} → {refuted[1]} |"
    )


if __name__ == "__main__":
    main()
