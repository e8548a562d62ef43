"""Doubles for unit tests. Each passes the law suite of what it stands for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

VOCABULARY = 4_096


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

    @property
    def vocabulary(self) -> int:
        return VOCABULARY

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        self.encoded.extend(texts)
        return [
            [_word_id(word) for word in re.findall(r"\w+", text.lower()) or [text]]
            for text in texts
        ]

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        embeddings = np.zeros((len(rows), self._dim), dtype=np.float32)
        for embedding, ids in zip(embeddings, rows, strict=True):
            for i in ids:
                embedding += _direction(i, self._dim)
        return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode_tokens(self.tokenize(texts))


def _word_id(word: str) -> int:
    digest = hashlib.sha256(word.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") % VOCABULARY


@lru_cache(maxsize=10_000)
def _direction(word: int, dim: int) -> NDArray[np.float64]:
    return np.random.default_rng(word).normal(size=dim)


@contextmanager
def arrow_memory() -> Iterator[pa.MemoryPool]:
    """A pool that knows how much memory Arrow has held at most meanwhile."""
    usual = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(usual)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(usual)
