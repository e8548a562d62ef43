"""Naive gates break the guarantee, and the simulation sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulation import ALPHA, DELTA, JUST_BELOW, REPEATS, allowed, certified
from worlds import WEIGHTED, World, world

from shared.core.gate import Evidence, p_values, policies


def count(wrong: Callable[[Evidence], bool], evidence: Callable[[int], Evidence]) -> int:
    return sum(wrong(evidence(seed)) for seed in range(REPEATS))


def every_policy_is_wrong(n: int, duplicates: int = 1) -> Callable[[int], Evidence]:
    return lambda seed: world(n, seed, agreement_at=(JUST_BELOW, JUST_BELOW), duplicates=duplicates)


@pytest.mark.parametrize("n", [600, 2_000])
def test_every_threshold_at_one_level(n: int) -> None:
    """As the reference does: the loosest threshold whose own test passes."""

    def wrong(evidence: Evidence) -> bool:
        walked = policies(evidence)
        return bool((p_values(walked.agreement, walked.size, ALPHA) <= DELTA).any())

    assert count(wrong, every_policy_is_wrong(n)) > allowed()


def test_copies_counted_as_rows() -> None:
    def wrong(evidence: Evidence) -> bool:
        return certified(replace(evidence, groups=np.arange(len(evidence)))) is not None

    assert count(wrong, every_policy_is_wrong(600, duplicates=5)) > allowed()


def test_weights_left_out() -> None:
    """Rows the surrogate is sure of are seen more often: what is seen agrees more."""
    weighted = WEIGHTED["steep, surest seen most"]

    def wrong(evidence: Evidence) -> bool:
        certificate = certified(replace(evidence, weights=np.ones(len(evidence))))
        return certificate is not None and weighted.agreement(certificate.threshold) < ALPHA

    assert count(wrong, lambda seed: weighted.evidence(2_000, seed)) > allowed()


def test_a_certificate_for_each_stage() -> None:
    """A stage that is good enough on all traffic is not on what the one before it leaves over."""
    cascade = World(
        (
            lambda a, b: (a, np.full(len(a), 0.94)),
            lambda a, b: (b, np.where(a < 0.5, 0.84, 1.0)),
        ),
        floors=(0.5, 0.0),
    )

    def alone(evidence: Evidence, stage: int) -> float | None:
        """The floor that a stage's own certificate gives it."""
        floor = cascade.floors[stage]
        certificate = certified(
            replace(
                evidence,
                scores=evidence.scores[:, stage],
                agrees=evidence.agrees[:, stage],
                floors=(floor,),
            )
        )
        return None if certificate is None else max(certificate.threshold, floor)

    def wrong(evidence: Evidence) -> bool:
        first, second = alone(evidence, 0), alone(evidence, 1)
        if first is None or second is None:
            return False
        return replace(cascade, floors=(first, second)).agreement(0.0) < ALPHA

    assert count(wrong, lambda seed: cascade.evidence(2_000, seed)) > allowed()
