"""From a certified fit to an artifact: manifest and graphs."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from shared.contracts.events import CertificateSummary
from shared.contracts.fit_settings import FitSettings
from shared.contracts.manifest import FrontierPoint, Incremental, Manifest, Source, Teacher
from shared.core.cascade import Cascade
from shared.core.fit import Fit
from shared.core.gate import Certified, Refused
from shared.core.training import TrainingSet
from shared.fitting.graphs import export_cascade, parity_of
from shared.fitting.horizon import FeatureKind
from shared.onnx.parity import Parity
from shared.registry.base import MAX_ARTIFACT_BYTES, Artifact, ArtifactTooLarge

LIBRARIES = (
    "joblib", "numpy", "onnx", "onnxruntime", "scikit-learn", "scipy", "skl2onnx", "tokenizers",
    "tracer-kafka",
)  # fmt: skip


def make_artifact(
    fitted: Fit,
    training: TrainingSet,
    *,
    task: str,
    window: str,
    encoder_digest: str,
    kind: FeatureKind,
    traces_sha256: str,
    teacher: Teacher | None = None,
    settings: FitSettings | None = None,
    source: Source | None = None,
    incremental: Incremental | None = None,
) -> tuple[Artifact, tuple[Parity, ...]]:
    """Raises ParityError when ONNX and the fit differ on the training rows, ArtifactTooLarge when
    no registry would take it, and ValueError for a fit that was not certified."""
    verdict = fitted.verdict
    if isinstance(verdict, Refused) or fitted.cascade is None:
        raise ValueError("only a certified fit becomes an artifact")
    cascade: Cascade = fitted.cascade
    stages, blobs = export_cascade(cascade, training, kind, fitted.thresholds)
    parity = parity_of(cascade, stages, blobs, training)
    manifest = Manifest(
        task=task,
        window=window,
        encoder=encoder_digest,
        labels=training.labels,
        stages=stages,
        deferred_labels=tuple(training.labels[i] for i in fitted.dropped),
        certificate=certificate(verdict, fitted.method or "l2d"),
        frontier=tuple(_point(point) for point in fitted.frontier),
        n_traces=len(training),
        traces_sha256=traces_sha256,
        teacher=teacher,
        settings=settings,
        source=source or {},
        incremental=incremental,
        candidates=candidates(fitted),
        families=families(fitted),
        libraries=libraries(),
    )
    artifact = Artifact(manifest.encode(), blobs)
    if artifact.size > MAX_ARTIFACT_BYTES:
        raise ArtifactTooLarge(_too_large(artifact, manifest))
    return artifact, parity


def libraries() -> dict[str, str]:
    """The versions of all that decides a fit's last digits, Python and this code included."""
    return {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def _too_large(artifact: Artifact, manifest: Manifest) -> str:
    stages = ", ".join(f"{stage.name} {stage.bytes / 2**20:.0f}" for stage in manifest.stages)
    return (
        f"the artifact has {artifact.size / 2**20:.0f} MiB ({stages}), a registry takes "
        f"{MAX_ARTIFACT_BYTES / 2**20:.0f}: a surrogate of {len(manifest.labels)} labels is too "
        "large; make coarser labels or several tasks of them, or take an encoder of fewer "
        "dimensions"
    )


def candidates(fitted: Fit) -> tuple[dict[str, Any], ...]:
    """The scorers tried, for people."""
    return tuple(
        {"stage": t.stage, "name": t.name, "agreement": round(t.agreement, 4), "chosen": t.chosen}
        for t in fitted.tried
    )


def families(fitted: Fit) -> tuple[dict[str, Any], ...]:
    """The compositions tried, for people."""
    return tuple(
        {
            "name": f.name,
            "coverage": round(f.coverage, 4),
            "floors": [round(floor, 4) for floor in f.floors],
            "chosen": f == fitted.family,
        }
        for f in fitted.families
    )


def certificate(verdict: Certified, method: str) -> CertificateSummary:
    """The verdict as it is announced and published."""
    return CertificateSummary(
        kind=verdict.kind,
        alpha=verdict.alpha,
        delta=verdict.delta,
        next_sample=verdict.next_sample,
        method=method,
        n_evidence=verdict.n_evidence,
        coverage=verdict.coverage,
        agreement=verdict.agreement,
        agreement_lower=verdict.agreement_lower,
    )


def _point(point: Certified | Refused) -> FrontierPoint:
    if isinstance(point, Refused):
        return FrontierPoint(alpha=point.alpha, coverage=0.0, agreement=0.0, agreement_lower=0.0)
    return FrontierPoint(
        alpha=point.alpha,
        coverage=point.coverage,
        agreement=point.agreement,
        agreement_lower=point.agreement_lower,
    )
