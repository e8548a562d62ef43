"""The per-label floor: labels that fall short of it are deferred whole."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from shared.core.cascade import Outputs
from shared.core.types import Ints, Mask

# Fewer answers with a label are no evidence against it.
MINIMUM_ANSWERS = 20


def failing_labels(outputs: Outputs, agrees: Mask, stage: Ints, floor: float) -> tuple[int, ...]:
    """Labels answered MINIMUM_ANSWERS times or more that agree less than `floor`.

    agrees: bool[n, s]. stage: int64[n], which one answered each row, -1 for none.
    """
    rows = np.flatnonzero(stage >= 0)
    label, right = outputs.label[rows, stage[rows]], agrees[rows, stage[rows]]
    answered = np.bincount(label)
    agreed = np.bincount(label, weights=right, minlength=len(answered))
    bad = (answered >= MINIMUM_ANSWERS) & (agreed < floor * answered)
    return tuple(np.flatnonzero(bad).tolist())


def drop_labels(outputs: Outputs, labels: Collection[int]) -> Outputs:
    """The same outputs, answers with these labels counted as novel: no stage gives them."""
    dropped = np.isin(outputs.label, list(labels))
    return Outputs(outputs.label, outputs.accept, outputs.novel | dropped)
