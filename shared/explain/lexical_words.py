"""Which words carried the lexical stage: the linear model's contributions, read off its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from shared.contracts.manifest import Stage
from shared.core.tokens import Tokens
from shared.core.types import Floats, Ints
from shared.encoder.base import Tokenizing
from shared.explain.explanation import Word
from shared.explain.units import Unit, units_of


@dataclass(frozen=True)
class Linear:
    """The lexical scorer as its graph has it: `shared.core.lexical.Features`, whose fields the
    first four are, without what fits one. coefficients: float64[features, k]."""

    unigrams: NDArray[np.int32]
    bigrams: NDArray[np.int32]
    codes: Ints
    weights: Floats
    coefficients: Floats


def linear_of(blob: bytes, stage: Stage, n_labels: int) -> Linear:
    """From the graph's constants, told apart by type and shape. Raises ValueError for a graph that
    is no lexical stage of ours."""
    arrays: list[Any] = [
        numpy_helper.to_array(one) for one in onnx.load_from_string(blob).graph.initializer
    ]
    (coefficients,) = _like(arrays, np.float16, lambda a: a.ndim == 2 and a.shape[1] == n_labels)
    n = len(coefficients)
    tables = _like(arrays, np.int32, lambda a: a.ndim == 1)
    unigrams = next(table for table in tables if len(table) == stage.dim)
    (bigrams,) = [table for table in tables if table is not unigrams]
    (codes,) = _like(arrays, np.int64, lambda a: a.shape == (n,))
    squares = next(a for a in arrays if a.dtype == np.float32 and a.shape == (n,) and a[0] == 0)
    weights = np.sqrt(squares.astype(np.float64))
    return Linear(unigrams, bigrams, codes, weights, np.asarray(coefficients, dtype=np.float64))


def words_of(
    texts: Sequence[str], encoder: Tokenizing, linear: Linear, label: int, runner_up: int,
    *, redacted: bool = False,
) -> list[Word] | None:  # fmt: skip
    """Every word of the texts in order; a pair of word pieces across two words counts half for
    each. None where the encoder's tokenizer does not cut texts word by word. redacted: as in
    `units_of`."""
    words, owner, ids = _cut([units_of(text, redacted=redacted) for text in texts], encoder)
    whole = [i for text in texts for i in encoder.tokenize([text])[0]]
    if ids != whole:
        return None
    tokens = Tokens.of([ids], encoder.vocabulary)
    lead = linear.coefficients[:, label] - linear.coefficients[:, runner_up]
    weights = linear.weights
    contributions = np.zeros(len(words) + 1)
    unigram = linear.unigrams[tokens.ids].astype(np.int64)
    codes = tokens.ids[:-1].astype(np.int64) * tokens.vocabulary + tokens.ids[1:]
    bigram = linear.bigrams[codes % len(linear.bigrams)].astype(np.int64)
    bigram[linear.codes[bigram] != codes] = 0
    length = np.sqrt((weights[unigram] ** 2).sum() + (weights[bigram] ** 2).sum()) or 1.0
    np.add.at(contributions, owner, np.where(unigram > 0, lead[unigram], 0.0))
    halves = np.where(bigram > 0, lead[bigram], 0.0) / 2
    np.add.at(contributions, owner[:-1], halves)
    np.add.at(contributions, owner[1:], halves)
    return [
        Word(unit.text, float(c / length), unit.placeholder)
        for unit, c in zip(words, contributions, strict=False)
    ]


def _cut(
    texts: Sequence[Sequence[Unit]], encoder: Tokenizing
) -> tuple[list[Unit], Ints, list[int]]:
    """The texts' words, and all word pieces with the word each belongs to; those that begin and end
    every text belong to one behind the last."""
    begin, end = _around(encoder)
    words: list[Unit] = []
    owner: list[int] = []
    ids: list[int] = []
    for found in texts:
        cut = encoder.tokenize([unit.text for unit in found]) if found else []
        parts = [(-1, begin)]
        for i, row in enumerate(cut):
            parts.append((len(words) + i, row[len(begin) : len(row) - len(end)]))
        parts.append((-1, end))
        words += found
        for word, pieces in parts:
            owner += [word] * len(pieces)
            ids += pieces
    return words, np.asarray([len(words) if o < 0 else o for o in owner], dtype=np.int64), ids


def _around(encoder: Tokenizing) -> tuple[list[int], list[int]]:
    """The word pieces every text begins and ends with."""
    first, second = encoder.tokenize(["a", "b"])
    begin = 0
    while begin < min(len(first), len(second)) and first[begin] == second[begin]:
        begin += 1
    end = 0
    while end < min(len(first), len(second)) - begin and first[-1 - end] == second[-1 - end]:
        end += 1
    return first[:begin], first[len(first) - end :]


def _like(arrays: Sequence[Any], kind: type, fits: Callable[[Any], bool]) -> list[Any]:
    return [a for a in arrays if a.dtype == kind and fits(a)]
