"""Examines a closed window in this process: fits the challenger, judges the incumbent."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from services.trainer.examination import Examination, FitFailed
from services.trainer.incumbent import on_fresh_evidence
from services.trainer.refit_states import RefitStates
from services.trainer.reporting import Outcome, read_costs, report_of
from shared.contracts.report import Report
from shared.contracts.tasks import Task
from shared.encoder.base import Encoder
from shared.encoder.cache import CachedEncoder
from shared.encoder.onnx_encoder import OnnxEncoder
from shared.fitting.challenger import Challenger, fit_challenger, state_left_by
from shared.fitting.cluster import DaskCluster, spread
from shared.fitting.horizon import Horizon, of_one_kind
from shared.fitting.reading import horizon_days, read_day, read_horizon
from shared.registry.base import Artifact
from shared.store.parquet import View, WindowStore
from shared.store.saved import SavedFiles

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
    """In this process. Deterministic: the same traces give the same artifact, and so do the same
    traces and `states` for tasks that are refitted incrementally."""

    windows: WindowStore
    encoder: Encoder
    states: RefitStates
    jobs: int = 1
    cluster: DaskCluster | None = None
    _last: _Fitted | None = None

    def __call__(self, task: Task, day: date, incumbent: Artifact | None) -> Examination:
        stored = self.windows.view(task.name)
        horizon, strays = of_one_kind(read_horizon(stored, task, day))
        if strays:
            log.warning("traces of another number of texts left out", extra={"left_out": strays})
        challenger = self._challenger(task, day, horizon, stored)
        self._last = _Fitted(task.name, day, challenger, strays)
        found = None
        if incumbent is not None:
            window = read_day(stored, task, day)
            found = on_fresh_evidence(incumbent, window, self.encoder, delta=task.delta)
        return Examination(
            n_traces=len(horizon),
            n_evidence=int(horizon.evidence.sum()),
            n_stored=horizon.stored,
            answered_by=horizon.answered_by,
            challenger=replace(challenger, tried=None),
            fresh=found,
            tripped=horizon.tripped,
        )

    def _challenger(self, task: Task, day: date, horizon: Horizon, stored: View) -> Challenger:
        """In full, or with what the last full one left. What this one leaves is kept first."""
        incremental, days = task.refit == "incremental", stored.days(task.name)
        state = None
        if incremental:
            state = self.states.usable(task, day, horizon, self.encoder, days)
        source = stored.source(horizon_days(stored, task, day))
        challenger = fit_challenger(
            task, day, horizon, self.encoder,
            jobs=self.jobs, source=source, state=state, cluster=self.cluster,
        )  # fmt: skip
        if incremental and challenger.artifact is None:
            self.states.note_refused(task.name, day)
        elif incremental and state is None:
            left = state_left_by(challenger, horizon, task, self.encoder)
            if left is not None:
                self.states.keep(left)
        return challenger

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
        states = RefitStates(SavedFiles(self.store))
        return Examiner(WindowStore(self.store), encoder, states, self.jobs, self.cluster)
