"""Frozen text embeddings, the same numbers in trainer and router."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


class Tokenizing(Protocol):
    """The part of an encoder that the lexical stage needs."""

    @property
    def digest(self) -> str:
        """SHA-256 of the artifact: two encoders with one digest give the same numbers."""
        ...

    @property
    def vocabulary(self) -> int:
        """Ids of word pieces are below it."""
        ...

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Each text's word pieces, special ones included, cut at the encoder's length."""
        ...


class Encoder(Tokenizing, Protocol):
    @property
    def dim(self) -> int: ...

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Matrix:
        """Unit-length embeddings, float32[len(rows), dim], of what `tokenize` gave."""
        ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Unit-length embeddings, float32[len(texts), dim], in the order of `texts`."""
        ...
