"""Small artifacts for tests: a real manifest with one stage over bytes that are no model."""

from __future__ import annotations

import random

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import FrontierPoint, Manifest, Stage, sha256
from shared.registry.base import Artifact


def make_artifact(
    task: str = "intents", window: str = "2026-01-01", text: str = "a", size: int = 512
) -> Artifact:
    """Equal arguments give equal bytes; another `text` gives another version."""
    blob = random.Random(text).randbytes(size)
    manifest = Manifest(
        task=task,
        window=window,
        encoder=sha256(b"encoder"),
        labels=("cancel", "refund"),
        stages=(
            Stage(
                name="global",
                features="embedding",
                blob=sha256(blob),
                bytes=len(blob),
                dim=384,
                threshold=0.5,
            ),
        ),
        certificate=CertificateSummary(
            kind="holdout",
            alpha=0.95,
            delta=0.05,
            method="fixed-sequence",
            n_evidence=1000,
            coverage=0.8,
            agreement=0.97,
            agreement_lower=0.951,
        ),
        frontier=(FrontierPoint(alpha=0.95, coverage=0.8, agreement=0.97, agreement_lower=0.951),),
        n_traces=5000,
        traces_sha256=sha256(text.encode()),
    )
    return Artifact(manifest.encode(), {sha256(blob): blob})
