"""Rows of word pieces in batches: of similar length, filled up to one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Rows = Sequence[Sequence[int] | NDArray[np.int32]]


def batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Positions in batches of similar length, each of at most `most` ids with filling.

    A row longer than that is a batch of its own.
    """
    batch: list[int] = []
    for position in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (len(batch) + 1) * lengths[position] > most:
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch


def shares(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Positions by length, in at most `parts` runs of about the same sum of lengths."""
    sizes = np.asarray(lengths)
    order = np.argsort(sizes, kind="stable")
    middles = np.cumsum(sizes[order]) - sizes[order] / 2
    cuts = np.searchsorted(middles, sizes.sum() / parts * np.arange(1, parts))
    return [part.tolist() for part in np.split(order, cuts) if len(part)]


def filled(rows: Rows, filling: int, width: int = 1) -> NDArray[np.int64]:
    """int64[len(rows), longest row, at least `width`], shorter rows filled up."""
    shape = (len(rows), max(width, max(map(len, rows), default=0)))
    ids = np.full(shape, filling, np.int64)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = row
    return ids
