"""The guarantee where labels that agree too rarely are deferred whole, as `decide` does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
from simulation import ALPHA, DELTA, REPEATS, allowed
from stubs import prepared, rows_of

from shared.core.fit import Fit, Settings, decide
from shared.core.gate import Certified
from shared.core.training import TrainingSet
from shared.core.types import Floats, Ints, Kind

pytestmark = pytest.mark.usefixtures("nothing_to_fit")


@dataclass(frozen=True)
class LabelWorld:
    """One stage whose answers have k labels, all as frequent, and scores uniform in (0, 1).

    probability: of agreement, from label and score.
    """

    name: str
    k: int
    probability: Callable[[Ints, Floats], Floats]

    def decide(self, n: int, seed: int, *, floor: float | None, kind: Kind) -> Fit:
        """From n rows of evidence; with a hold-out, as many others were fitted on."""
        rng = np.random.default_rng(seed)
        rows, held_out = self._rows(n, rng), self._rows(n, rng)
        settings = Settings(
            alpha=ALPHA, delta=DELTA, kind=kind, label_floor=floor, next_sample=0.0
        )  # fmt: skip
        return decide(prepared(rows, held_out if kind == "holdout" else None), settings)

    def agreement(self, fitted: Fit) -> float:
        """Of all traffic that a certified fit answers; 1 where it answers none."""
        kept = np.setdiff1d(np.arange(self.k), fitted.dropped)
        return float(self.by_label(fitted.thresholds[0])[kept].mean()) if len(kept) else 1.0

    def by_label(self, threshold: float) -> Floats:
        """float64[k]: each label's agreement on traffic whose score is at least `threshold`."""
        return self._table[:, int(np.searchsorted(self._scores, threshold))]

    @cached_property
    def _scores(self) -> Floats:
        return (np.arange(10_000) + 0.5) / 10_000

    @cached_property
    def _table(self) -> Floats:
        """float64[k, 10000]: by label, agreement from each score up."""
        each = np.stack([
            self.probability(np.full(len(self._scores), label), self._scores)
            for label in range(self.k)
        ])  # fmt: skip
        sums = np.cumsum(each[:, ::-1], axis=1)[:, ::-1]
        return sums / np.arange(len(self._scores), 0, -1)

    def _rows(self, n: int, rng: np.random.Generator) -> TrainingSet:
        """The teacher gave the label that is answered, or label k."""
        label, score = rng.integers(0, self.k, n), rng.uniform(size=n)
        agrees = rng.uniform(size=n) < self.probability(label, score)
        y = np.where(agrees, label, self.k)
        return rows_of(label[:, None], score[:, None], y, self.k + 1)


def alike(k: int) -> LabelWorld:
    """All labels agree alike, exactly 0.9 if everything is answered: none is worse than others."""
    return LabelWorld("alike", k, lambda label, score: 0.8 - 1e-6 + 0.2 * score)


def a_third_is_bad(k: int) -> LabelWorld:
    return LabelWorld(
        "a third is bad", k, lambda label, score: 0.85 + 0.15 * score - 0.15 * (label % 3 == 0)
    )


def spread(k: int) -> LabelWorld:
    """Labels from 6 points below the mean to 6 above; every policy is just wrong."""
    return LabelWorld(
        "spread",
        k,
        lambda label, score: ALPHA - 1e-6 + 0.06 * (2 * label / (k - 1) - 1) + 0 * score,
    )


def violations(labels: LabelWorld, n: int, floor: float, kind: Kind) -> int:
    bad = 0
    for seed in range(REPEATS):
        fitted = labels.decide(n, seed, floor=floor, kind=kind)
        bad += isinstance(fitted.verdict, Certified) and labels.agreement(fitted) < ALPHA
    return bad


@pytest.mark.parametrize(
    ("labels", "n", "floor", "kind"),
    [
        (alike(6), 600, 0.8, "holdout"),
        (a_third_is_bad(6), 600, 0.8, "crossfit"),
        (a_third_is_bad(12), 800, 0.8, "holdout"),
        (spread(6), 600, 0.85, "holdout"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_wrong_certificates_stay_below_delta(
    labels: LabelWorld, n: int, floor: float, kind: Kind
) -> None:
    assert violations(labels, n, floor, kind) <= allowed()


@pytest.mark.parametrize(
    ("k", "n", "kind"), [(6, 600, "holdout"), (6, 600, "crossfit"), (20, 600, "holdout")]
)
def test_so_they_do_where_the_floor_is_close_to_the_truth(k: int, n: int, kind: Kind) -> None:
    """Labels that only look bad are dropped, which makes the others look better than they are."""
    assert violations(alike(k), n, ALPHA, kind) <= allowed()


@pytest.mark.parametrize("kind", ["holdout", "crossfit"])
def test_labels_below_their_floor_are_hardly_ever_answered(kind: Kind) -> None:
    """One label of six agrees 10 points less than its floor, whatever its score."""
    labels = LabelWorld(
        "one is bad", 6, lambda label, score: np.where(label == 0, 0.78, 0.98) + 0 * score
    )
    n = 2_000 if kind == "holdout" else 8_000  # two folds of five find the labels
    fits = [labels.decide(n, seed, floor=0.88, kind=kind) for seed in range(REPEATS // 2)]
    certified = [fitted for fitted in fits if isinstance(fitted.verdict, Certified)]
    assert len(certified) > 0.9 * len(fits)
    assert sum(0 not in fitted.dropped for fitted in certified) <= 0.02 * len(fits)
    assert not any(set(fitted.dropped) - {0} for fitted in certified)
