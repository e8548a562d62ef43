"""Word pieces of many texts in two flat arrays: what the lexical stage sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.core.types import Ints, Mask


@dataclass(frozen=True)
class Tokens:
    """The word pieces of n texts.

    ids: int32[total], all texts one after the other. starts: int64[n + 1], where each begins and
    the last ends. vocabulary: ids are below it.
    """

    ids: NDArray[np.int32]
    starts: Ints
    vocabulary: int

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], vocabulary: int) -> Tokens:
        """From one list of ids a text."""
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        ids = np.fromiter((i for row in rows for i in row), np.int32, count=int(starts[-1]))
        return cls(ids, starts, vocabulary)

    @classmethod
    def concatenate(cls, parts: Iterable[Tokens], vocabulary: int) -> Tokens:
        """The texts of all parts in a row. A million texts as lists would take gigabytes: they
        come in parts, each turned into arrays before the next is made."""
        ids, lengths = [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        for part in parts:
            ids.append(part.ids)
            lengths.append(part.lengths)
        starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        return cls(np.concatenate(ids), starts, vocabulary)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> Ints:
        """int64[n]"""
        return np.diff(self.starts)

    def text_of_each(self) -> Ints:
        """int64[total]: the text that each id belongs to."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def take(self, rows: Ints | Mask) -> Tokens:
        """These texts only, in the order of `rows`."""
        chosen = np.arange(len(self))[rows]
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return Tokens(
            self.ids[np.repeat(self.starts[:-1][chosen], lengths) + within], starts, self.vocabulary
        )

    def rows(self) -> list[NDArray[np.int32]]:
        """Each text's ids."""
        return np.split(self.ids, self.starts[1:-1]) if len(self) else []
