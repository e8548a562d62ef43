"""`make bench-flywheel`: five days of Banking77 under several regimes of observation, seeds many.

`tracerctl bench flywheel` does it once on any file. Writes benchmarks/results/flywheel.json and
the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tables import replace_section
from services.ctl.paths import cache_folder
from services.ctl.rehearsal.flywheel import ALL_LABELS, DEFERRED_ONLY, Day, Regime, run_regime
from services.ctl.rehearsal.remembering import RememberingEncoder
from services.ctl.rehearsal.traffic import read_traffic
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent
DAYS = 5
REGIMES = (ALL_LABELS, DEFERRED_ONLY, Regime.audits(0.05), Regime.audits(0.02))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = read_traffic(arguments.data_dir / "banking77.jsonl")
    encoder = RememberingEncoder(
        OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=None)
    )
    encoder.encode([text for row in rows for text in row.texts])
    task = Task(name="banking77", alpha=arguments.alpha)
    days: list[Day] = []
    for seed in range(arguments.seeds):
        for regime in REGIMES:
            days += run_regime(
                rows, encoder, regime, task, days=DAYS, seed=seed,
                done=lambda day: print(day, flush=True),
            )  # fmt: skip
            _store(days, arguments.alpha)
    replace_section(Path("docs/benchmarks.md"), "flywheel", table(days))


def _store(days: Sequence[Day], alpha: float) -> None:
    result = {"alpha": alpha, "days": [vars(day) for day in days]}
    (HERE / "results" / "flywheel.json").write_text(json.dumps(result, indent=1) + "\n")


def table(days: Sequence[Day]) -> str:
    lines = [
        "| day | regime | labelled | certified coverage | test coverage | test agreement |"
        " lowest | below the claim | refuted |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _row([d for d in days if d.day == number and d.regime == regime.name])
        for number in range(1, DAYS + 1)
        for regime in REGIMES
    ]
    return "\n".join(lines)


def _row(seeds: Sequence[Day]) -> str:
    def mean(name: str) -> float:
        values: list[Any] = [v for d in seeds if (v := getattr(d, name)) is not None]
        return float(np.mean(values)) if values else float("nan")

    agreements = [d.agreement for d in seeds if d.agreement is not None]
    below = sum(d.agreement is not None and d.agreement < d.claimed_agreement for d in seeds)
    refuted = sum(d.claim_refuted for d in seeds)
    return (
        f"| {seeds[0].day} | {seeds[0].regime} | {mean('labelled'):.0f} | "
        f"{mean('claimed_coverage'):.3f} | {mean('coverage'):.3f} | {mean('agreement'):.3f} | "
        f"{min(agreements, default=float('nan')):.3f} | {below} of {len(seeds)} | {refuted} |"
    )


if __name__ == "__main__":
    main()
