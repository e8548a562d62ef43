"""From embeddings to what a surrogate sees, the same in trainer and router."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def pair_features(first: Matrix, second: Matrix) -> Matrix:
    """float32[n, 4d] of two texts' embeddings float32[n, d]: u, v, |u - v|, u * v.

    Source: InferSent (Conneau et al. 2017, arXiv 1705.02364, section 3.1).
    """
    return np.concatenate([first, second, np.abs(first - second), first * second], axis=1)
