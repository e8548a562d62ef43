"""The guarantee where rows stand for others: observed with a known probability, weighing one over
it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
from simulation import DELTA, allowed, certified, wrong_certificates
from worlds import (
    AUDITED,
    WEIGHTED,
    World,
    heavy_errors,
    light_errors,
    one_policy,
    together,
    two_kinds,
)

from shared.core.evidence_weights import scale_by_period
from shared.core.gate import p_values
from shared.core.policies import Evidence
from shared.core.types import Floats, Ints


@pytest.mark.parametrize("n", [200, 2_000])
@pytest.mark.parametrize("weighted", WEIGHTED.values(), ids=WEIGHTED.keys())
def test_wrong_certificates_stay_below_delta(n: int, weighted: World) -> None:
    assert wrong_certificates(partial(weighted.evidence, n), weighted.agreement) <= allowed()


@pytest.mark.parametrize("n", [200, 600, 2_000])
@pytest.mark.parametrize(("share", "seen"), [(0.2, 0.1), (0.5, 0.05)])
def test_so_they_do_where_the_heavy_rows_make_the_errors(n: int, share: float, seen: float) -> None:
    weighted = heavy_errors(share, seen)
    assert wrong_certificates(partial(weighted.evidence, n), weighted.agreement) <= allowed()


@pytest.mark.parametrize("n", [200, 2_000])
def test_so_they_do_where_there_may_be_no_heavy_row_at_all(n: int) -> None:
    """If the gate is told how heavy one can be: a row in 300 stands for 50."""
    weighted = heavy_errors(share=0.15, seen=0.02, heaviest=50.0)
    assert wrong_certificates(partial(weighted.evidence, n), weighted.agreement) <= allowed()


@pytest.mark.parametrize("n", [600, 6_000])
@pytest.mark.parametrize(("share", "seen"), [(0.5, 0.05), (0.85, 0.05), (0.8, 0.2)])
def test_so_they_do_where_the_light_rows_make_the_errors(n: int, share: float, seen: float) -> None:
    """The weight of all rows is then as uncertain as that of the errors."""
    weighted = light_errors(share, seen)
    assert wrong_certificates(partial(weighted.evidence, n), weighted.agreement) <= allowed()


@pytest.mark.parametrize("rarely_seen_err", [0.03, 0.06, 0.12])
def test_so_they_do_where_most_traffic_is_audited_sparsely(rarely_seen_err: float) -> None:
    weighted = two_kinds(0.8, 0.05, rarely_seen_err)
    assert wrong_certificates(partial(weighted.evidence, 2_000), weighted.agreement) <= allowed()


@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.95, 0.99])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.8])
def test_one_policy_passes_at_most_delta_of_the_time(alpha: float, share: float) -> None:
    """At agreement α, whichever rows err: those that are seen rarely never, as often as others,
    or they alone."""
    repeats = 5_000
    least = max(0.0, (share - alpha) / share)  # no others err more often than always
    most = min(1.0, (1.0 - alpha) / share)
    rates = [least, *(part * (1.0 - alpha) for part in (0.3, 0.7, 1.0, 1.5)), most]
    for n, seen, rate in product((100, 1_000, 20_000), (0.02, 0.05, 0.5), rates):
        if least <= rate <= most:
            handled = one_policy(
                n, alpha, share=share, seen=seen, rarely_seen_err=rate, repeats=repeats
            )
            passed = p_values(handled.counts(alpha), alpha) <= DELTA
            assert passed.sum() <= allowed(repeats), (n, seen, rate)


def test_power_where_a_tenth_of_the_surer_half_is_audited() -> None:
    """2/3 of the traffic can be handled; 180 audited rows of the surer half show a good part."""
    certificates = [certified(WEIGHTED[AUDITED].evidence(2_000, seed)) for seed in range(50)]
    assert np.mean([certificate is not None for certificate in certificates]) > 0.6


Scale = Callable[[Floats, Ints], Floats]


def days(audited: World, rows_seen_whole: int, n_days: int, scale: Scale, seed: int) -> Evidence:
    """Rows seen whole, then so many days with 525 rows each of requests that were deferred, or
    handled and audited."""
    first = 100 * seed
    parts = [World(audited.stages).evidence(rows_seen_whole, first)]
    parts += [audited.evidence(525, first + day) for day in range(1, n_days + 1)]
    period = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return together(parts, scale(np.concatenate([part.weights for part in parts]), period))


def unscaled(weights: Floats, period: Ints) -> Floats:
    return weights


@pytest.mark.parametrize(
    "handled_err", [0.03, 0.1, 0.18], ids=["handled agree more", "alike", "handled agree less"]
)
def test_so_they_do_where_days_count_as_much_as_they_say(handled_err: float) -> None:
    """Half the traffic was handled, of which 5% is audited."""
    audited = two_kinds(0.5, 0.05, handled_err)
    evidence = partial(days, audited, 2_000, 4, scale_by_period)
    assert wrong_certificates(evidence, audited.agreement) <= allowed()


def test_days_that_count_as_much_as_they_say_certify_more() -> None:
    """Than days that count as much as they had traffic, and than the rows seen whole alone."""
    audited = World(
        (lambda a, b: (a, 0.7 + 0.3 * a),), observed=lambda a, b: np.where(a > 0.5, 0.05, 1.0)
    )

    def coverage(n_days: int, scale: Scale) -> float:
        evidence = [days(audited, 500, n_days, scale, seed) for seed in range(50)]
        certificates = [certified(each) for each in evidence]
        return float(np.mean([0.0 if c is None else c.coverage for c in certificates]))

    scaled = coverage(8, scale_by_period)
    assert scaled > coverage(8, unscaled) + 0.03
    assert scaled > coverage(0, unscaled) + 0.03
    assert scaled < 2 / 3  # the truth; one in ten may exceed it
