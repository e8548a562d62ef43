"""The traces nearest to a text, on both sides of the boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.core.types import Matrix
from shared.encoder.base import Encoder
from shared.explain.explanation import Neighbour
from shared.explain.reasons import stage_says
from shared.fitting.horizon import encode_inputs, input_tokens
from shared.onnx.cascade import Answers, CascadeSession

MOST = 3
LOOKED_AT = 300  # of the nearest traces so many are put to the version


@dataclass(frozen=True)
class Trace:
    """A stored trace: one or two texts and the teacher's answer."""

    texts: tuple[str, ...]
    teacher: str


def neighbours(
    features: Matrix, traces: Sequence[Trace], encoder: Encoder, session: CascadeSession
) -> tuple[list[Neighbour], list[Neighbour]]:
    """Nearest handled and nearest deferred ones of a text with `features` float32[d]; traces of
    another number of texts, and repeats, are left out."""
    n_texts = session.manifest.n_texts
    some = list({trace.texts: trace for trace in traces if len(trace.texts) == n_texts}.values())
    if not some:
        return [], []
    embedded = encode_inputs([trace.texts for trace in some], encoder)
    norms = np.linalg.norm(embedded, axis=1) * np.linalg.norm(features)
    similarity = embedded @ features / np.maximum(norms, 1e-12)
    nearest = np.argsort(-similarity, kind="stable")[:LOOKED_AT]
    inputs = [some[i].texts for i in nearest.tolist()]
    said = session.answer(
        len(nearest), input_tokens(inputs, encoder).rows(), lambda rows: embedded[nearest[rows]]
    )
    found: tuple[list[Neighbour], list[Neighbour]] = ([], [])
    for at, i in enumerate(nearest.tolist()):
        side = found[0] if said.stage[at] >= 0 else found[1]
        if len(side) < MOST:
            side.append(
                Neighbour(
                    some[i].texts, some[i].teacher, session.manifest.labels[said.label[at]],
                    round(float(said.accept[at]), 4), round(float(similarity[i]), 4),
                    _why(said, at, session),
                )
            )  # fmt: skip
    return found


def _why(said: Answers, at: int, session: CascadeSession) -> str:
    label = session.manifest.labels[said.label[at]]
    _, why = stage_says(
        label, float(said.accept[at]), float(said.threshold[at]),
        novel=", however sure it is" if said.novel[at] else None, dropped=bool(said.dropped[at]),
    )  # fmt: skip
    return why
