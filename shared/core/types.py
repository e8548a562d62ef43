"""The arrays the core works on. It knows no texts, no files and no network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

Kind = Literal["holdout", "crossfit"]


class InvalidData(ValueError):
    """Arrays no surrogate can be fitted on; the message names the array and the row."""


@dataclass(frozen=True)
class TrainingSet:
    """One task's horizon.

    features: float32[n, d], finite. y: int64[n], indices into `labels`, what the teacher said.
    groups: int64[n], equal for near-duplicate inputs, which are never split across folds.
    evidence: bool[n], rows observed whatever a surrogate thought of them: only these may certify;
    all rows train.
    """

    features: Matrix
    y: Ints
    labels: tuple[str, ...]
    groups: Ints
    evidence: Mask

    def __post_init__(self) -> None:
        n = len(self.features)
        for name in ("y", "groups", "evidence"):
            if len(getattr(self, name)) != n:
                raise InvalidData(f"{name} has {len(getattr(self, name))} rows, features has {n}")
        if self.features.ndim != 2:
            raise InvalidData("features must have two dimensions: rows and features")
        bad = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(bad):
            raise InvalidData(f"features has {len(bad)} rows that are not finite, first {bad[0]}")
        if n and (self.y.min() < 0 or self.y.max() >= len(self.labels)):
            raise InvalidData("y has an index outside of labels")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Ints | Mask) -> TrainingSet:
        """The same task, these rows only."""
        return TrainingSet(
            features=self.features[rows],
            y=self.y[rows],
            labels=self.labels,
            groups=self.groups[rows],
            evidence=self.evidence[rows],
        )
