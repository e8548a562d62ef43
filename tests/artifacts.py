"""Small artifacts for tests: a real manifest with one stage over bytes that are no model, and a
report."""

from __future__ import annotations

import random

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import FrontierPoint, Manifest, Stage, sha256, window_of
from shared.contracts.report import Curves, Deferrals, Report, Slices
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


def make_report(task: str, version: str | None, *, window: str = "2026-01-01") -> Report:
    """One that says nothing but whose it is; of a refusal without a version."""
    return Report(
        task=task,
        window=window_of(version) if version else window,
        version=version,
        refused=version is None,
        reason="for a test",
        summary="Nothing, für einen Test.",
        n_traces=3,
        n_evidence=2,
        n_labels=2,
        alpha=0.95,
        delta=0.1,
        previews=True,
        redacted=False,
        certificate=None,
        frontier=(),
        slices=Slices(risk=0.05, n_tested=0, found=()),
        labels=(),
        deferrals=Deferrals(n=0, n_evidence=2, reasons=()),
        pairs=(),
        confusions=(),
        curves=Curves(risk=0.1, curves=()),
        deltas=None,
        money=None,
    )
