"""Parts of the traffic on which agreement is credibly below the average.

Slices are named before anybody looks at agreement (by the teacher's label, by length, by frequent
words and pairs of neighbouring words). Each is tested against the average of all rows by an exact
one-sided test; as the average has the slice in it, that is on the strict side. Of the slices listed
at most a share `risk` is expected not to differ, and where none differs none is listed with
probability 1 - `risk`
(Benjamini and Hochberg 1995; slices that overlap hit together, which it allows for:
Benjamini and Yekutieli 2001).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from shared.core.shares import p_value_above, share_of
from shared.core.types import Floats, Ints, Mask

MINIMUM_ROWS = 10  # with fewer nothing can be told, and every test costs the others power
MOST_WORDS = 50
MOST_PHRASES = 30
LARGEST_SHARE = 0.5  # a word in most of the texts is the average

_WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True)
class Slice:
    """rows: bool[n]. kind: `label`, `length`, `word` (or two of them) or `cluster`."""

    kind: str
    name: str
    rows: Mask


@dataclass(frozen=True)
class BadSlice:
    """Agreement with an exact interval at level 1 - risk (its own, not corrected for the number of
    slices), and the corrected p-value of "no worse than the average"."""

    kind: str
    name: str
    n: int
    agreement: float
    lower: float
    upper: float
    p_value: float


def slices_of(labels: Sequence[str], texts: Sequence[str]) -> list[Slice]:
    """By label, by tercile of text length, by frequent word and phrase; those of enough rows."""
    words = [_WORD.findall(text.casefold()) for text in texts]
    phrases = [[f"{a} {b}" for a, b in pairwise(row)] for row in words]
    found = [
        *_by_label(labels),
        *_by_length(texts),
        *_by_word([set(row) for row in words], MOST_WORDS),
        *_by_word([set(row) for row in phrases], MOST_PHRASES),
    ]
    return [one for one in found if one.rows.sum() >= MINIMUM_ROWS]


def worse_than_average(
    slices: Sequence[Slice], agrees: Mask, weights: Floats, groups: Ints, *, risk: float
) -> list[BadSlice]:
    """Those credibly below the average of all rows, surest first. agrees: bool[n]; weights:
    float64[n]; groups: int64[n], equal for near-duplicates."""
    if not slices:
        return []
    wrong = ~agrees
    average = float(weights @ wrong / weights.sum())
    p_values = np.asarray(
        [
            p_value_above(wrong[one.rows], weights[one.rows], groups[one.rows], average)
            for one in slices
        ]
    )
    corrected = benjamini_hochberg(p_values)
    listed = [i for i in np.argsort(p_values, kind="stable").tolist() if corrected[i] <= risk]
    return [_bad(slices[i], wrong, weights, groups, float(corrected[i]), risk=risk) for i in listed]


def benjamini_hochberg(p_values: Floats) -> Floats:
    """float64[m], corrected: list those that are at most the risk."""
    order = np.argsort(p_values, kind="stable")
    m = len(p_values)
    stepped = p_values[order] * m / np.arange(1, m + 1)
    corrected = np.empty(m)
    corrected[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return corrected


def _bad(
    one: Slice, wrong: Mask, weights: Floats, groups: Ints, p_value: float, *, risk: float
) -> BadSlice:
    rows = one.rows
    share = share_of(wrong[rows], weights[rows], groups[rows], risk / 2)
    assert share is not None  # a slice has rows
    return BadSlice(
        kind=one.kind,
        name=one.name,
        n=share.n,
        agreement=1.0 - share.share,
        lower=1.0 - share.upper,
        upper=1.0 - share.lower,
        p_value=p_value,
    )


def _by_label(labels: Sequence[str]) -> Iterable[Slice]:
    given = np.asarray(labels, dtype=object)
    for label in sorted(set(labels)):
        yield Slice("label", label, np.asarray(given == label, dtype=np.bool_))


def _by_length(texts: Sequence[str]) -> Iterable[Slice]:
    """Terciles; equal lengths stay together."""
    if not texts:
        return
    lengths = np.asarray([len(text) for text in texts])
    low, high = np.quantile(lengths, [1 / 3, 2 / 3], method="lower").tolist()
    yield Slice("length", f"up to {low} characters", lengths <= low)
    yield Slice("length", f"{low + 1} to {high} characters", (lengths > low) & (lengths <= high))
    yield Slice("length", f"over {high} characters", lengths > high)


def _by_word(words: Sequence[set[str]], most: int) -> Iterable[Slice]:
    """words: those of each text."""
    counts = Counter(word for row in words for word in row)
    frequent = sorted(
        (word for word, n in counts.items() if n <= LARGEST_SHARE * len(words)),
        key=lambda word: (-counts[word], word),
    )[:most]
    for word in frequent:
        yield Slice("word", word, np.asarray([word in row for row in words], dtype=np.bool_))
