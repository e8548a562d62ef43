"""The version in use, on the evidence of the window that has just closed."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from shared.contracts.manifest import Manifest, Teacher
from shared.core.fresh import Fresh, fresh
from shared.core.grouping import independent_groups, near_duplicate_groups
from shared.encoder.base import Encoder
from shared.fitting.horizon import Horizon, encode_inputs, input_tokens
from shared.onnx.cascade import CascadeSession
from shared.registry.base import Artifact


def on_fresh_evidence(
    artifact: Artifact, window: Horizon, encoder: Encoder, *, delta: float
) -> Fresh:
    """What the version does with the evidence of a window it was not fitted on. Requests of another
    number of texts than it is made for it defers."""
    seen = window.take(np.flatnonzero(window.evidence).tolist())
    if not len(seen):
        return Fresh(0, 0.0)
    manifest = artifact.manifest
    rows = [i for i, texts in enumerate(seen.inputs) if len(texts) == manifest.n_texts]
    asked = seen.take(rows)
    features = encode_inputs(asked.inputs, encoder)
    said = CascadeSession(manifest, artifact.blobs).answer(
        len(rows), input_tokens(asked.inputs, encoder).rows(), lambda left: features[left]
    )
    handled, agrees = np.zeros((2, len(seen)), np.bool_)
    handled[rows] = said.stage >= 0
    agrees[rows] = np.asarray(manifest.labels)[said.label] == np.asarray(asked.teacher)
    groups = independent_groups(near_duplicate_groups(seen.texts))
    weights = np.ones(len(seen)) if seen.weights is None else seen.weights
    return fresh(handled, agrees, groups, weights, delta)


def still_valid(manifest: Manifest, teacher: Teacher, taxonomy: Collection[str]) -> bool:
    """Whether the certificate is of the teacher that answers now and every label can still be
    given."""
    before = manifest.teacher or Teacher()
    same = all(
        was is None or now is None or was == now
        for was, now in ((before.model, teacher.model), (before.prompt, teacher.prompt))
    )
    return same and (not taxonomy or set(manifest.labels) <= set(taxonomy))
