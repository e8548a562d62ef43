"""MAPIE's risk control on the same evidence: it certifies no more, and neither of us too much."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController
from simulation import ALPHA, DELTA, REPEATS, allowed, certified
from worlds import true_agreement, world

from shared.core.policies import START_COVERAGE, Evidence

REPEATS_OF_BOTH = max(50, REPEATS // 10)
# From strict to loose, from the coverage at which our walks begin, in steps about as fine as
# ours. Coarser ones stop later and end less exactly.
THRESHOLDS = np.linspace(1.0 - START_COVERAGE, 0.0, 201)


def mapie_threshold(evidence: Evidence, procedure: str) -> float | None:
    """The loosest threshold whose precision MAPIE controls, None for none."""
    controller = BinaryClassificationController(
        predict_function=lambda X: np.stack([1.0 - X[:, 0], X[:, 0]], axis=1),
        risk="precision",
        target_level=ALPHA,
        confidence_level=1.0 - DELTA,
        list_predict_params=THRESHOLDS,
        fwer_method=procedure,  # type: ignore[arg-type]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no threshold is valid
        controller.calibrate(evidence.scores, evidence.agrees[:, 0].astype(int))
    best = controller.best_predict_param
    return None if best is None else float(best)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("procedure", ["fixed_sequence", "bonferroni_holm"])
@pytest.mark.parametrize("agreement_at", [(0.7, 1.0), (0.88, 0.93)], ids=["steep", "flat"])
@pytest.mark.parametrize("n", [600, 2_000])
def test_mapie_certifies_no_more(n: int, agreement_at: tuple[float, float], procedure: str) -> None:
    ours, theirs = [], []
    for seed in range(REPEATS_OF_BOTH):
        evidence = world(n, seed, agreement_at=agreement_at)
        certificate = certified(evidence)
        ours.append(None if certificate is None else certificate.threshold)
        theirs.append(mapie_threshold(evidence, procedure))
    for thresholds in (ours, theirs):
        bad = sum(t is not None and true_agreement(t, agreement_at) < ALPHA for t in thresholds)
        assert bad <= allowed(REPEATS_OF_BOTH)
    # Scores are uniform: 1 - t of the traffic is answered.
    coverage = [np.mean([0.0 if t is None else 1.0 - t for t in each]) for each in (ours, theirs)]
    assert coverage[0] >= coverage[1] - 0.005
