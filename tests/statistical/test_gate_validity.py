"""The guarantee itself: certified policies whose true agreement is below α are at most δ of all."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from simulation import ALPHA, JUST_BELOW, REPEATS, allowed, certified, wrong_certificates
from worlds import CASCADES, World, copied_errors, true_agreement, world

from shared.core import gate
from shared.core.gate import GRID, NEXT_SAMPLE
from shared.core.policies import answers

SINGLE = {
    "every policy is wrong": (JUST_BELOW, JUST_BELOW),
    "steep": (0.7, 1.0),
    "steeper": (0.5, 1.0),
    "flat, close to α": (0.88, 0.93),
}


def wrong(n: int, agreement_at: tuple[float, float], duplicates: int = 1) -> int:
    return wrong_certificates(
        lambda seed: world(n, seed, agreement_at=agreement_at, duplicates=duplicates),
        partial(true_agreement, agreement_at=agreement_at),
    )


@pytest.mark.parametrize("n", [200, 600, 2_000, 6_000])
@pytest.mark.parametrize("agreement_at", SINGLE.values(), ids=SINGLE.keys())
def test_wrong_certificates_stay_below_delta(n: int, agreement_at: tuple[float, float]) -> None:
    assert wrong(n, agreement_at) <= allowed()


@pytest.mark.parametrize("duplicates", [2, 5])
def test_copies_of_a_trace_are_no_evidence(duplicates: int) -> None:
    assert wrong(600, (JUST_BELOW, JUST_BELOW), duplicates) <= allowed()


@pytest.mark.parametrize(
    ("n", "share", "copies"),
    [(600, 0.2, (5, 5)), (600, 0.3, (2, 5)), (2_000, 0.1, (20, 30)), (2_000, 0.02, (20, 30))],
)
def test_nor_are_they_where_those_with_copies_err(
    n: int, share: float, copies: tuple[int, int]
) -> None:
    """By the average copies of all rows, a fifth of the last world's certificates are wrong."""
    world = partial(copied_errors, n, share=share, copies=copies)
    assert wrong_certificates(world, lambda threshold: JUST_BELOW) <= allowed()


@pytest.mark.parametrize("n", [200, 600, 2_000])
@pytest.mark.parametrize("cascade", CASCADES.values(), ids=CASCADES.keys())
def test_one_certificate_covers_a_whole_cascade(n: int, cascade: World) -> None:
    assert wrong_certificates(partial(cascade.evidence, n), cascade.agreement) <= allowed()


@pytest.mark.parametrize("cascade", CASCADES.values(), ids=CASCADES.keys())
def test_a_new_sample_shows_the_agreement_too(cascade: World) -> None:
    """Where that was asked for: a quarter the size, it agrees less than α at most δ of the time."""
    n, bad = 400, 0
    for seed in range(REPEATS):
        certificate = certified(cascade.evidence(n, seed), NEXT_SAMPLE)
        if certificate is not None:
            sample = cascade.evidence(round(NEXT_SAMPLE * n), REPEATS + seed)
            stage = answers(sample, certificate.threshold)
            rows = np.flatnonzero(stage >= 0)
            bad += len(rows) > 0 and sample.agrees[rows, stage[rows]].mean() < ALPHA
    assert bad <= allowed()


@pytest.mark.parametrize("cascade", CASCADES.values(), ids=CASCADES.keys())
def test_the_whole_gate_is_never_looser(cascade: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Than the one walk that the simulations make; so what holds for that holds for it."""
    for seed in range(3):
        evidence = cascade.evidence(600, seed)
        bare = certified(evidence)
        with monkeypatch.context() as patch:
            patch.setattr(gate, "GRID", GRID)
            for next_sample in (0.0, NEXT_SAMPLE):
                whole = certified(evidence, next_sample)
                if whole is not None:
                    assert bare is not None
                    assert whole.threshold >= bare.threshold


def test_power() -> None:
    """Where 70% of the traffic can be handled at α, a fair part of it is certified."""
    agreement_at = (0.7, 1.0)  # true agreement is 0.9 from threshold 1/3 up
    certificates = [certified(world(6_000, seed, agreement_at=agreement_at)) for seed in range(50)]
    coverage = np.mean([0.0 if c is None else c.coverage for c in certificates])
    assert coverage > 0.58  # the truth is 2/3; one in ten may exceed it
    assert coverage < 2 / 3
