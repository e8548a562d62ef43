"""Boundary pairs: a handled and a deferred row of one label that are each other's nearest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.report.boundary import Boundary
from shared.core.types import Ints, Matrix

MOST_PAIRS = 24
MOST_PER_LABEL = 2
# Deferred rows of a label that are looked at: each costs a look at all handled ones.
MOST_DEFERRED = 500


@dataclass(frozen=True)
class Pair:
    """Indices into the boundary's rows, and the cosine of their embeddings."""

    handled: int
    deferred: int
    similarity: float


def boundary_pairs(boundary: Boundary, features: Matrix) -> list[Pair]:
    """The closest pairs, at most MOST_PER_LABEL of a label. features: float32[n, d], of the whole
    training set.

    Each row is the nearest to the other of all rows of its label on its side, near-duplicates of
    the other left out: they differ by nothing a person would call a word.
    """
    found: list[Pair] = []
    for label in np.unique(boundary.y).tolist():
        inside = boundary.y == label
        # A row that is handled, but wrongly, is no example of what the surrogate can do.
        handled = np.flatnonzero(inside & boundary.handled & boundary.agrees)
        deferred = np.flatnonzero(inside & ~boundary.handled)
        pairs = _mutual(boundary, features, handled, deferred)
        found += sorted(pairs, key=lambda pair: -pair.similarity)[:MOST_PER_LABEL]
    return sorted(found, key=lambda pair: (-pair.similarity, pair.deferred))[:MOST_PAIRS]


def _mutual(boundary: Boundary, features: Matrix, handled: Ints, deferred: Ints) -> list[Pair]:
    if not len(handled) or not len(deferred):
        return []
    some = deferred[
        np.linspace(0, len(deferred) - 1, min(len(deferred), MOST_DEFERRED)).astype(int)
    ]
    there, _ = _nearest(boundary, features, some, handled)
    back, similarity = _nearest(boundary, features, there, deferred)
    return [
        Pair(int(h), int(d), float(s))
        for h, d, b, s in zip(there, some, back, similarity, strict=True)
        if b == d and np.isfinite(s)
    ]


def _nearest(boundary: Boundary, features: Matrix, of: Ints, among: Ints) -> tuple[Ints, Matrix]:
    """The row among those that is nearest to each, and the cosine; -inf where all are copies."""
    cosine = _unit(features[boundary.at[of]]) @ _unit(features[boundary.at[among]]).T
    cosine[boundary.groups[of][:, None] == boundary.groups[among]] = -np.inf
    best = cosine.argmax(axis=1)
    return among[best], cosine[np.arange(len(of)), best]


def _unit(rows: Matrix) -> Matrix:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))
