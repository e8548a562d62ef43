"""Synthetic horizons for tests of the core: embeddings in clusters, word pieces by label."""

from __future__ import annotations

import numpy as np

from shared.core.tokens import Tokens
from shared.core.training import TrainingSet

DIM = 16
VOCABULARY = 500
NOISE = 0.35


def clusters(
    n: int, k: int = 4, *, noise: float = NOISE, seed: int = 0, tokens: bool = False
) -> TrainingSet:
    """n unit vectors around k directions, some of them astray; the directions are always the same.

    With `tokens` every row also has five word pieces, most of them of its label.
    """
    centres = np.random.default_rng(0).normal(size=(k, DIM))
    rng = np.random.default_rng(seed + 1)
    y = np.arange(n) % k
    X = centres[y] / 4 + rng.normal(size=(n, DIM)) * noise
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return TrainingSet(
        features=X.astype(np.float32),
        y=y,
        labels=tuple(f"label-{i}" for i in range(k)),
        groups=np.arange(n),
        evidence=np.ones(n, bool),
        tokens=words(y, rng) if tokens else None,
    )


def words(y: np.ndarray, rng: np.random.Generator) -> Tokens:
    """Five pieces a row: of twenty of its label's own, or of a hundred that all share."""
    own = 100 + y[:, None] * 20 + rng.integers(0, 20, size=(len(y), 5))
    common = rng.integers(0, 100, size=(len(y), 5))
    ids = np.where(rng.uniform(size=own.shape) < 0.4, own, common)
    return Tokens.of(ids.tolist(), VOCABULARY)
