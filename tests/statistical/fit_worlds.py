"""Synthetic traffic to fit on: embeddings in clusters, with what real traffic does to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from horizons import DIM, words

from shared.core.fit import Fit
from shared.core.policies import answers, evidence_of
from shared.core.training import TrainingSet

FRESH = 20_000


@dataclass(frozen=True)
class Traffic:
    """Unit vectors around k directions.

    spread: how far rows lie from their direction. skew: label i has frequency 1 / (i + 1)^skew.
    label_noise: the share of texts to which the teacher gives some other label. copies: a text is
    there once to this many times. tokens: word pieces as well.
    """

    k: int
    spread: float
    skew: float = 0.0
    label_noise: float = 0.0
    copies: int = 1
    tokens: bool = False

    def rows(self, n: int, seed: int) -> TrainingSet:
        """n rows of the task, copies included."""
        rng = np.random.default_rng(seed)
        repeats = rng.integers(1, self.copies + 1, size=n)
        group = np.repeat(np.arange(n), repeats)[:n]
        frequency = 1.0 / np.arange(1, self.k + 1) ** self.skew
        label = rng.choice(self.k, size=n, p=frequency / frequency.sum())
        centres = np.random.default_rng(0).normal(size=(self.k, DIM))
        X = centres[label] / 4 + rng.normal(size=(n, DIM)) * self.spread
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        other = (label + rng.integers(1, self.k, size=n)) % self.k
        y = np.where(rng.uniform(size=n) < self.label_noise, other, label)
        order = rng.permutation(n)
        return TrainingSet(
            features=X[group].astype(np.float32),
            y=y[group],
            labels=tuple(f"label-{i}" for i in range(self.k)),
            groups=group,
            evidence=np.ones(n, bool),
            tokens=words(label, rng).take(group) if self.tokens else None,
        ).take(order)

    def agreement(self, fitted: Fit) -> float:
        """Of fresh traffic that a certified fit answers."""
        assert fitted.cascade is not None
        evidence = evidence_of(
            fitted.cascade.outputs(self._fresh), self._fresh, "holdout", fitted.thresholds
        )
        stage = answers(evidence, 0.0)
        handled = np.flatnonzero(stage >= 0)
        return float(evidence.agrees[handled, stage[handled]].mean())

    @cached_property
    def _fresh(self) -> TrainingSet:
        return self.rows(FRESH, seed=1_000_000)


TRAFFIC = {
    "plain": Traffic(k=4, spread=0.36),
    "imbalanced": Traffic(k=6, spread=0.34, skew=1.2),
    "noisy teacher": Traffic(k=4, spread=0.27, label_noise=0.06),
    "duplicates": Traffic(k=4, spread=0.33, copies=2),
    "word pieces and all of these": Traffic(
        k=4, spread=0.4, skew=0.8, label_noise=0.03, copies=2, tokens=True
    ),
}
