"""A hold-out is as good a sample of the traffic as rows drawn at random."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import chi2
from simulation import ALPHA, REPEATS

from shared.core import fit
from shared.core.fit import Prepared, Settings, prepare
from shared.core.training import TrainingSet


def squared_error(n: int, k: int, seed: int) -> float:
    """Of the agreement of held-out rows, in units of what it is for rows drawn at random.

    The surrogate is always wrong on a tenth of k labels, all as frequent, and right on the others.
    """
    rng = np.random.default_rng(seed)
    y, wrong = rng.integers(0, k, n), rng.permutation(k)[: k // 10]
    rows = TrainingSet(
        features=np.zeros((n, 1), np.float32),
        y=y,
        labels=tuple(f"label-{i}" for i in range(k)),
        groups=np.arange(n),
        evidence=np.ones(n, bool),
    )
    prepared = prepare(rows, Settings(kind="holdout", seed=seed))
    assert isinstance(prepared, Prepared)
    assert prepared.held_out is not None
    agreement = 1.0 - np.isin(prepared.held_out.y, wrong).mean()
    return float((agreement - ALPHA) ** 2 * len(prepared.held_out) / (ALPHA * (1.0 - ALPHA)))


@pytest.mark.parametrize(
    ("n", "k"),
    [
        (600, 10),
        (2_000, 50),
        (600, 100),
    ],
    ids=["60 rows a label", "40 rows a label", "6 rows a label"],
)
def test_held_out_agreement_varies_no_more_than_at_random(
    n: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unfitted = SimpleNamespace(out_of_fold=lambda serve: None)
    monkeypatch.setattr(fit, "fit_stages", lambda *args, **kwargs: unfitted)
    squares = sum(squared_error(n, k, seed) for seed in range(REPEATS))
    assert squares <= chi2.ppf(0.999, REPEATS)
