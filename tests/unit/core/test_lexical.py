from __future__ import annotations

import numpy as np
import pytest

from shared.core.lexical import (
    BIGRAM_WEIGHT,
    MAX_FEATURES,
    MEANING_LENGTH,
    bigram_codes,
    find_features,
    fit_lexical,
    most_features,
    word_meanings,
)
from shared.core.tokens import Tokens
from shared.core.types import STAGE_BYTES

V = 50


def tokens(*rows: list[int]) -> Tokens:
    return Tokens.of(rows, V)


def test_tokens_are_taken() -> None:
    some = tokens([1, 2, 3], [], [4])
    assert len(some) == 3
    again = some.take(np.asarray([2, 0]))
    assert [row.tolist() for row in again.rows()] == [[4], [1, 2, 3]]
    assert [row.tolist() for row in some.take(np.asarray([True, False, False])).rows()] == [
        [1, 2, 3]
    ]
    assert tokens().rows() == []


def test_tokens_in_parts_are_the_same_as_at_once() -> None:
    rows = [[1, 2, 3], [], [4], [5, 6], []]
    parts = (tokens(*some) for some in (rows[:2], [], rows[2:]))
    joined, whole = Tokens.concatenate(parts, V), tokens(*rows)
    assert joined.ids.tolist() == whole.ids.tolist()
    assert joined.starts.tolist() == whole.starts.tolist()
    assert joined.ids.dtype == whole.ids.dtype == np.int32
    assert len(Tokens.concatenate([], V)) == 0


def test_bigrams_never_cross_texts() -> None:
    codes, second = bigram_codes(tokens([1, 2, 3], [], [4], [5, 6]))
    assert codes.tolist() == [1 * V + 2, 2 * V + 3, 5 * V + 6]
    assert second.tolist() == [False, True, True, False, False, True]


def test_features_are_unigrams_and_repeated_bigrams_but_nothing_that_all_texts_have() -> None:
    features = find_features(tokens([9, 1, 2], [9, 1, 2], [9, 3, 4], [9, 5, 1]))
    known = np.flatnonzero(features.unigrams)
    assert known.tolist() == [1, 2, 3, 4, 5]  # 9 is everywhere
    assert sorted(features.codes[features.codes >= 0].tolist()) == [1 * V + 2, 9 * V + 1]
    assert features.weights[0] == 0


def test_rare_words_weigh_more_and_bigrams_less() -> None:
    features = find_features(tokens([1, 2], [1, 2], [1, 3], [4, 5]))
    weight = features.weights
    assert weight[features.unigrams[3]] > weight[features.unigrams[1]]
    bigram = features.bigrams[(1 * V + 2) % len(features.bigrams)]
    assert weight[bigram] == pytest.approx(BIGRAM_WEIGHT * weight[features.unigrams[2]])


def test_rows_have_length_one_and_unknown_texts_none() -> None:
    seen = tokens([1, 2, 2], [1, 2], [3, 4])
    matrix = find_features(seen).matrix(tokens([1, 2, 4], [40, 41], []))
    lengths = np.sqrt(matrix.power(2).sum(axis=1))
    assert np.allclose(np.asarray(lengths).ravel(), [1.0, 0.0, 0.0])


def test_a_bigram_in_anothers_place_is_not_taken_for_it() -> None:
    features = find_features(tokens([1, 2], [1, 2], [3, 4], [5]))
    stranger = features.codes[-1] + len(features.bigrams)  # the same place in the table
    first, second = divmod(int(stranger), V)
    if first < V:
        found = features.occurrences(Tokens.of([[first, second]], V))
        assert not (found.feature == len(features) - 1).any()
    collided = features.codes[features.bigrams[stranger % len(features.bigrams)]]
    assert collided != stranger


def test_the_vocabulary_is_bounded() -> None:
    rng = np.random.default_rng(0)
    many = Tokens.of(rng.integers(0, 60_000, size=(6_000, 12)).tolist(), 60_000)
    assert len(find_features(many)) <= MAX_FEATURES + 1


def test_it_learns_which_words_mean_which_label() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    rows = [[int(10 + label), *rng.integers(20, 50, 4).tolist()] for label in y]
    nothing = np.zeros((200, 4), np.float32)
    scorer = fit_lexical(Tokens.of(rows, V), nothing, y, 3, C=1.0, seed=0)
    scores = scorer.scores(tokens([10, 30], [11, 30]))
    assert scores.argmax(axis=1).tolist() == [0, 1]
    assert scorer.scores(tokens([10])).shape == (1, 3)
    assert scorer.coefficients.dtype == np.float16


def test_rare_words_mean_what_their_texts_embeddings_say() -> None:
    """Words 30 and 31 are seen once each, both with label 0, in texts like those of labels 0 and
    1: only the embeddings can tell them apart."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    rows = [[int(10 + label), *rng.integers(20, 30, 4).tolist()] for label in y]
    embeddings = (rng.normal(size=(200, 4)) * 0.1).astype(np.float32)
    embeddings[:, 0] += y
    rows += [[30, 20], [31, 20]]
    embeddings = np.vstack([embeddings, [[0, 0, 0, 0], [1, 0, 0, 0]]]).astype(np.float32)
    y = np.append(y, [0, 0])
    scorer = fit_lexical(Tokens.of(rows, V), embeddings, y, 2, C=1.0, seed=0)
    like_zero, like_one = scorer.scores(tokens([30], [31]))[:, 1]
    assert like_one > like_zero + 0.2


def test_meanings_are_as_long_as_asked_and_parting_directions_few() -> None:
    rng = np.random.default_rng(0)
    some = Tokens.of(rng.integers(0, V, size=(120, 6)).tolist(), V)
    words = find_features(some).matrix(some)
    y = np.arange(120) % 5
    meanings = word_meanings(words, rng.normal(size=(120, 40)).astype(np.float32), y)
    assert meanings.shape == (words.shape[1], 4)  # one direction less than labels
    lengths = ((words @ meanings) ** 2).sum(axis=1)
    assert np.isclose(lengths.mean(), MEANING_LENGTH**2)


def test_a_thousand_labels_stay_below_what_a_stage_may_take() -> None:
    """Without a bound by the number of labels these are 50,000 features and 100 MB."""
    rng = np.random.default_rng(0)
    y = np.arange(6_000) % 1_000
    rows = np.column_stack([40_000 + y, rng.integers(0, 40_000, size=(6_000, 12))])
    some = Tokens.of(rows.tolist(), 60_000)
    assert len(find_features(some)) > 30_000
    embeddings = rng.normal(size=(6_000, 8)).astype(np.float32)
    scorer = fit_lexical(some, embeddings, y, 1_000, C=1.0, seed=0)
    features = scorer.features
    arrays = (
        scorer.coefficients, scorer.bias, features.unigrams, features.bigrams, features.codes,
        features.weights,
    )  # fmt: skip
    assert 0.5 * STAGE_BYTES < sum(a.nbytes for a in arrays) <= STAGE_BYTES
    assert (scorer.scores(some).argmax(axis=1) == y).mean() > 0.95


def test_few_labels_lose_no_features() -> None:
    assert most_features(77) == most_features(150) == MAX_FEATURES
    assert most_features(1_000_000) == 8
