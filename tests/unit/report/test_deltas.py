"""Which labels a report says changed, where what is handled is seen less often than what is not."""

from __future__ import annotations

import numpy as np
import pytest

from shared.contracts.report import LabelRow
from shared.core.shares import effective_size, share_of
from shared.core.types import Floats, Mask
from shared.fitting.report.deltas import _changes
from shared.fitting.report.parts import RISK

SHARE = 0.02


def row(label: str, handled: Mask, weights: Floats) -> LabelRow:
    def share(hits: Mask, w: Floats) -> dict[str, float]:
        found = share_of(hits, w, np.arange(len(hits)), RISK / 2)
        assert found is not None
        return {"": found.share, "_lower": found.lower, "_upper": found.upper}

    agrees = np.ones(int(handled.sum()), np.bool_)
    return LabelRow(
        label=label, n=len(handled), n_handled=int(handled.sum()),
        **{f"coverage{k}": round(v, 4) for k, v in share(handled, weights).items()},
        **{f"agreement{k}": round(v, 4) for k, v in share(agrees, weights[handled]).items()},
    )  # fmt: skip


def labels(rng: np.random.Generator, coverage: float, *, audited: bool) -> tuple[LabelRow, ...]:
    """Ten labels, a day of each seen whole; `audited`: and a day of which audits alone show what
    was handled."""
    made = []
    for label in range(10):
        handled, weights = rng.random(400) < coverage, np.ones(400)
        if audited:
            then = rng.random(400) < coverage
            seen = ~then | (rng.random(400) < SHARE)
            handled = np.r_[handled, then[seen]]
            weights = np.r_[weights, np.where(then[seen], 1 / SHARE, 1.0)]
        made.append(row(str(label), handled, weights))
    return tuple(made)


def test_a_day_of_audits_changes_no_label() -> None:
    """It changed 9.75 of ten: counts of rows know nothing of what they stand for."""
    found = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        compared, changes = _changes(
            labels(rng, 0.9, audited=False), labels(rng, 0.9, audited=True)
        )
        assert compared >= 18  # a label of too few audits is compared with nothing
        found += len(changes)
    assert found <= 2


@pytest.mark.parametrize("audited", [False, True])
def test_what_did_change_is_still_told(audited: bool) -> None:
    rng = np.random.default_rng(1)
    _, changes = _changes(labels(rng, 0.9, audited=False), labels(rng, 0.4, audited=audited))
    assert len({change.label for change in changes if change.measure == "coverage"}) >= 8


@pytest.mark.parametrize("hits", [0, 3, 50, 97, 100])
def test_rows_of_one_weight_are_worth_their_number(hits: int) -> None:
    some = share_of(np.arange(100) < hits, np.full(100, 7.0), np.arange(100), 0.025)
    assert some is not None
    assert effective_size(some, 0.025) == pytest.approx(100.0)
