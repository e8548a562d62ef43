"""A small real surrogate: scikit-learn, exported to ONNX, with its manifest."""

from __future__ import annotations

import numpy as np

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import Manifest, Stage, sha256
from shared.core.acceptor import PROBABILITY_FLOOR, fit_acceptor
from shared.core.candidates import Candidate, fit_classifier
from shared.encoder.base import Encoder
from shared.onnx.export import export_stage
from shared.registry.base import Artifact

LABELS = ("account", "billing", "delivery")
_WORDS = {
    "account": "password login email profile locked",
    "billing": "invoice charged payment receipt card",
    "delivery": "parcel courier late shipping address",
}


def text_of(label: str) -> str:
    """A text the surrogate is sure of."""
    return _WORDS[label]


def make_surrogate(
    encoder: Encoder, *, threshold: float = 0.6, window: str = "2026-01-05", task: str = "support"
) -> Artifact:
    """Trained on a few hundred word salads; the same arguments give the same bytes."""
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    texts = [" ".join(rng.choice(_WORDS[LABELS[label]].split(), 3)) for label in y]
    X = encoder.encode(texts)
    classifier = fit_classifier(Candidate("logistic_C10", 10.0), X, y, 0)
    mixed = (X[:-1] + X[1:]) / 2
    p = classifier.predict_proba(np.concatenate([X, mixed]))
    acceptor = fit_acceptor(p, np.arange(len(p)) < len(X))
    blob = export_stage(
        classifier,
        acceptor.coefficients,
        acceptor.intercept,
        dim=encoder.dim,
        floor=PROBABILITY_FLOOR,
    )
    stage = Stage(
        name="semantic",
        features="embedding",
        blob=sha256(blob),
        bytes=len(blob),
        dim=encoder.dim,
        threshold=threshold,
    )
    manifest = Manifest(
        task=task,
        window=window,
        encoder=encoder.digest,
        labels=LABELS,
        stages=(stage,),
        certificate=CertificateSummary(
            kind="crossfit", alpha=0.9, delta=0.1, method="l2d", n_evidence=300,
            coverage=0.9, agreement=0.95, agreement_lower=0.92,
        ),
        frontier=(),
        n_traces=300,
        traces_sha256="0" * 64,
    )  # fmt: skip
    return Artifact(manifest.encode(), {stage.blob: blob})
