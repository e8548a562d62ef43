"""The per-label floor: labels that fall short of it are deferred whole."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from shared.core.cascade import Outputs
from shared.core.policies import Evidence
from shared.core.types import Ints

# Fewer independent answers with a label are no evidence against it.
MINIMUM_ANSWERS = 20


def failing_labels(
    outputs: Outputs, evidence: Evidence, stage: Ints, floor: float
) -> tuple[int, ...]:
    """Labels answered MINIMUM_ANSWERS times or more that agree less than `floor`.

    stage: int64[n], which one answered each row, -1 for none. Near-duplicates with one label are
    one answer, of their mean agreement and weight; answers of unequal weights count as Kish's
    effective number of equal ones.
    """
    rows = np.flatnonzero(stage >= 0)
    label = outputs.label[rows, stage[rows]]
    weights = evidence.weights[rows]
    answers, answer, copies = np.unique(
        np.stack([label, evidence.groups[rows]]), axis=1, return_inverse=True, return_counts=True
    )
    answer = answer.ravel()  # NumPy 2.0 gives it two dimensions
    weight = np.bincount(answer, weights) / copies
    right = np.bincount(answer, weights * evidence.agrees[rows, stage[rows]]) / copies
    total = np.bincount(answers[0], weight)
    agreed = np.bincount(answers[0], right)
    size = total**2 / np.maximum(np.bincount(answers[0], weight**2), np.finfo(float).tiny)
    bad = (size >= MINIMUM_ANSWERS - 1e-6) & (agreed < floor * total)
    return tuple(np.flatnonzero(bad).tolist())


def drop_labels(outputs: Outputs, labels: Collection[int]) -> Outputs:
    """The same outputs, answers with these labels counted as novel: no stage gives them."""
    dropped = np.isin(outputs.label, list(labels))
    return Outputs(outputs.label, outputs.accept, outputs.novel | dropped)
