"""Doubles for unit tests. Each passes the law suite of what it stands for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


class HashEncoder:
    """A bag of hashed words, unit length: texts that share words are close. No model, no files."""

    def __init__(self, dim: int = 32, digest: str = "e" * 64) -> None:
        self._dim = dim
        self._digest = digest
        self.encoded: list[str] = []

    @property
    def digest(self) -> str:
        return self._digest

    @property
    def dim(self) -> int:
        return self._dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.encoded.extend(texts)
        rows = np.zeros((len(texts), self._dim), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()) or [text]:
                row += _direction(word, self._dim)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


@lru_cache(maxsize=10_000)
def _direction(word: str, dim: int) -> NDArray[np.float64]:
    digest = hashlib.sha256(word.encode()).digest()
    return np.random.default_rng(list(digest[:8])).normal(size=dim)
