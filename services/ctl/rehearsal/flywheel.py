"""Some days of a file's rows under one regime of observation, and what every version is worth.

All labels: the teacher answers every request. Deferred only: it answers what the router defers.
Audits: it also answers a random share of what the router handles. After each day the active
version is put to test rows that nobody has seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as midnight
from pathlib import Path

import msgspec
import numpy as np
from scipy.special import betaincinv

from services.ctl.encoded import encoded
from services.ctl.files import Row
from services.ctl.rehearsal.loop import Loop
from services.ctl.rehearsal.traffic import FIRST, input_of, split_test
from shared.contracts.events import Trace
from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.onnx.cascade import CascadeSession

# A claim is refuted where the test rows would agree so rarely with this probability at most.
REFUTED_AT = 0.05


@dataclass(frozen=True)
class Regime:
    """audit_share: of handled requests; None where the teacher answers everything."""

    name: str
    audit_share: float | None

    @classmethod
    def audits(cls, share: float) -> Regime:
        return cls(f"deferred + {100 * share:.3g}% audits", share)


ALL_LABELS, DEFERRED_ONLY = Regime("all labels", None), Regime("deferred only", 0.0)


@dataclass(frozen=True)
class Day:
    """After a day: what the active version claims, and what it does on the test rows.

    claimed_coverage and claimed_agreement: of the certificate, the latter its lower bound; 0
    without a version. agreement: None where nothing was handled. claim_refuted: the test rows
    agree credibly less often than claimed. fit_cpu_seconds: of the day's fit, embeddings known, the
    incumbent's judgement included; report_cpu_seconds: of the report that follows it. incremental:
    whether the day's version took over what a full fit had left.
    """

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
    claim_refuted: bool
    fit_cpu_seconds: float
    report_cpu_seconds: float
    incremental: bool


def run_regime(
    rows: Sequence[Row],
    encoder: Encoder,
    regime: Regime,
    task: Task,
    *,
    days: int,
    seed: int,
    done: Callable[[Day], None] = lambda day: None,
) -> list[Day]:
    """Days of about equally many requests in random order; `done` is told of each.

    Of the task's settings the regime has the share of audits.
    """
    train, test = split_test(rows, seed)
    order = np.random.default_rng(seed).permutation(len(train))
    labels = {row.id: row.teacher for row in train}
    task = msgspec.structs.replace(task, audit_share=regime.audit_share or 0.0)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(task, encoder, Path(folder), lambda request_id: labels[request_id])
        for number, part in enumerate(np.array_split(order, days)):
            _live(loop, [train[i] for i in part], FIRST + timedelta(days=number), regime)
            loop.close(FIRST + timedelta(days=number))
            found.append(_measure(loop, test, regime.name, number + 1, seed))
            done(found[-1])
    return found


def _live(loop: Loop, today: Sequence[Row], day: date, regime: Regime) -> None:
    if regime.audit_share is not None:
        loop.run_day(day, {row.id: input_of(row) for row in today})
        return
    start = datetime.combine(day, midnight(), UTC)
    step = timedelta(days=1) / (len(today) + 1)
    loop.log([
        Trace(id=row.id, task=loop.task.name, input=input_of(row), teacher=row.teacher,
              occurred_at=start + step * i)
        for i, row in enumerate(today)
    ])  # fmt: skip


def _measure(loop: Loop, test: Sequence[Row], regime: str, day: int, seed: int) -> Day:
    announced = [a for a in loop.announced if a.window is not None][-1]
    active = loop.registry.active(loop.task.name).version
    coverage, agreement, claimed, refuted = 0.0, None, (0.0, 0.0), False
    if active is not None:
        artifact = loop.registry.load(loop.task.name, active)
        certificate = artifact.manifest.certificate
        claimed = (certificate.coverage, certificate.agreement_lower)
        inputs = encoded([row.texts for row in test], loop.encoder)
        said = inputs.answers(CascadeSession(artifact.manifest, artifact.blobs))
        handled = said.stage >= 0
        agrees = np.asarray(artifact.manifest.labels)[said.label] == [r.teacher for r in test]
        coverage = float(handled.mean())
        if handled.any():
            agreement = float(agrees[handled].mean())
            refuted = _upper(int(agrees[handled].sum()), int(handled.sum())) < claimed[1]
    return Day(
        seed=seed, regime=regime, day=day, verdict=announced.kind.value,
        labelled=announced.n_traces or 0, n_evidence=int(announced.figures.get("n_evidence", 0)),
        claimed_coverage=round(claimed[0], 4), claimed_agreement=round(claimed[1], 4),
        coverage=round(coverage, 4),
        agreement=None if agreement is None else round(agreement, 4),
        claim_refuted=refuted, fit_cpu_seconds=round(loop.examine.fit_seconds, 2),
        report_cpu_seconds=round(loop.examine.report_seconds, 2),
        incremental=loop.examine.incremental,
    )  # fmt: skip


def _upper(agreed: int, n: int) -> float:
    """Upper bound of the true agreement at level 1 - REFUTED_AT (Clopper and Pearson 1934)."""
    return 1.0 if agreed == n else float(betaincinv(agreed + 1, n - agreed, 1.0 - REFUTED_AT))
