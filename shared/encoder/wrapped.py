"""An encoder around another one: what it does not do itself, that one does."""

from __future__ import annotations

from collections.abc import Sequence

from shared.encoder.base import Encoder, Matrix


class WrappedEncoder:
    """Implements `Encoder` with another; to be derived from."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def digest(self) -> str:
        return self._encoder.digest

    @property
    def dim(self) -> int:
        return self._encoder.dim

    @property
    def vocabulary(self) -> int:
        return self._encoder.vocabulary

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoder.tokenize(texts)

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Matrix:
        return self._encoder.encode_tokens(rows)

    def encode(self, texts: Sequence[str]) -> Matrix:
        return self._encoder.encode(texts)
