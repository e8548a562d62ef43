"""One task's horizon, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.tokens import Tokens
from shared.core.types import Floats, Ints, InvalidData, Mask, Matrix

# What reports call the teacher's answers that are none of the labels.
OUTSIDE = "(outside the taxonomy)"


@dataclass(frozen=True)
class TrainingSet:
    """What a surrogate is fitted and certified on. Raises InvalidData.

    features: float32[n, d], finite. y: int64[n], indices into `labels`, what the teacher said; one
    more than the last for what is none of them: it trains no scorer, and every answer differs from
    it. groups: int64[n], equal for near-duplicate inputs, which are never split across folds.
    evidence: bool[n], rows observed whatever a surrogate thought of them: only these may certify;
    all rows train. weights: float64[n] > 0, one over the probability with which a row was
    observed; all 1 if left out. heaviest: the largest weight a row could have had, where so few
    are that heavy that there may be none. tokens: the inputs' word pieces; without them there is no
    lexical stage.
    """

    features: Matrix
    y: Ints
    labels: tuple[str, ...]
    groups: Ints
    evidence: Mask
    weights: Floats | None = None
    heaviest: float = 0.0
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        n = len(self.features)
        for name in ("y", "groups", "evidence", "weights", "tokens"):
            values = getattr(self, name)
            if values is not None and len(values) != n:
                raise InvalidData(f"{name} has {len(values)} rows, features has {n}")
        if self.features.ndim != 2:
            raise InvalidData("features must have two dimensions: rows and features")
        bad = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(bad):
            raise InvalidData(f"features has {len(bad)} rows that are not finite, first {bad[0]}")
        if n and (self.y.min() < 0 or self.y.max() > len(self.labels)):
            raise InvalidData("y has an index outside of labels")
        if self.weights is not None and not (
            np.isfinite(self.weights).all() and (self.weights > 0).all()
        ):
            raise InvalidData("weights must be positive: one over an observation probability")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def n_labels(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """Of every index that `y` may have, for people."""
        return (*self.labels, OUTSIDE)

    @property
    def learnable(self) -> Mask:
        """bool[n]: the teacher gave one of the labels."""
        return np.asarray(self.y < self.n_labels)

    @property
    def observation_weights(self) -> Floats:
        """float64[n]"""
        return np.ones(len(self)) if self.weights is None else self.weights

    def take(self, rows: Ints | Mask) -> TrainingSet:
        """The same task, these rows only."""
        return TrainingSet(
            features=self.features[rows],
            y=self.y[rows],
            labels=self.labels,
            groups=self.groups[rows],
            evidence=self.evidence[rows],
            weights=None if self.weights is None else self.weights[rows],
            heaviest=self.heaviest,
            tokens=None if self.tokens is None else self.tokens.take(rows),
        )
