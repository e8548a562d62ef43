"""Near-duplicate inputs: found once, never split across folds, counted once as evidence."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from shared.core.types import Floats, Ints

HEAD_ROWS = 20
HEAD_SHARE = 0.005

_NOT_WORD = re.compile(r"[\W_]+")
_DIGITS = re.compile(r"\d+")


def near_duplicate_groups(texts: Sequence[str]) -> Ints:
    """int64[n]: equal for texts that differ only in case, punctuation, spacing or numbers."""
    seen: dict[str, int] = {}
    groups = [seen.setdefault(skeleton(text), len(seen)) for text in texts]
    return np.asarray(groups, dtype=np.int64)


def independent_groups(groups: Ints) -> Ints:
    """The same groups, but texts that are a visible part of the traffic are rows like any other.

    A handful of near-duplicates is one observation seen several times. A text that makes up 0.5%
    of the traffic or more is that traffic: each of its rows was drawn on its own, and a served
    surrogate has been trained on it as well.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    head = sizes[group] > max(HEAD_ROWS, HEAD_SHARE * len(groups))
    independent = group.astype(np.int64)
    independent[head] = len(sizes) + np.arange(int(head.sum()))
    return independent


def skeleton(text: str) -> str:
    """What near-duplicates have in common."""
    words = _NOT_WORD.sub(" ", _DIGITS.sub("0", text.casefold())).strip()
    return words or text  # "?!" and emoji stay what they are


def contradiction_share(groups: Ints, y: Ints) -> tuple[float, int]:
    """Share of the rows with near-duplicates whose teacher label is not their group's majority.

    Agreement on such texts cannot exceed 1 minus this share. Also the number of rows it is of;
    (0.0, 0) without near-duplicates.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    rows = np.flatnonzero(sizes[group] > 1)
    if not len(rows):
        return 0.0, 0
    pairs, counts = np.unique(np.stack([group[rows], y[rows]]), axis=1, return_counts=True)
    majority = np.zeros(len(sizes), dtype=np.int64)
    np.maximum.at(majority, pairs[0], counts)
    return float(1.0 - majority.sum() / len(rows)), len(rows)


def group_folds(groups: Ints, y: Ints, n_folds: int, seed: int) -> Ints:
    """int64[n]: the fold of each row; groups stay whole and labels are spread evenly.

    Groups are sorted by the label of their first row, in seeded random order within a label, and
    dealt to the folds in turn.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    shuffle = np.random.default_rng(seed).permutation(len(first))
    order = shuffle[np.argsort(y[first][shuffle], kind="stable")]
    fold = np.empty(len(first), dtype=np.int64)
    fold[order] = np.arange(len(first)) % n_folds
    return fold[group]


def copies(groups: Ints, weights: Floats) -> Floats:
    """Of every prefix of the rows, how many times over they are there: Σ w_g² / Σ w², float64[n].

    w_g is a group's weight. 1 for rows that are all different, 5 where each is there five times:
    by Kish's effective size n rows say as much as n / copies different ones.
    """
    squares = np.cumsum(weights**2)
    earlier = np.maximum(before(groups, weights), 0.0)
    return np.asarray(1.0 + 2.0 * np.cumsum(weights * earlier) / squares)


def before(groups: Ints, amounts: Floats) -> Floats:
    """Of each row, the sum of its group's amounts in the rows before it, float64[n]."""
    order = np.argsort(groups, kind="stable")
    some = amounts[order]
    running = np.cumsum(some)
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    offset = np.repeat(running[starts] - some[starts], np.diff(np.append(starts, len(some))))
    found = np.empty(len(some))
    found[order] = running - some - offset
    return found
