"""Why each row is deferred: exactly one reason a row, the one a person can do most about."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from shared.core.report.boundary import Boundary
from shared.core.training import TrainingSet
from shared.core.types import Ints, Mask

ReasonName = Literal[
    "label_floor", "contradicted", "novel", "few_traces", "ambiguous", "certificate", "refused"
]
REASONS: tuple[ReasonName, ...] = (
    "label_floor", "contradicted", "novel", "few_traces", "ambiguous", "certificate", "refused",
)  # fmt: skip
"""In the order in which they are looked for; a row has the first that applies."""

# A label with fewer traces is learned from next to nothing.
FEW_TRACES = 20
# Less than this to one for the first label against the second is a toss-up between them.
AMBIGUOUS_ODDS = 5.0


def reasons_of(boundary: Boundary, training: TrainingSet, *, refused: bool) -> Ints:
    """int64[m], indices into REASONS; -1 for handled rows. refused: nothing was certified."""
    rarest = np.bincount(training.y, minlength=training.n_labels)
    few = np.minimum(rarest[boundary.y], rarest[boundary.said]) < FEW_TRACES
    applies = {
        "label_floor": boundary.dropped,
        "contradicted": contradicted(training)[boundary.at],
        "novel": boundary.novel,
        "few_traces": few,
        "ambiguous": boundary.odds < AMBIGUOUS_ODDS,
        "refused" if refused else "certificate": np.ones(len(boundary), dtype=np.bool_),
    }
    reason = np.full(len(boundary), -1)
    for name in reversed(REASONS):
        if name in applies:
            reason[applies[name] & ~boundary.handled] = REASONS.index(name)
    return reason


def contradicted(training: TrainingSet) -> Mask:
    """bool[n]: rows among whose near-duplicates the teacher gave more than one label."""
    pairs = np.unique(np.stack([training.groups, training.y]), axis=1)
    groups, labels = np.unique(pairs[0], return_counts=True)
    return np.isin(training.groups, groups[labels > 1])


def torn_between(boundary: Boundary, rows: Ints, most: int) -> list[tuple[int, int, int]]:
    """The pairs of labels that most of `rows` are torn between: the first label, the second, and
    how many rows; of each pair the order that more rows have."""
    pairs = zip(boundary.said[rows].tolist(), boundary.second[rows].tolist(), strict=True)
    ordered = Counter(pairs)
    either: Counter[tuple[int, int]] = Counter()
    for (a, b), n in ordered.items():
        either[min(a, b), max(a, b)] += n
    found = sorted(either.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [(a, b, n) if ordered[a, b] >= ordered[b, a] else (b, a, n) for (a, b), n in found]
