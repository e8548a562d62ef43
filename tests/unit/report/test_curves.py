from __future__ import annotations

import numpy as np
import pytest

from shared.core.report.curves import FARTHEST, RISK, curve, fit_laws
from shared.core.report.growth import Growth, growth
from tests.reports import trained

SIZES = np.asarray([500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0])
N = 10_000


def grown(errors: list[float], rows: int, seed: int) -> Growth:
    """Rows that are wrong below a size of their own, so that larger fits err on fewer of them."""
    luck = np.random.default_rng(seed).uniform(size=rows)
    right = np.stack([luck >= error for error in errors])
    return Growth(np.arange(rows), SIZES[: len(errors)], right)


def of(some: Growth, *, target: float = 0.95, seed: int = 0):  # type: ignore[no-untyped-def]
    rows = len(some.at)
    return curve(
        some, np.ones(rows, bool), np.ones(rows), np.arange(rows), n=N, target=target, seed=seed
    )


def law(a: float, b: float, c: float) -> list[float]:
    return [a + b * n**-c for n in SIZES.tolist()]


def test_a_power_law_is_found_again() -> None:
    errors = np.asarray([law(0.02, 2.0, 0.5)])
    laws = fit_laws(SIZES, errors, 10_000, 0)
    for n in (500.0, 8_000.0, 32_000.0):
        assert laws.errors(n)[0] == pytest.approx(0.02 + 2.0 * n**-0.5, abs=4e-3)


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        (law(0.0, 3.0, 0.4), "growing"),
        ([0.05] * 5, "plateaued"),
        (law(0.05, 40.0, 1.0), "plateaued"),
    ],
)
def test_the_verdict_of_many_rows(errors: list[float], verdict: str) -> None:
    found = of(grown(errors, 6_000, seed=1))
    assert found is not None
    assert found.verdict == verdict


def test_few_rows_cannot_tell() -> None:
    found = of(grown(law(0.05, 2.0, 0.6), 60, seed=3))
    assert found is not None
    assert found.verdict == "cannot_tell"


def test_the_forecast_of_simulated_worlds_comes_true_as_often_as_it_says() -> None:
    """Agreement at four times the traces lies in the interval in nine of ten worlds."""
    rng = np.random.default_rng(5)
    hits = 0
    for seed in range(60):
        a, b, c = rng.uniform(0, 0.05), rng.uniform(1, 4), rng.uniform(0.3, 0.6)
        found = of(grown(law(a, b, c), 2_000, seed))
        assert found is not None
        n, told = found.forecast[1]
        assert n == 4 * N
        hits += told.lower <= 1 - (a + b * n**-c) <= told.upper
    assert hits >= 60 * (1 - RISK) - 2 * np.sqrt(60 * RISK * (1 - RISK))


def test_what_it_needs_is_where_the_law_reaches_the_target() -> None:
    """The interval has the truth in it; a floor that nobody can rule out asks for more than that,
    and a target farther off for more again."""
    errors = law(0.0, 4.0, 0.4)
    some = grown(errors, 20_000, seed=6)
    told = []
    for more in (N // 2, N, 2 * N):
        found = of(some, target=1 - 4.0 * (N + more) ** -0.4)
        assert found is not None
        assert found.needs is not None
        assert found.needs.lower <= more
        assert found.needs.upper is None or found.needs.upper >= more
        told.append(found.needs.more)
    assert told == sorted(told)
    assert N // 4 < told[0] < 4 * N


@pytest.mark.parametrize("target", [0.5, 0.9999])
def test_what_is_reached_already_or_out_of_reach_is_not_told_a_number(target: float) -> None:
    assert of(grown(law(0.02, 2.0, 0.5), 5_000, seed=7), target=target).needs is None
    assert FARTHEST > 4


def test_too_few_rows_or_sizes_draw_nothing() -> None:
    assert of(grown(law(0, 3, 0.4), 20, seed=8)) is None
    assert of(grown([0.3, 0.2], 500, seed=8)) is None


def test_growth_is_of_nested_parts_and_larger_ones_do_better() -> None:
    _, training, fitted = trained(2_000)
    assert fitted.judged is not None
    found = growth(fitted.judged.fits, seed=0, jobs=1)
    assert len(found.sizes) >= 3
    assert (np.diff(found.sizes) > 0).all()
    assert found.sizes[-1] == pytest.approx(0.8 * len(training), rel=0.02)
    assert found.right.shape == (len(found.sizes), len(found.at))
    agreement = found.right.mean(axis=1)
    assert agreement[-1] > agreement[0]
    again = growth(fitted.judged.fits, seed=0, jobs=1)
    assert np.array_equal(found.right, again.right)


def test_what_a_large_task_costs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of at most MOST_FITTED, and the law still ends at all traces."""
    _, training, fitted = trained(2_000)
    assert fitted.judged is not None
    monkeypatch.setattr("shared.core.report.growth.MOST_FITTED", 400)
    monkeypatch.setattr("shared.core.report.growth.SCORED_ROWS", 150)
    found = growth(fitted.judged.fits, seed=0, jobs=1)
    assert len(found.at) == 300
    assert (found.sizes[:-1] <= 400 * 1.1).all()
    assert found.sizes[-1] == pytest.approx(0.8 * len(training), rel=0.02)
    assert (fitted.judged.fits.folds[found.at] < 2).all()
