"""The guarantee where the teacher gives answers that are none of the task's labels.

No surrogate can give them, so each is a disagreement on live traffic. Left out of the evidence,
what agrees on the rest alone was certified every time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binom

from shared.contracts.events import Trace
from shared.core.gate import Certified, certify
from shared.core.policies import Evidence
from shared.fitting.stored import horizon_of
from shared.store.parquet import table_of

ALPHA, DELTA = 0.95, 0.1
N, WORLDS = 1_500, 60
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def world(rng: np.random.Generator, odd: float, wrong: float) -> list[Trace]:
    """Of a surrogate that always says "a": shares of odd answers and of another label's."""
    drawn = rng.uniform(size=N)
    answers = np.where(drawn < odd, "refusal", np.where(drawn < odd + wrong, "b", "a"))
    return [
        Trace(id=f"{i:05d}", task="t", input=str(i), teacher=str(answer),
              occurred_at=FIRST + timedelta(seconds=i))
        for i, answer in enumerate(answers)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("odd", "wrong", "holds"), [(0.08, 0.01, False), (0.04, 0.012, False), (0.01, 0.01, True)]
)
def test_an_answer_that_no_surrogate_can_give_is_a_disagreement(
    odd: float, wrong: float, holds: bool
) -> None:
    assert holds == (1 - odd - wrong >= ALPHA)
    certified = 0
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        horizon = horizon_of(table_of(world(rng, odd, wrong)), taxonomy=["a", "b"])
        assert horizon.evidence is not None
        agrees = np.asarray(horizon.teacher) == "a"
        evidence = Evidence(
            rng.uniform(size=len(horizon)),
            agrees,
            np.arange(len(horizon)),
            horizon.weights,
            "crossfit",
            heaviest=horizon.heaviest,
        )
        certified += isinstance(certify(evidence, alpha=ALPHA, delta=DELTA), Certified)
    if holds:
        assert certified > WORLDS / 2
    else:
        assert certified <= binom.ppf(0.99, WORLDS, DELTA)
