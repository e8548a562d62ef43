"""What a stage's graph is made of, as plain arrays: `shared.fitting` takes them out of a fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class LinearWeights:
    """sigmoid(features · coefficients + intercept)."""

    coefficients: Floats
    intercept: float


@dataclass(frozen=True)
class HeadWeights:
    """shared.core.head.Head: mixture float64[m], reliability float64[k]."""

    mixture: Floats
    reliability: Floats
    acceptor: LinearWeights
    novelty: LinearWeights


@dataclass(frozen=True)
class LexicalWeights:
    """shared.core.lexical.LexicalScorer: unigrams int32[vocabulary], bigrams int32[table size],
    codes int64[features], squares float32[features] of the features' weights, coefficients
    float16[features, k], bias float32[k]."""

    unigrams: NDArray[np.int32]
    bigrams: NDArray[np.int32]
    codes: NDArray[np.int64]
    squares: NDArray[np.float32]
    coefficients: NDArray[np.float16]
    bias: NDArray[np.float32]
