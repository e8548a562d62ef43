"""An encoder for rehearsals, which meet the same texts day after day and run after run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from shared.core.types import Matrix
from shared.encoder.base import Encoder
from shared.encoder.wrapped import WrappedEncoder


class RememberingEncoder(WrappedEncoder):
    """Embeds each different row of word pieces once, in memory."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self._known: dict[tuple[int, ...], Matrix] = {}

    def encode(self, texts: Sequence[str]) -> Matrix:
        return self.encode_tokens(self.tokenize(texts))

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Matrix:
        keys = [tuple(row) for row in rows]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        if new:
            self._known.update(zip(new, self._encoder.encode_tokens(new), strict=True))
        if not keys:
            return np.empty((0, self.dim), np.float32)
        return np.stack([self._known[key] for key in keys])
