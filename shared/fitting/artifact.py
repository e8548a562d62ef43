"""From a certified fit to an artifact: export, parity check, manifest."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import FrontierPoint, Manifest, Stage, sha256
from shared.core.acceptor import PROBABILITY_FLOOR
from shared.core.candidates import predict
from shared.core.fit import Fit, Surrogate
from shared.core.gate import Certified, Refused
from shared.core.types import TrainingSet
from shared.fitting.horizon import FeatureKind
from shared.onnx.export import export_stage
from shared.onnx.parity import Parity, check_parity
from shared.onnx.session import StageSession
from shared.registry.base import Artifact

PARITY_ROWS = 2_000


def make_artifact(
    fitted: Fit,
    training: TrainingSet,
    *,
    task: str,
    window: str,
    encoder_digest: str,
    kind: FeatureKind,
    traces_sha256: str,
) -> tuple[Artifact, Parity]:
    """Raises ParityError when ONNX and scikit-learn differ on the training rows, and ValueError
    for a fit that was not certified."""
    verdict, surrogate = fitted.verdict, fitted.surrogate
    if isinstance(verdict, Refused) or surrogate is None:
        raise ValueError("only a certified fit becomes an artifact")
    blob = export_stage(
        surrogate.classifier,
        surrogate.acceptor.coefficients,
        surrogate.acceptor.intercept,
        dim=training.features.shape[1],
        floor=PROBABILITY_FLOOR,
    )
    stage = Stage(
        name="semantic",
        features=kind,
        blob=sha256(blob),
        bytes=len(blob),
        dim=training.features.shape[1],
        threshold=verdict.threshold,
    )
    parity = _parity(blob, stage, surrogate, training)
    manifest = Manifest(
        task=task,
        window=window,
        encoder=encoder_digest,
        labels=training.labels,
        stages=(stage,),
        certificate=certificate(verdict, fitted.method or "l2d"),
        frontier=tuple(_point(point) for point in fitted.frontier),
        n_traces=len(training),
        traces_sha256=traces_sha256,
        candidates=tuple(
            {"name": t.name, "agreement": t.agreement, "chosen": t.chosen} for t in fitted.tried
        ),
        libraries={name: version(name) for name in ("numpy", "scikit-learn", "skl2onnx", "onnx")},
    )
    return Artifact(manifest.encode(), {stage.blob: blob}), parity


def certificate(verdict: Certified, method: str) -> CertificateSummary:
    """The verdict as it is announced and published."""
    return CertificateSummary(
        kind=verdict.kind,
        alpha=verdict.alpha,
        delta=verdict.delta,
        method=method,
        n_evidence=verdict.n_evidence,
        coverage=verdict.coverage,
        agreement=verdict.agreement,
        agreement_lower=verdict.agreement_lower,
    )


def _parity(blob: bytes, stage: Stage, surrogate: Surrogate, training: TrainingSet) -> Parity:
    rows = np.linspace(0, len(training) - 1, min(len(training), PARITY_ROWS)).astype(np.int64)
    features = training.features[rows]
    probabilities = predict(surrogate.classifier, features, surrogate.n_labels)
    session = StageSession(blob, stage, n_labels=surrogate.n_labels)
    return check_parity(
        session,
        features,
        probabilities.argmax(axis=1),
        probabilities[:, surrogate.classifier.classes_],
        surrogate.acceptor.score(probabilities),
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
