"""A closed window's refit: horizon, embeddings, fit, gate, export, publish or refuse, announce.

The order of side effects: publish to the registry, read it back, announce, note the verdict.
Each step may be repeated after a crash without harm: the same traces give the same artifact, and
publishing what is active already changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from shared.clock import Clock
from shared.contracts.events import (
    AnnouncementKind,
    ModelAnnouncement,
    Reason,
    Source,
)
from shared.contracts.manifest import sha256, window_of
from shared.contracts.tasks import Task
from shared.core.fit import Settings, fit
from shared.core.gate import Refused
from shared.core.types import InvalidData
from shared.core.window import WindowKey
from shared.encoder.base import Encoder
from shared.fitting.artifact import make_artifact
from shared.fitting.graphs import serve_as_onnx
from shared.fitting.horizon import (
    Horizon,
    feature_kind,
    is_evidence,
    of_one_kind,
    training_set,
)
from shared.onnx.parity import ParityError
from shared.registry.base import Artifact, ArtifactTooLarge, Registry
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Announce = Callable[[ModelAnnouncement], None]


class Windows(Protocol):
    """The stored windows, read side."""

    def read(self, task: str, days: Iterable[date]) -> pa.Table: ...

    def days(self, task: str) -> list[date]: ...

    def write_verdict(self, task: str, day: date, verdict: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Refit:
    """Refits a task from scratch after one of its windows has closed."""

    tasks: Mapping[str, Task]
    windows: Windows
    encoder: Encoder
    registry: Registry
    announce: Announce
    clock: Clock
    jobs: int = 1

    def __call__(self, key: WindowKey) -> ModelAnnouncement:
        """Fit, then publish or refuse. Raises RegistryUnavailable, OSError or Retryable; the
        same call may then be made again."""
        task = self.tasks[key.task]
        started = self.clock.monotonic()
        announcement = self._publish_or_refuse(task, key.day)
        self.announce(announcement)
        seconds = self.clock.monotonic() - started
        self.windows.write_verdict(
            task.name, key.day, {"kind": announcement.kind.value, "version": announcement.version}
        )
        metrics.FITS.labels(task.name, announcement.kind.value).inc()
        metrics.FIT_SECONDS.labels(task.name).set(seconds)
        log.info(
            "refit done",
            extra={"task": task.name, "window": announcement.window,
                   "verdict": announcement.kind.value, "reason": announcement.reason,
                   "version": announcement.version, "seconds": round(seconds, 2)},
        )  # fmt: skip
        return announcement

    def _publish_or_refuse(self, task: Task, day: date) -> ModelAnnouncement:
        fence = self.registry.acquire(task.name)
        horizon, strays = of_one_kind(self._horizon(task, day))
        if strays:
            log.warning("traces of another number of texts left out", extra={"left_out": strays})
        active = self.registry.active(task.name).version
        serving = window_of(active) if active else ""
        if serving > day.isoformat():
            return self._refused(
                task, day, horizon, f"window {serving} has been published already; it stays"
            )
        try:
            training = training_set(horizon, self.encoder)
            fitted = fit(training, self._settings(task), serve_as_onnx)
            if isinstance(fitted.verdict, Refused):
                return self._refused(task, day, horizon, fitted.verdict.reason)
            artifact, parity = make_artifact(
                fitted,
                training,
                task=task.name,
                window=day.isoformat(),
                encoder_digest=self.encoder.digest,
                kind=feature_kind(horizon.inputs),
                traces_sha256=horizon.digest(),
            )
        except (InvalidData, ParityError, ArtifactTooLarge) as error:
            return self._refused(task, day, horizon, str(error))
        log.info(
            "exported", extra={"version": artifact.version, "parity": [asdict(p) for p in parity]}
        )
        return self._publish(task, day, horizon, artifact, fence)

    def _publish(
        self, task: Task, day: date, horizon: Horizon, artifact: Artifact, fence: int
    ) -> ModelAnnouncement:
        certificate = artifact.manifest.certificate
        reason = (
            f"certified: handles {certificate.coverage:.1%} of the traffic at agreement >= "
            f"{certificate.agreement_lower:.3f} (delta {certificate.delta})"
        )
        previous = self.registry.active(task.name).version
        active = self.registry.publish(
            artifact, fence=fence, at=self.clock.now(), reason=f"window {day.isoformat()}: {reason}"
        )
        self.registry.load(task.name, artifact.version)  # what routers will read, SHA-256 and all
        metrics.CERTIFIED_COVERAGE.labels(task.name).set(certificate.coverage)
        return ModelAnnouncement(
            kind=AnnouncementKind.PUBLISHED,
            task=task.name,
            announced_at=self.clock.now(),
            reason=reason,
            version=artifact.version,
            previous_version=previous if previous != artifact.version else None,
            epoch=active.epoch,
            window=day.isoformat(),
            n_traces=len(horizon),
            manifest_sha256=sha256(artifact.manifest_bytes),
            encoder=self.encoder.digest,
            certificate=certificate,
        )

    def _settings(self, task: Task) -> Settings:
        return Settings(
            alpha=task.alpha,
            delta=task.delta,
            kind=task.evidence,
            holdout_share=task.holdout_share,
            next_sample=task.next_sample,
            label_floor=task.label_floor,
            jobs=self.jobs,
        )

    def _horizon(self, task: Task, day: date) -> Horizon:
        stored = [d for d in self.windows.days(task.name) if d <= day]
        recent = [d for d in stored if (day - d).days < task.horizon_days]
        return horizon_of(self.windows.read(task.name, recent))

    def _refused(self, task: Task, day: date, horizon: Horizon, reason: str) -> ModelAnnouncement:
        return ModelAnnouncement(
            kind=AnnouncementKind.REFUSED,
            task=task.name,
            announced_at=self.clock.now(),
            reason=reason,
            window=day.isoformat(),
            n_traces=len(horizon),
            encoder=self.encoder.digest,
        )


def horizon_of(table: pa.Table) -> Horizon:
    """Stored traces, sorted by event time and id, as a horizon."""
    table = table.sort_by([("occurred_at", "ascending"), ("id", "ascending")])
    reasons = (Reason(r) if r else None for r in table.column("deferral_reason").to_pylist())
    sources = (Source(s) for s in table.column("source").to_pylist())
    return Horizon(
        inputs=[tuple(texts) for texts in table.column("input").to_pylist()],
        teacher=table.column("teacher").to_pylist(),
        evidence=np.asarray(
            [is_evidence(s, r) for s, r in zip(sources, reasons, strict=True)], dtype=np.bool_
        ),
        weights=1.0 / table.column("observation_probability").to_numpy().astype(np.float64),
    )
