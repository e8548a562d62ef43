"""`make bench-flywheel`: five days of Banking77 under three regimes of observation.

All labels: the teacher answers every request. Deferred only: it answers what the router defers.
Audits: it also answers a random share of what the router handles. After each day the active
version is put to the published test rows.

Writes benchmarks/results/flywheel.json and the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loop import Loop, RememberingEncoder
from benchmarks.tables import replace_section
from services.ctl.files import Row, read_rows
from services.ctl.paths import cache_folder
from shared.contracts.events import ModelAnnouncement, Trace
from shared.contracts.tasks import Task
from shared.encoder.default import ensure_default_encoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.horizon import tokenize_inputs
from shared.onnx.cascade import CascadeSession

HERE = Path(__file__).parent
FIRST = date(2026, 1, 1)
DAYS = 5
REGIMES = {"all labels": None, "deferred only": 0.0, "deferred + 5% audits": 0.05,
           "deferred + 2% audits": 0.02}  # fmt: skip


@dataclass(frozen=True)
class Day:
    """After a day: what the active version claims, and what it does on the test rows."""

    seed: int
    regime: str
    day: int
    verdict: str
    labelled: int
    n_evidence: int
    claimed_coverage: float
    claimed_agreement: float
    coverage: float
    agreement: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--alpha", type=float, default=0.95)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = list(read_rows(arguments.data_dir / "banking77.jsonl"))
    encoder = RememberingEncoder(
        OnnxEncoder(ensure_default_encoder(cache_folder() / "encoder"), threads=None)
    )
    days: list[Day] = []
    for seed in range(arguments.seeds):
        for regime, audit_share in REGIMES.items():
            days += run(rows, encoder, regime, audit_share, arguments.alpha, seed)
            _store(days, arguments.alpha)
    replace_section(Path("docs/benchmarks.md"), "flywheel", table(days))


def run(
    rows: Sequence[Row], encoder: RememberingEncoder, regime: str, audit_share: float | None,
    alpha: float, seed: int,
) -> list[Day]:  # fmt: skip
    """Five days of one regime; audit_share None: the teacher answers everything."""
    train = [row for row in rows if row.split != "test"]
    test = [row for row in rows if row.split == "test"]
    order = np.random.default_rng(seed).permutation(len(train))
    labels = {row.id: row.teacher for row in train}
    task = Task(name="banking77", alpha=alpha, audit_share=audit_share or 0.0)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(task, encoder, Path(folder), lambda request_id, _: labels[request_id])
        for number, part in enumerate(np.array_split(order, DAYS)):
            today = [train[i] for i in part]
            day = FIRST + timedelta(days=number)
            if audit_share is None:
                loop.log([_logged(row, task.name, day, i) for i, row in enumerate(today)])
                loop.close(day)
            else:
                loop.run_day(day, {row.id: row.texts[0] for row in today})
            found.append(_measure(loop, test, regime, number + 1, seed))
            print(found[-1], flush=True)
    return found


def _logged(row: Row, task: str, day: date, second: int) -> Trace:
    at = datetime.combine(day, time(), UTC) + timedelta(seconds=second)
    return Trace(id=row.id, task=task, input=row.texts[0], teacher=row.teacher, occurred_at=at)


def _measure(loop: Loop, test: Sequence[Row], regime: str, day: int, seed: int) -> Day:
    announced = [a for a in loop.announced if a.window is not None][-1]
    active = loop.registry.active(loop.task.name).version
    coverage, agreement, claimed = 0.0, None, (0.0, 0.0)
    if active is not None:
        artifact = loop.registry.load(loop.task.name, active)
        certificate = artifact.manifest.certificate
        claimed = (certificate.coverage, certificate.agreement_lower)
        inputs = [row.texts for row in test]
        tokens = tokenize_inputs(inputs, loop.encoder)
        said = CascadeSession(artifact.manifest, artifact.blobs).answer(
            len(test), tokens,
            lambda asked: loop.encoder.encode_tokens([tokens[i] for i in asked]),
        )  # fmt: skip
        handled = said.stage >= 0
        agrees = np.asarray(artifact.manifest.labels)[said.label] == [r.teacher for r in test]
        coverage = float(handled.mean())
        agreement = float(agrees[handled].mean()) if handled.any() else None
    return Day(
        seed=seed, regime=regime, day=day, verdict=announced.kind.value,
        labelled=announced.n_traces or 0, n_evidence=_evidence(announced),
        claimed_coverage=round(claimed[0], 4), claimed_agreement=round(claimed[1], 4),
        coverage=round(coverage, 4),
        agreement=None if agreement is None else round(agreement, 4),
    )  # fmt: skip


def _evidence(announced: ModelAnnouncement) -> int:
    return int(announced.figures.get("n_evidence", 0))


def _store(days: Sequence[Day], alpha: float) -> None:
    result = {"alpha": alpha, "days": [vars(day) for day in days]}
    (HERE / "results" / "flywheel.json").write_text(json.dumps(result, indent=1) + "\n")


def table(days: Sequence[Day]) -> str:
    lines = [
        "| day | regime | labelled | certified coverage | test coverage | test agreement |"
        " lowest | below the claim |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        _row([d for d in days if d.day == number and d.regime == regime])
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
    return (
        f"| {seeds[0].day} | {seeds[0].regime} | {mean('labelled'):.0f} | "
        f"{mean('claimed_coverage'):.3f} | {mean('coverage'):.3f} | {mean('agreement'):.3f} | "
        f"{min(agreements, default=float('nan')):.3f} | {below} of {len(seeds)} |"
    )


if __name__ == "__main__":
    main()
