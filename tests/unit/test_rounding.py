"""A bound never says more than was found, a level never more than was asked for."""

from __future__ import annotations

import pytest

from shared.rounding import at_least, at_most, down, up, whole


@pytest.mark.parametrize(
    ("share", "below", "above"),
    [
        (0.9568, "95.6%", "95.7%"),
        (0.95, "95.0%", "95.0%"),
        (0.29, "29.0%", "29.0%"),
        (0.99999, "99.9%", "100.0%"),
        (1.0, "100.0%", "100.0%"),
        (0.0, "0.0%", "0.0%"),
    ],
)
def test_bounds_are_rounded_away_from_what_they_bound(share: float, below: str, above: str) -> None:
    assert (at_least(share), at_most(share)) == (below, above)


def test_every_figure_of_so_many_digits_stays_what_it_is() -> None:
    for n in range(10_001):
        assert down(n / 10_000, 4) == up(n / 10_000, 4) == n / 10_000


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (0.95, "95%"), (0.975, "97.5%"), (0.875, "87.5%"), (0.9995, "99.95%"),
        (1 - 0.1, "90%"), (1 - 0.001, "99.9%"), (1 - 0.07, "93%"), (0.005, "0.5%"),
    ],
)  # fmt: skip
def test_what_somebody_chose_keeps_its_digits(chosen: float, said: str) -> None:
    assert whole(chosen) == said
