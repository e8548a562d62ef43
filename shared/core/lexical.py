"""The lexical scorer: a sparse linear model on word-piece uni- and bigrams. It needs no encoder.

A text's features are the weights of its uni- and bigrams, each occurrence counted, divided by the
root of the sum of their squares. `shared.onnx.lexical` draws the same arithmetic as a graph.

What words mean is learned from the embeddings of the texts they were seen in: a rare word counts as
others do that stand in texts of the same kind. The meaning of a text is the sum of its words', so
what is learned of meanings is in the words' own coefficients, and nothing is left of it to serve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular, svd
from sklearn.svm import LinearSVC

from shared.core.tokens import Tokens
from shared.core.types import STAGE_BYTES, Floats, Ints, Mask, Matrix

# Measured on Banking77 (docs/decisions.md): bigrams weigh less than unigrams, and the square root
# of the inverse document frequency does better than the frequency itself.
BIGRAM_WEIGHT = 0.6
BIGRAM_MIN_TEXTS = 2
# Directions of the embeddings that make up a meaning: those that part labels best. And the length
# of a text's meaning beside that of its words, which is 1.
MEANING_DIRECTIONS = 32
MEANING_LENGTH = 1.0
# Of the average variance within labels, for directions in which they hardly vary.
SHRINKAGE = 0.1
# Texts of no meaning that each word was seen in, besides its own.
PRIOR_TEXTS = 1.0
# As good as the default of 1e-4 on Banking77, and faster.
TOLERANCE = 1e-2
# What a feature takes in the artifact, in bytes: a float16 a label, its code and its weight.
MAX_FEATURES = 50_000
BYTES_OF_LABEL, BYTES_OF_FEATURE = 2, 12
# Bigrams are found by their code modulo a prime; those the table has no room for are left out.
TABLE_SIZES = (131_071, 1_048_573)
TABLE_ROOM = 8
ROWS_AT_ONCE = 4_096  # products in single precision are summed in double
TABLE_BYTES = 4 * TABLE_SIZES[-1]
# What a model trained only on other labels says of a label.
UNSEEN_SCORE = -1.0


class Occurrences(NamedTuple):
    """int64[m] each: the text and the feature of every known uni- and bigram."""

    text: Ints
    feature: Ints


@dataclass(frozen=True)
class Features:
    """The uni- and bigrams a model knows, feature 0 standing for all others.

    unigrams: int32[vocabulary] and bigrams: int32[table size], features by id and by code modulo
    the table's size. codes: int64[features], `first * vocabulary + second` of a bigram, -1 for
    others. weights: float32[features], 0 for feature 0.
    """

    unigrams: NDArray[np.int32]
    bigrams: NDArray[np.int32]
    codes: Ints
    weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.weights)

    def occurrences(self, tokens: Tokens) -> Occurrences:
        text = tokens.text_of_each()
        unigram = self.unigrams[tokens.ids].astype(np.int64)
        codes, second = bigram_codes(tokens)
        bigram = self.bigrams[codes % len(self.bigrams)].astype(np.int64)
        bigram[self.codes[bigram] != codes] = 0
        texts = np.concatenate([text, text[second]])
        features = np.concatenate([unigram, bigram])
        known = features > 0
        return Occurrences(texts[known], features[known])

    def matrix(self, tokens: Tokens) -> sp.csr_matrix:
        """float64[n, features], every row of length 1 unless it holds nothing known."""
        found = self.occurrences(tokens)
        counts = sp.csr_matrix(
            (self.weights[found.feature].astype(np.float64), found),
            shape=(len(tokens), len(self)),
        )
        return sp.csr_matrix(sp.diags_array(1.0 / self._lengths(found, len(tokens))) @ counts)

    def _lengths(self, found: Occurrences, n: int) -> Floats:
        squares = np.bincount(found.text, self.weights[found.feature] ** 2.0, minlength=n)
        return np.sqrt(np.where(squares > 0, squares, 1.0))


@dataclass(frozen=True)
class LexicalScorer:
    """One score per label: linear in a text's features.

    coefficients: float16[features, k], the features' weights already in them. bias: float32[k].
    """

    features: Features
    coefficients: NDArray[np.float16]
    bias: NDArray[np.float32]

    def scores(self, tokens: Tokens) -> Matrix:
        """float32[n, k], summed in float32 as the graph does."""
        found = self.features.occurrences(tokens)
        shape = (len(tokens), len(self.features))
        counts = sp.csr_matrix((np.ones(len(found.text), np.float32), found), shape=shape)
        sums = counts @ self.coefficients.astype(np.float32)
        sums /= self.features._lengths(found, len(tokens)).astype(np.float32)[:, None]
        return np.asarray(sums + self.bias)


def fit_lexical(
    tokens: Tokens, embeddings: Matrix, y: Ints, n_labels: int, *, C: float, seed: int
) -> LexicalScorer:
    """One-versus-rest linear support vector machines; needs two labels in `y`.

    embeddings: float32[n, d] of the texts, for the meanings of words.
    """
    features = find_features(tokens, most_features(n_labels))
    words = features.matrix(tokens)
    meanings = word_meanings(words, embeddings, y)
    model = LinearSVC(C=C, tol=TOLERANCE, random_state=seed)
    model.fit(sp.hstack([words, sp.csr_matrix(words @ meanings)], format="csr"), y)
    coefficients = np.zeros((len(features), n_labels), dtype=np.float16)
    bias = np.full(n_labels, UNSEEN_SCORE)
    if len(model.classes_) == 2:  # scikit-learn gives the second label's scores only
        model.coef_ = np.concatenate([-model.coef_, model.coef_])
        model.intercept_ = np.concatenate([-model.intercept_, model.intercept_])
    of_words, of_meanings = np.split(model.coef_.T, [len(features)])
    learned = of_words + meanings @ of_meanings
    coefficients[:, model.classes_] = learned * features.weights[:, None]
    bias[model.classes_] = model.intercept_
    return LexicalScorer(features, coefficients, bias.astype(np.float32))


def word_meanings(words: sp.csr_matrix, embeddings: Matrix, y: Ints) -> Floats:
    """float64[features, r]: of every feature the mean embedding of the texts it is in, along the
    directions that part labels best. words: float64[n, features]."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    directions = _parting_directions(embeddings, mean, y)
    along = embeddings @ directions.astype(np.float32) - mean @ directions
    seen_in = np.asarray(words.sum(axis=0)).ravel() + PRIOR_TEXTS
    meanings = np.asarray(words.T @ along) / seen_in[:, None]
    length = np.sqrt(((words @ meanings) ** 2).sum(axis=1).mean())
    return np.asarray(meanings * (MEANING_LENGTH / max(float(length), 1e-12)))


def _parting_directions(embeddings: Matrix, mean: Floats, y: Ints) -> Floats:
    """float64[d, r] of length 1: linear discriminant analysis (Fisher 1936, Rao 1948)."""
    _, label, sizes = np.unique(y, return_inverse=True, return_counts=True)
    n, d = embeddings.shape
    of_label = sp.csr_matrix((np.ones(n), (label, np.arange(n))), shape=(len(sizes), n))
    sums, scatter = of_label @ embeddings, -n * np.outer(mean, mean)
    for start in range(0, n, ROWS_AT_ONCE):
        some = embeddings[start : start + ROWS_AT_ONCE]
        scatter += some.T @ some  # single precision is enough beside the shrinkage
    between = (sums / sizes[:, None] - mean) * np.sqrt(sizes)[:, None]
    within = scatter - between.T @ between
    squares = float(scatter.trace()) + n * float(mean @ mean)
    # At least what single precision may be wrong by, where rows of a label are all the same.
    variance = max(float(within.trace()), 0.01 * squares, 1e-9)
    within.flat[:: d + 1] += SHRINKAGE * variance / d
    root = cholesky(within, lower=True)
    parting = svd(solve_triangular(root, between.T, lower=True), full_matrices=False)[0]
    most = min(MEANING_DIRECTIONS, len(sizes) - 1)
    directions = solve_triangular(root, parting[:, :most], lower=True, trans="T")
    return np.asarray(directions / np.linalg.norm(directions, axis=0))


def most_features(n_labels: int) -> int:
    """So many that the stage's artifact stays below STAGE_BYTES."""
    room = (STAGE_BYTES - TABLE_BYTES) // (BYTES_OF_FEATURE + BYTES_OF_LABEL * n_labels)
    return max(1, min(MAX_FEATURES, room))


def find_features(tokens: Tokens, most: int = MAX_FEATURES) -> Features:
    """The features of a corpus, the `most` frequent of them; unigrams come first."""
    n, text = len(tokens), tokens.text_of_each()
    codes, second = bigram_codes(tokens)
    unigrams, in_texts = _document_frequencies(text, tokens.ids.astype(np.int64), n, least=1)
    bigrams, in_texts_too = _document_frequencies(text[second], codes, n, BIGRAM_MIN_TEXTS)
    unigrams, in_texts = _most_frequent(unigrams, in_texts, most)
    bigrams, in_texts_too = _most_frequent(bigrams, in_texts_too, most - len(unigrams))
    size = next((s for s in TABLE_SIZES if s >= TABLE_ROOM * len(bigrams)), TABLE_SIZES[-1])
    # Where two bigrams share a place, the more frequent has it.
    _, kept = np.unique((bigrams % size)[::-1], return_index=True)
    kept = np.sort(len(bigrams) - 1 - kept)
    bigrams, in_texts_too = bigrams[kept], in_texts_too[kept]

    places = 1 + np.arange(len(unigrams) + len(bigrams))
    by_unigram = np.zeros(tokens.vocabulary, dtype=np.int32)
    by_unigram[unigrams] = places[: len(unigrams)]
    by_bigram = np.zeros(size, dtype=np.int32)
    by_bigram[bigrams % size] = places[len(unigrams) :]
    nothing = np.full(1 + len(unigrams), -1, dtype=np.int64)
    frequency = np.concatenate([in_texts, in_texts_too])
    weights = np.sqrt(1.0 + np.log((1.0 + n) / (1.0 + frequency)))
    weights[len(unigrams) :] *= BIGRAM_WEIGHT
    return Features(
        unigrams=by_unigram,
        bigrams=by_bigram,
        codes=np.concatenate([nothing, bigrams]),
        weights=np.concatenate([[0.0], weights]).astype(np.float32),
    )


def bigram_codes(tokens: Tokens) -> tuple[Ints, Mask]:
    """int64[m] codes of all pairs of neighbours, and bool[total]: ids that are second in one."""
    second = np.ones(len(tokens.ids), dtype=np.bool_)
    second[tokens.starts[:-1][tokens.lengths > 0]] = False
    ids = tokens.ids.astype(np.int64)
    return (np.roll(ids, 1) * tokens.vocabulary + ids)[second], second


def _document_frequencies(text: Ints, values: Ints, n: int, least: int) -> tuple[Ints, Ints]:
    """Different values and the number of texts each is in, if `least` or more but not all."""
    different, place = np.unique(values, return_inverse=True)
    pairs = np.unique(place * n + text)
    frequency = np.bincount(pairs // n, minlength=len(different)).astype(np.int64)
    kept = (frequency >= least) & (frequency < n)
    return different[kept], frequency[kept]


def _most_frequent(values: Ints, frequency: Ints, most: int) -> tuple[Ints, Ints]:
    """The `most` most frequent, the less frequent first."""
    order = np.argsort(frequency, kind="stable")[max(0, len(values) - most) :]
    return values[order], frequency[order]
