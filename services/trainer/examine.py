"""Examines a closed window in this process: fits the challenger, judges the incumbent."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from services.trainer.examination import Examination, FitFailed
from services.trainer.incumbent import on_fresh_evidence
from services.trainer.reporting import Outcome, read_costs, report_of
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.encoder.cache import CachedEncoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.challenger import Challenger, fit_challenger
from shared.fitting.cluster import DaskCluster, spread
from shared.fitting.horizon import of_one_kind
from shared.fitting.reading import horizon_days, read_day, read_horizon
from shared.registry.base import Artifact
from shared.store.parquet import WindowStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Fitted:
    """Kept for the report: what stays where it was made, being as large as the horizon."""

    task: str
    day: date
    challenger: Challenger
    strays: int


@dataclass
class Examiner:
    """In this process. Deterministic: the same traces give the same artifact."""

    windows: WindowStore
    encoder: Encoder
    jobs: int = 1
    cluster: DaskCluster | None = None
    _last: _Fitted | None = None

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        stored = self.windows.view(task.name)
        horizon, strays = of_one_kind(read_horizon(stored, task, day))
        if strays:
            log.warning("traces of another number of texts left out", extra={"left_out": strays})
        challenger = fit_challenger(
            task,
            day,
            horizon,
            self.encoder,
            jobs=self.jobs,
            source=stored.source(horizon_days(stored, task, day)),
            cluster=self.cluster,
        )
        self._last = _Fitted(task.name, day, challenger, strays)
        found = None
        if incumbent is not None:
            window, _ = of_one_kind(read_day(stored, task, day))
            found = on_fresh_evidence(incumbent, window, self.encoder, delta=task.delta)
        return Examination(
            n_traces=len(horizon),
            n_evidence=int(horizon.evidence.sum()),
            n_stored=horizon.stored,
            answered_by=horizon.answered_by,
            challenger=replace(challenger, tried=None),
            fresh=found,
        )

    def report(self, task: Task, day: date, outcome: Outcome) -> Report:
        last, self._last = self._last, None
        if last is None or (last.task, last.day) != (task.name, day):
            raise FitFailed("the fit to report on is gone: its process ended")
        costs = read_costs(self.windows, task, day)
        with spread(self.jobs, self.cluster) as jobs:
            return report_of(
                task, day, last.challenger, outcome, costs, strays=last.strays, jobs=jobs
            )


@dataclass(frozen=True)
class ExaminerPlan:
    """What an examiner is made of, in whatever process it is made.

    store: as `WindowStore` takes it. threads: of the encoder.
    """

    store: str
    encoder: Path
    threads: int | None
    cache: Path
    jobs: int
    cluster: DaskCluster | None = None

    def make(self) -> Examiner:
        self.cache.mkdir(parents=True, exist_ok=True)
        encoder = CachedEncoder(
            OnnxEncoder(self.encoder, threads=self.threads), self.cache / "embeddings.sqlite"
        )
        return Examiner(WindowStore(self.store), encoder, self.jobs, self.cluster)
