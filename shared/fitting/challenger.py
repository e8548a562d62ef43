"""The challenger of a window: fitted on the whole horizon, certified or refused.

The trainer publishes it; `tracerctl whatif` only replays a past day against it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date

from threadpoolctl import threadpool_limits

from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Incremental, Source, window_of
from shared.contracts.tasks import Task
from shared.core.fit import Fit, fit, prepare
from shared.core.gate import Certified, Refused
from shared.core.training import TrainingSet
from shared.core.types import InvalidData
from shared.encoder.base import Encoder
from shared.fitting.artifact import make_artifact
from shared.fitting.cluster import DaskCluster, spread
from shared.fitting.graphs import serve_as_onnx
from shared.fitting.horizon import Horizon, feature_kind, training_set
from shared.fitting.incremental import fit_incrementally, note_of, settings_of, state_of
from shared.fitting.refit_state import State
from shared.fitting.stored import since_trip
from shared.onnx.parity import ParityError
from shared.registry.base import Artifact, ArtifactTooLarge
from shared.rounding import down

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Challenger:
    """`artifact`: None where it was refused, for the `reason` given. `tried`: the fit behind it,
    None where the traces could not be fitted on at all."""

    artifact: Artifact | None
    reason: str
    tried: Tried | None = None

    @property
    def coverage(self) -> float | None:
        """Certified, None for a refusal."""
        return None if self.artifact is None else self.artifact.manifest.certificate.coverage


@dataclass(frozen=True)
class Tried:
    """A fit and what it was made of."""

    horizon: Horizon
    training: TrainingSet
    fitted: Fit


def fit_challenger(
    task: Task,
    day: date,
    horizon: Horizon,
    encoder: Encoder,
    *,
    jobs: int,
    source: Source | None = None,
    state: State | None = None,
    cluster: DaskCluster | None = None,
) -> Challenger:
    """Deterministic: the same traces give the same artifact, byte for byte, on any number of cores,
    and on a cluster of the same processors. `source`: where they lay in their topic, for the
    manifest. `state`: for an incremental fit, if `why_full` allows one. `cluster`: computes the
    folds in place of `jobs` processes of this machine; then this raises ClusterUnavailable and
    ClusterFailed."""
    # How BLAS divides a sum among threads decides its last digits. `jobs` are processes, each with
    # one thread too: as much work in parallel, in an order that does not change.
    with threadpool_limits(1, "blas"), spread(jobs, cluster) as spread_jobs:
        return _challenger(task, day, horizon, encoder, spread_jobs, source, state)


def state_left_by(
    challenger: Challenger, horizon: Horizon, task: Task, encoder: Encoder
) -> State | None:
    """For incremental refits after a full one that was certified. None where there can be none:
    after a trip, and of a fit with a residual stage."""
    artifact, tried = challenger.artifact, challenger.tried
    if artifact is None or tried is None or tried.fitted.judged is None:
        return None
    if horizon.recent is not None:
        return None
    manifest, judged = artifact.manifest, tried.fitted.judged
    left = state_of(
        judged.fits, judged.fitted_at, horizon, task, encoder,
        since=artifact.version, window=manifest.window, source=manifest.source,
    )  # fmt: skip
    if left is None:
        log.info("a fit with a residual stage: the next refit is a full one, too")
    return left


def state_again(
    task: Task, note: Incremental, horizon: Horizon, encoder: Encoder, *, jobs: int
) -> State | None:
    """The state an incremental refit was made with, from the traces of the full one before it; None
    where those cannot be fitted on. The note's digest says whether it is the same."""
    with threadpool_limits(1, "blas"), spread(jobs, None) as spread_jobs:
        training = training_set(horizon, encoder)
        prepared = prepare(training, settings_of(task, spread_jobs), serve_as_onnx)
        if isinstance(prepared, Refused):
            return None
        return state_of(
            prepared.fits, prepared.fitted_at, horizon, task, encoder,
            since=note.since, window=window_of(note.since), source=note.source,
        )  # fmt: skip


def _challenger(
    task: Task, day: date, horizon: Horizon, encoder: Encoder, jobs: int, source: Source | None,
    state: State | None,
) -> Challenger:  # fmt: skip
    best = None
    try:
        if state is None:
            best = _best(_fits(task, horizon, encoder, jobs))
        else:
            training = training_set(horizon, encoder)
            fitted = fit_incrementally(training, horizon, state, settings_of(task, jobs))
            best = Tried(horizon, training, fitted)
        if isinstance(best.fitted.verdict, Refused):
            return Challenger(None, best.fitted.verdict.reason, best)
        artifact, parity = make_artifact(
            best.fitted,
            best.training,
            task=task.name,
            window=day.isoformat(),
            encoder_digest=encoder.digest,
            kind=feature_kind(best.horizon.inputs),
            traces_sha256=best.horizon.digest(),
            teacher=horizon.answered_by,
            settings=FitSettings.of(task),
            source=source,
            incremental=None if state is None else note_of(state),
        )
    except (InvalidData, ParityError, ArtifactTooLarge) as error:
        return Challenger(None, str(error), best)
    log.info("exported", extra={"version": artifact.version, "parity": [asdict(p) for p in parity]})
    certificate = artifact.manifest.certificate
    return Challenger(
        artifact,
        f"certified: handles {certificate.coverage:.1%} of the traffic at agreement >= "
        f"{down(certificate.agreement_lower, 3):.3f} (delta {certificate.delta})"
        + ("" if state is None else f"; incremental, since the full refit {state.since}"),
        best,
    )


def _fits(task: Task, horizon: Horizon, encoder: Encoder, jobs: int) -> list[Tried]:
    """On all traces; after a trip also on those since alone, each at half of δ, because what was
    learned before may be what failed."""
    horizons = [horizon]
    recent = since_trip(horizon)
    if recent is not None:
        horizons.append(recent)
    settings = settings_of(task, jobs)
    settings = replace(settings, delta=task.delta / len(horizons))
    tried = []
    for one in horizons:
        training = training_set(one, encoder)
        tried.append(Tried(one, training, fit(training, settings, serve_as_onnx)))
    return tried


def _best(tried: Sequence[Tried]) -> Tried:
    """The one that covers most; of refusals the first."""

    def coverage(one: Tried) -> float:
        verdict = one.fitted.verdict
        return verdict.coverage if isinstance(verdict, Certified) else -1.0

    return max(tried, key=coverage)
