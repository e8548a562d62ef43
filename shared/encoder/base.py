"""Frozen text embeddings, the same numbers in trainer and router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class Encoder(Protocol):
    @property
    def digest(self) -> str:
        """SHA-256 of the artifact: two encoders with one digest give the same numbers."""
        ...

    @property
    def dim(self) -> int: ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Unit-length embeddings, float32[len(texts), dim], in the order of `texts`."""
        ...
