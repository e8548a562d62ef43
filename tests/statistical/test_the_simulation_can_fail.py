"""Naive gates break the guarantee, and the simulation sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from simulation import ALPHA, DELTA, JUST_BELOW, REPEATS, allowed, certified
from worlds import WEIGHTED, World, heavy_errors, one_policy, world

from shared.core.gate import p_values
from shared.core.policies import Evidence, policies
from shared.core.weighted_counts import Counts, Sums


def count(wrong: Callable[[Evidence], bool], evidence: Callable[[int], Evidence]) -> int:
    return sum(wrong(evidence(seed)) for seed in range(REPEATS))


def every_policy_is_wrong(n: int, duplicates: int = 1) -> Callable[[int], Evidence]:
    return lambda seed: world(n, seed, agreement_at=(JUST_BELOW, JUST_BELOW), duplicates=duplicates)


@pytest.mark.parametrize("n", [600, 2_000])
def test_every_threshold_at_one_level(n: int) -> None:
    """As the reference does: the loosest threshold whose own test passes."""

    def wrong(evidence: Evidence) -> bool:
        walked = policies(evidence)
        return bool((p_values(walked.handled.counts(ALPHA), ALPHA) <= DELTA).any())

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


def test_kish_takes_errors_for_as_heavy_as_rows_are_on_average(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where it is the heavy rows that err."""
    weighted = heavy_errors(share=0.2, seen=0.1)

    def kish(handled: Sums, alpha: float) -> Counts:
        scale = handled.squares / handled.weight
        return Counts(errors=handled.errors / scale, size=handled.weight / scale)

    monkeypatch.setattr(Sums, "counts", kish)
    assert count(
        lambda evidence: certified(evidence) is not None, partial(weighted.evidence, 200)
    ) > allowed()  # fmt: skip


def test_a_sum_of_errors_without_the_uncertainty_of_the_weights() -> None:
    """Fay and Feuer's limits, for a weight that is known; here the heavy rows never err."""
    handled = one_policy(20_000, ALPHA, share=0.8, seen=0.02, rarely_seen_err=0.0, repeats=5_000)
    scale = (handled.error_squares + handled.heaviest**2) / (handled.errors + handled.heaviest)
    errors = (handled.errors + handled.heaviest) / scale - 1.0
    wrong = p_values(Counts(errors, handled.weight / scale), ALPHA) <= DELTA
    assert wrong.mean() > 1.5 * DELTA


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
