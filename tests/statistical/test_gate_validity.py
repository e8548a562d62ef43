"""The guarantee itself: certified policies whose true agreement is below α are at most δ of all.

`TRACER_REPEATS` makes it long (`make stat`); the quick form runs in `make test`.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from scipy.stats import binom
from worlds import true_agreement, world

from shared.core.gate import Certified, certify

REPEATS = int(os.environ.get("TRACER_REPEATS", "200"))
DELTA = 0.1
ALPHA = 0.9


def _violations(n: int, agreement_at: tuple[float, float], duplicates: int = 1) -> int:
    bad = 0
    for seed in range(REPEATS):
        verdict = certify(
            world(n, seed, agreement_at=agreement_at, duplicates=duplicates),
            alpha=ALPHA,
            delta=DELTA,
        )
        if isinstance(verdict, Certified):
            bad += true_agreement(verdict.threshold, agreement_at) < ALPHA
    return bad


def _allowed() -> int:
    """The most violations that do not refute "at most δ" at one in a thousand."""
    return int(binom.ppf(0.999, REPEATS, DELTA))


@pytest.mark.parametrize("n", [200, 600, 2_000, 6_000])
@pytest.mark.parametrize(
    "agreement_at",
    [(0.9 - 1e-9, 0.9 - 1e-9), (0.7, 1.0), (0.5, 1.0), (0.88, 0.93)],
    ids=["every policy is wrong", "steep", "steeper", "flat, close to α"],
)
def test_wrong_certificates_stay_below_delta(n: int, agreement_at: tuple[float, float]) -> None:
    assert _violations(n, agreement_at) <= _allowed()


@pytest.mark.parametrize("duplicates", [2, 5])
def test_copies_of_a_trace_are_no_evidence(duplicates: int) -> None:
    assert _violations(600, (0.9 - 1e-9, 0.9 - 1e-9), duplicates) <= _allowed()


def test_the_simulation_can_fail() -> None:
    """Counting copies as independent rows breaks the guarantee, and the simulation sees it."""
    bad = 0
    for seed in range(REPEATS):
        evidence = world(600, seed, agreement_at=(0.9 - 1e-9, 0.9 - 1e-9), duplicates=5)
        naive = type(evidence)(
            evidence.scores, evidence.agrees, np.arange(len(evidence)), evidence.weights, "holdout"
        )
        bad += isinstance(certify(naive, alpha=ALPHA, delta=DELTA), Certified)
    assert bad > _allowed()


def test_power() -> None:
    """Where 70% of the traffic can be handled at α, a fair part of it is certified."""
    agreement_at = (0.7, 1.0)  # true agreement is 0.9 from threshold 1/3 up
    coverages = []
    for seed in range(50):
        verdict = certify(world(6_000, seed, agreement_at=agreement_at), alpha=ALPHA, delta=DELTA)
        coverages.append(verdict.coverage if isinstance(verdict, Certified) else 0.0)
    assert np.mean(coverages) > 0.58  # the truth is 2/3; one in ten may exceed it
    assert np.mean(coverages) < 2 / 3
