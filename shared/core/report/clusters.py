"""Slices nobody named: clusters of the embeddings, called by their own words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from shared.core.slices import MINIMUM_ROWS, Slice
from shared.core.types import Mask, Matrix

ROWS_A_CLUSTER = 100
MOST_CLUSTERS = 30
# More rows move the centres no more than a person would see.
FITTED_ON = 20_000
WORDS_IN_NAME = 3
# A word in fewer of a cluster's texts does not stand for it.
LEAST_SHARE = 0.15
# Twice as frequent as elsewhere, or it says nothing.
LEAST_LIFT = 2.0

_WORD = re.compile(r"[^\W\d_]{3,}")


def clusters_of(texts: Sequence[str], features: Matrix, *, seed: int) -> list[Slice]:
    """Of n texts and their embeddings float32[n, d]; those of enough rows that have a word of
    their own. Nothing but texts and embeddings is looked at."""
    n_clusters = min(MOST_CLUSTERS, len(texts) // ROWS_A_CLUSTER)
    if n_clusters < 2:
        return []
    chosen = np.linspace(0, len(texts) - 1, min(len(texts), FITTED_ON)).astype(np.int64)
    with threadpool_limits(limits=1):  # sums would depend on the number of threads
        model = KMeans(n_clusters, n_init=1, random_state=seed).fit(features[chosen])
        cluster = model.predict(features)
    words = [set(_WORD.findall(text.casefold())) for text in texts]
    everywhere = Counter(word for row in words for word in row)
    found: dict[str, Slice] = {}
    for number in range(n_clusters):
        rows = np.asarray(cluster == number, dtype=np.bool_)
        name = _name(words, rows, everywhere) if rows.sum() >= MINIMUM_ROWS else ""
        if name:
            found.setdefault(name, Slice("cluster", name, rows))
    return list(found.values())


def _name(words: Sequence[set[str]], rows: Mask, everywhere: Counter[str]) -> str:
    """The words that are most of a cluster's own: frequent inside, rare outside."""
    inside = Counter(word for i in np.flatnonzero(rows).tolist() for word in words[i])
    n, others = int(rows.sum()), len(words) - int(rows.sum())
    scores = {}
    for word, count in inside.items():
        lift = (count / n) / ((everywhere[word] - count + 1.0) / (others + 1.0))
        if count >= LEAST_SHARE * n and lift >= LEAST_LIFT:
            scores[word] = count / n * float(np.log(lift))
    best = sorted(scores, key=lambda word: (-scores[word], word))[:WORDS_IN_NAME]
    return ", ".join(best)
