"""A certificate from a reservoir is as valid as from all traces; without its weights it is not.

Traffic whose labels err at different rates, agreement just below α whatever the score: any
certificate is wrong. The reservoir takes more of the rare labels than their share.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from simulation import ALPHA, JUST_BELOW, REPEATS, allowed, certified, wrong_certificates

from shared.core.evidence_weights import scale_by_period
from shared.core.policies import Evidence
from shared.core.reservoir import draws, keep_probabilities
from shared.core.types import Floats

LABELS, DAYS, STORED, MOST = 12, 3, 6_000, 1_000
FREQUENCY = (1.0 + np.arange(LABELS)) ** -1.2
FREQUENCY /= FREQUENCY.sum()


def rates(rare_to_common: float, error: float = 1.0 - JUST_BELOW) -> Floats:
    """float64[labels]: of errors, the rarest label's this many times the most common one's, all
    together `error`."""
    shape = rare_to_common ** (np.arange(LABELS) / (LABELS - 1))
    return np.asarray(shape * error / (FREQUENCY @ shape))


def evidence(error: Floats, seed: int, *, corrected: bool = True, half_life: float | None = None,
             most: int = MOST) -> Evidence:  # fmt: skip
    rng = np.random.default_rng(seed)
    label = rng.choice(LABELS, p=FREQUENCY, size=STORED)
    day = rng.integers(DAYS, size=STORED)
    _, stratum, count = np.unique(day * LABELS + label, return_inverse=True, return_counts=True)
    age = np.zeros(len(count))
    np.maximum.at(age, stratum, (DAYS - 1.0 - day))
    kept = keep_probabilities(
        count.astype(float), count.astype(float), age, most=most, half_life=half_life
    )[stratum]
    rows = np.flatnonzero(draws([f"{seed}-{i}" for i in range(STORED)]) < kept)
    weights = 1.0 / kept[rows] if corrected else np.ones(len(rows))
    return Evidence(
        scores=rng.uniform(size=(len(rows), 1)),
        agrees=rng.uniform(size=(len(rows), 1)) >= error[label[rows]][:, None],
        groups=np.arange(len(rows)),
        weights=scale_by_period(weights, np.zeros(len(rows), dtype=np.int64)),
        kind="holdout",
    )


@pytest.mark.parametrize("rare_to_common", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("half_life", [None, 1.0])
def test_wrong_certificates_stay_below_delta(
    rare_to_common: float, half_life: float | None
) -> None:
    error = rates(rare_to_common)
    assert error.max() < 1
    drawn = partial(evidence, error, half_life=half_life)
    assert wrong_certificates(drawn, lambda _: JUST_BELOW) <= allowed()


def test_without_the_correction_they_do_not() -> None:
    """Rare labels that hardly err flatter the rest, where they count as often as they are kept."""
    drawn = partial(evidence, rates(0.1), corrected=False)
    assert wrong_certificates(drawn, lambda _: JUST_BELOW) > allowed()


@pytest.mark.parametrize("rare_to_common", [0.1, 5.0])
def test_it_certifies_what_is_true(
    rare_to_common: float,
) -> None:
    error = rates(rare_to_common, error=0.3 * (1.0 - ALPHA))
    found = [certified(evidence(error, seed)) for seed in range(REPEATS)]
    assert sum(f is not None for f in found) > 0.9 * REPEATS
    coverage = np.mean([f.coverage for f in found if f is not None])
    assert coverage > 0.9
