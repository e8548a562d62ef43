"""`make bench-drift`: Banking77 as a stream that changes, at several shares of audits, seeds many.

`tracerctl bench drift` does it once on any file. Writes benchmarks/results/drift.json and the
table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.tables import replace_section
from services.ctl.paths import cache_folder
from services.ctl.rehearsal.drift import Drift, run_world, worlds
from services.ctl.rehearsal.remembering import RememberingEncoder
from services.ctl.rehearsal.traffic import read_traffic
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--audits", type=float, nargs="+", default=[0.1, 0.05, 0.2])
    arguments = parser.parse_args()
    rows = read_traffic(arguments.data_dir / "banking77.jsonl")
    encoder = RememberingEncoder(
        OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=None)
    )
    makes = worlds(len({row.teacher for row in rows}))
    found: list[Drift] = []
    for audit_share in arguments.audits:
        task = Task(name="banking77", alpha=arguments.alpha, audit_share=audit_share)
        for seed in range(arguments.seeds):
            for make in makes if audit_share == arguments.audits[0] else makes[1:3]:
                found.append(run_world(make(rows, seed), encoder, task, seed))
                print(found[-1], flush=True)
                _store(found, arguments.alpha)
    replace_section(Path("docs/benchmarks.md"), "drift", table(found, arguments.alpha))


def _store(found: Sequence[Drift], alpha: float) -> None:
    result = {"alpha": alpha, "runs": [vars(one) for one in found]}
    (HERE / "results" / "drift.json").write_text(json.dumps(result, indent=1) + "\n")


def table(found: Sequence[Drift], alpha: float) -> str:
    lines = [
        f"| the change (α = {alpha}) | audits | worst share wrong of any 2,000, before | after | "
        "requests to probation | to the trip | false probations, trips | coverage by day |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = dict.fromkeys((one.world, one.audit_share) for one in found)
    lines += [_row([o for o in found if (o.world, o.audit_share) == kind]) for kind in kinds]
    return "\n".join(lines)


def _row(runs: Sequence[Drift]) -> str:
    coverage = np.mean([one.coverage for one in runs], axis=0)
    return (
        f"| {runs[0].world} | {runs[0].audit_share:.0%} | "
        f"{max(one.wrong_before for one in runs):.3f} | "
        f"{max(one.worst_window for one in runs):.3f} | {_some([one.to_probation for one in runs])}"
        f" | {_some([one.to_trip for one in runs])} | "
        f"{sum(one.false_probations for one in runs)}, {sum(one.false_trips for one in runs)} | "
        f"{' '.join(f'{day:.2f}' for day in coverage)} |"
    )


def _some(values: Sequence[int | None]) -> str:
    known = [value for value in values if value is not None]
    text = f"{min(known)}–{max(known)}" if known else "never"
    return text if len(known) in (0, len(values)) else f"{text} ({len(known)} of {len(values)})"


if __name__ == "__main__":
    main()
