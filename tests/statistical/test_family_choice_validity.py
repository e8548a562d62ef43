"""The guarantee where the family and its floors are chosen from data, as `decide` does it."""

from __future__ import annotations

import numpy as np
import pytest
from simulation import ALPHA, DELTA, JUST_BELOW, REPEATS, allowed
from stubs import prepared, rows_of

from shared.core.fit import Settings, decide
from shared.core.gate import Certified
from shared.core.training import TrainingSet
from shared.core.types import Kind


def rows(n: int, rng: np.random.Generator) -> TrainingSet:
    """Two stages that agree with the teacher, who always says 1, just too rarely, whatever their
    scores; those go together."""
    first, other = rng.uniform(size=(2, n))
    agrees = rng.uniform(size=(n, 2)) < JUST_BELOW
    scores = np.stack([first, 0.7 * first + 0.3 * other], axis=1)
    return rows_of(agrees.astype(np.int64), scores, np.ones(n, np.int64), 2)


# Cross-fitted rows choose the family and certify it: the best of thirty walks, no theorem.
@pytest.mark.usefixtures("nothing_to_fit")
@pytest.mark.parametrize(("kind", "share"), [("holdout", DELTA), ("crossfit", 2.5 * DELTA)])
def test_every_certificate_would_be_wrong(kind: Kind, share: float) -> None:
    settings = Settings(alpha=ALPHA, delta=DELTA, kind=kind, next_sample=0.0)
    bad = 0
    for seed in range(REPEATS):
        rng = np.random.default_rng(seed)
        fitted_on, held_out = rows(200, rng), rows(200, rng)
        fitted = decide(prepared(fitted_on, held_out if kind == "holdout" else None), settings)
        bad += isinstance(fitted.verdict, Certified)
    assert bad <= allowed(share=share)
