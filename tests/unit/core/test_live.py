from __future__ import annotations

import time

import numpy as np
import pytest

from shared.core.live import (
    FALSE_ALARM_EVERY,
    PRIOR,
    PROBATION_AUDITS,
    LiveCertificate,
    Prior,
)


def audits(n: int, agreement: float, seed: int = 0) -> list[bool]:
    return [bool(x) for x in np.random.default_rng(seed).uniform(size=n) < agreement]


def test_before_the_first_audit_nothing_is_known() -> None:
    live = LiveCertificate(0.95, 0.1)
    assert (live.n, live.agreement, live.lower) == (0, 1.0, 0.0)
    assert live.e_value == pytest.approx(1.0)
    assert not any((live.tripped, live.suspicious, live.cleared, live.on_probation))


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, 0.1), (1.0, 0.1), (0.9, 0.0), (0.9, 1.0)])
def test_levels_are_probabilities(alpha: float, delta: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        LiveCertificate(alpha, delta)


def test_the_e_value_is_the_mixture_over_rates_and_beginnings() -> None:
    """Written out: every beginning, every rate."""
    prior = Prior(odds=(1.5, 4.0), weights=(1, 3), from_the_start=0.5, half_life=10)
    alpha, outcomes = 0.9, audits(40, 0.8)
    live = LiveCertificate(alpha, 1e-6, prior)
    live.observe_all(outcomes)
    x = np.asarray(outcomes)
    total = prior.unborn(len(x))
    suspicion = 0.0
    for q, weight in zip(prior.rates(alpha), (0.25, 0.75), strict=True):
        ratio = np.where(x, (1 - q) / alpha, q / (1 - alpha))
        for begin in range(len(x)):
            born = prior.unborn(begin) - prior.unborn(begin + 1)
            born += prior.from_the_start if begin == 0 else 0.0
            total += weight * born * ratio[begin:].prod()
            suspicion += weight * ratio[begin:].prod()
    assert live.e_value == pytest.approx(total)
    assert live.suspicion == pytest.approx(suspicion)


@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("better", [0.0, 0.3, 1.0])
def test_no_audit_is_expected_to_add_evidence_against_a_good_version(
    alpha: float, better: float
) -> None:
    """The supermartingale itself: after any past, at any agreement of α or more."""
    agreement = alpha + better * (1 - alpha)
    for past in (audits(30, 0.9, 1), audits(100, 0.97, 2)):
        after = []
        for agrees in (True, False):
            live = LiveCertificate(alpha, 0.1)
            live.observe_all([*past, agrees])
            after.append(live.e_value)
        before = LiveCertificate(alpha, 0.1)
        before.observe_all(past)
        expected = agreement * after[0] + (1 - agreement) * after[1]
        assert expected <= before.e_value * (1 + 1e-9)
        if better == 0.0:
            assert expected == pytest.approx(before.e_value)


def test_a_trip_is_for_life() -> None:
    live = LiveCertificate(0.95, 0.1)
    live.observe_all(audits(200, 0.5))
    assert live.tripped
    assert live.suspicious
    live.begin_probation()
    live.observe_all([True] * 10_000)
    assert live.tripped
    assert not live.cleared


def test_a_good_version_goes_on() -> None:
    live = LiveCertificate(0.95, 0.1)
    live.observe_all(audits(5_000, 0.98))
    assert not any((live.tripped, live.suspicious))
    assert 0.96 < live.lower < live.agreement < 0.99


def test_suspicion_comes_first_and_probation_ends_it() -> None:
    live = LiveCertificate(0.95, 0.01)
    live.observe_all(audits(300, 0.97))
    n = 0
    while not live.suspicious:
        live.observe(n % 4 != 0)
        n += 1
    assert n < 60
    assert not live.tripped
    live.begin_probation()
    assert live.on_probation
    live.observe_all([True] * (PROBATION_AUDITS - 1))
    assert not live.cleared
    assert live.suspicious
    live.observe(True)
    assert live.cleared
    assert not any((live.on_probation, live.suspicious))
    assert live.suspicion < FALSE_ALARM_EVERY


def test_only_audits_since_probation_began_clear() -> None:
    live = LiveCertificate(0.95, 1e-9)
    live.observe_all([True] * 3_000)
    live.begin_probation()
    live.observe_all(audits(300, 0.90, seed=1))
    assert not live.cleared


def test_a_second_probation_begins_from_nothing() -> None:
    live = LiveCertificate(0.95, 0.1)
    for _ in range(2):
        live.begin_probation()
        assert not live.cleared
        live.observe_all([True] * (PROBATION_AUDITS - 1))
        assert not live.cleared
        live.observe(True)
        assert live.cleared


def test_replaying_the_outcomes_gives_the_same_state() -> None:
    outcomes = audits(2_000, 0.94)
    live, again = LiveCertificate(0.95, 0.1), LiveCertificate(0.95, 0.1)
    for agrees in outcomes:
        live.observe(agrees)
    again.observe_all(outcomes)
    for name in ("n", "disagreements", "tripped", "suspicious", "e_value", "suspicion", "lower"):
        assert getattr(live, name) == getattr(again, name)


@pytest.mark.parametrize("outcome", [True, False])
def test_a_long_life_neither_overflows_nor_grows(outcome: bool) -> None:
    live = LiveCertificate(0.99, 0.1)
    begin = time.process_time()
    with np.errstate(over="raise", invalid="raise"):
        live.observe_all([outcome] * 100_000)
        assert live.tripped is not outcome
        assert np.isfinite(live.e_value)
        assert (live.lower > 0.999) is outcome
        live.observe_all([not outcome] * 300)
    assert (time.process_time() - begin) / 100_000 < 50e-6
    assert live._mixtures.shape == (2, len(PRIOR.odds))


def test_the_bound_is_tighter_with_more_audits() -> None:
    bounds = []
    for n in (40, 200, 1_000, 10_000):
        live = LiveCertificate(0.95, 0.1)
        live.observe_all(i % 20 != 19 for i in range(n))
        assert live.agreement == pytest.approx(0.95)
        bounds.append(live.lower)
    assert bounds == sorted(bounds)
    assert bounds[0] > 0.78
    assert bounds[-1] > 0.943


@pytest.mark.parametrize("alpha", [0.01, 0.03])
def test_a_probation_at_an_alpha_near_0_is_passed_by_none_that_never_agrees(alpha: float) -> None:
    live = LiveCertificate(alpha, 0.1)
    live.begin_probation()
    live.observe_all([False] * 2 * PROBATION_AUDITS)
    assert live.on_probation
    assert not live.cleared
