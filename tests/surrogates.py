"""A small real surrogate: a cascade of two stages, exported to ONNX, with its manifest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from shared.contracts.events import CertificateSummary
from shared.contracts.manifest import FrontierPoint, Manifest, Teacher
from shared.core.grouping import group_folds
from shared.core.stages import FOLDS, fit_stages
from shared.encoder.base import Encoder
from shared.fitting.graphs import export_cascade
from shared.fitting.horizon import Horizon, training_set
from shared.registry.base import Artifact

LABELS = ("account", "billing", "delivery")
_WORDS = {
    "account": "password login email profile locked",
    "billing": "invoice charged payment receipt card",
    "delivery": "parcel courier late shipping address",
}
SALADS = 300
MUDDLES = 150


def text_of(label: str) -> str:
    """A text the surrogate is sure of."""
    return _WORDS[label]


def make_surrogate(
    encoder: Encoder, *, threshold: float = 0.8, window: str = "2026-01-05", task: str = "support",
    lexical: bool = True, teacher: Teacher | None = None, alpha: float = 0.95,
) -> Artifact:  # fmt: skip
    """Trained on word salads of one label each and on muddles of two, which the teacher labels
    either way; the same arguments give the same bytes. Without the `lexical` stage everything is
    embedded."""
    rng = np.random.default_rng(0)
    given = [LABELS[i % 3] for i in range(SALADS + MUDDLES)]
    texts = [_salad(rng, label) for label in given[:SALADS]]
    for label in given[SALADS:]:
        other = rng.choice([each for each in LABELS if each != label])
        halves = [_salad(rng, label), _salad(rng, str(other))]
        texts.append(" ".join(rng.permutation(halves)))  # else the first word would say the label
    horizon = Horizon([(text,) for text in texts], given, np.ones(len(texts), dtype=np.bool_))
    rows = training_set(horizon, encoder)
    if not lexical:
        rows = replace(rows, tokens=None)
    folds = group_folds(rows.groups, rows.y, FOLDS, 0)
    cascade = fit_stages(rows, folds, seed=0, jobs=1).cascade()
    stages, blobs = export_cascade(cascade, rows, "embedding", [threshold] * len(cascade.stages))
    manifest = Manifest(
        task=task,
        window=window,
        encoder=encoder.digest,
        labels=LABELS,
        stages=stages,
        certificate=CertificateSummary(
            kind="crossfit", alpha=alpha, delta=0.1, method="lexical", n_evidence=300,
            coverage=0.9, agreement=0.95, agreement_lower=0.92,
        ),
        frontier=tuple(
            FrontierPoint(alpha=at, coverage=share, agreement=at + 0.01, agreement_lower=at)
            for at, share in ((0.95, 0.9), (0.97, 0.6), (0.98, 0.0))
        ),
        n_traces=len(texts),
        traces_sha256="0" * 64,
        teacher=teacher,
    )  # fmt: skip
    return Artifact(manifest.encode(), blobs)


def _salad(rng: np.random.Generator, label: str) -> str:
    return " ".join(rng.choice(_WORDS[label].split(), 3))
