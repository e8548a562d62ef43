"""A version for benchmarks of what stores and shows versions, and never runs them."""

from __future__ import annotations

import random
from datetime import date

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import FrontierPoint, Manifest, Stage, sha256
from shared.registry.base import Artifact


def made_up(
    task: str, window: date, *, coverage: float, seed: int | str, blob_bytes: int = 1_000_000
) -> Artifact:
    """A manifest as large as Banking77's, and a blob, drawn from `seed`, that is no model."""
    blob = random.Random(seed).randbytes(blob_bytes)
    manifest = Manifest(
        task=task,
        window=window.isoformat(),
        encoder=sha256(b"encoder"),
        labels=tuple(f"label_number_{n:03}_of_a_taxonomy" for n in range(77)),
        stages=(
            Stage(
                name="lexical", features="token_ids", blob=sha256(blob), bytes=len(blob),
                dim=30_522, threshold=0.7,
            ),
        ),
        certificate=CertificateSummary(
            kind="crossfit", alpha=0.95, delta=0.1, method="lexical", n_evidence=9_000,
            coverage=coverage, agreement=0.965, agreement_lower=0.955,
        ),
        frontier=tuple(
            FrontierPoint(alpha=a / 100, coverage=coverage, agreement=0.97, agreement_lower=0.96)
            for a in range(80, 100)
        ),
        n_traces=9_003,
        traces_sha256=sha256(b"traces"),
    )  # fmt: skip
    return Artifact(manifest.encode(), {sha256(blob): blob})
