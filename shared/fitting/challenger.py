"""The challenger of a window: fitted on the whole horizon, certified or refused.

The trainer publishes it; `tracerctl whatif` only replays a past day against it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date

from threadpoolctl import threadpool_limits

from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import Source
from shared.contracts.tasks import Task
from shared.core.fit import Fit, Settings, fit
from shared.core.gate import Certified, Refused
from shared.core.training import TrainingSet
from shared.core.types import InvalidData
from shared.encoder.base import Encoder
from shared.fitting.artifact import make_artifact
from shared.fitting.cluster import DaskCluster, spread
from shared.fitting.graphs import serve_as_onnx
from shared.fitting.horizon import Horizon, feature_kind, training_set
from shared.fitting.stored import since_trip
from shared.onnx.parity import ParityError
from shared.registry.base import Artifact, ArtifactTooLarge

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
    cluster: DaskCluster | None = None,
) -> Challenger:
    """Deterministic: the same traces give the same artifact, byte for byte, on any number of cores,
    and on a cluster of the same processors. `source`: where they lay in their topic, for the
    manifest. `cluster`: computes the folds in place of `jobs` processes of this machine; then this
    raises ClusterUnavailable and ClusterFailed."""
    # How BLAS divides a sum among threads decides its last digits. `jobs` are processes, each with
    # one thread too: as much work in parallel, in an order that does not change.
    with threadpool_limits(1, "blas"), spread(jobs, cluster) as spread_jobs:
        return _challenger(task, day, horizon, encoder, spread_jobs, source)


def _challenger(
    task: Task, day: date, horizon: Horizon, encoder: Encoder, jobs: int, source: Source | None
) -> Challenger:
    best = None
    try:
        best = _best(_fits(task, horizon, encoder, jobs))
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
        )
    except (InvalidData, ParityError, ArtifactTooLarge) as error:
        return Challenger(None, str(error), best)
    log.info("exported", extra={"version": artifact.version, "parity": [asdict(p) for p in parity]})
    certificate = artifact.manifest.certificate
    return Challenger(
        artifact,
        f"certified: handles {certificate.coverage:.1%} of the traffic at agreement >= "
        f"{certificate.agreement_lower:.3f} (delta {certificate.delta})",
        best,
    )


def _fits(task: Task, horizon: Horizon, encoder: Encoder, jobs: int) -> list[Tried]:
    """On all traces; after a trip also on those since alone, each at half of δ, because what was
    learned before may be what failed."""
    horizons = [horizon]
    recent = since_trip(horizon)
    if recent is not None:
        horizons.append(recent)
    settings = Settings(
        alpha=task.alpha,
        delta=task.delta / len(horizons),
        kind=task.evidence,
        holdout_share=task.holdout_share,
        next_sample=task.next_sample,
        label_floor=task.label_floor,
        jobs=jobs,
    )
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
