"""The guarantee where the version was silenced for a while: on probation, or for a raised α.

Then the requests that it is sure of are deferred with that reason and seen whole, while those it is
unsure of are deferred as ever. Taken for a sample of all traffic the former drown the latter, and
what does not hold was certified every time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.stats import binom

from shared.contracts.events import Reason, Source, Trace
from shared.core.gate import Certified, certify
from shared.core.policies import Evidence
from shared.fitting.stored import horizon_of
from shared.store.parquet import table_of

ALPHA, DELTA, SHARE = 0.95, 0.1, 0.02
UNSURE = 0.2  # of the traffic, with scores up to this
SURE_AGREE, UNSURE_AGREE = 0.98, 0.70
LOGGED, DAILY = 600, 3_000
WORLDS = 40
FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def world(rng: np.random.Generator, reason: Reason) -> tuple[list[Trace], np.ndarray, np.ndarray]:
    """A logged day, then one whose second half is silenced: traces, scores, whether they agree."""
    scores = rng.uniform(size=LOGGED + DAILY)
    agrees = rng.uniform(size=len(scores)) < np.where(scores > UNSURE, SURE_AGREE, UNSURE_AGREE)
    drawn = rng.uniform(size=len(scores)) < SHARE
    seen, traces = [], []
    for i, score in enumerate(scores.tolist()):
        how: dict[str, object] = {"source": Source.LOG}
        at = FIRST + timedelta(seconds=i)
        if i >= LOGGED:
            at += timedelta(days=1)
            how = {"source": Source.DEFERRED, "audit_share": SHARE, "drawn": bool(drawn[i])}
            if score <= UNSURE:
                how["deferral_reason"] = Reason.BELOW_THRESHOLD
            elif i >= LOGGED + DAILY // 2:
                how["deferral_reason"] = reason
            elif drawn[i]:
                how |= {"source": Source.AUDITED, "observation_probability": SHARE}
            else:
                continue
        seen.append(i)
        traces.append(
            Trace(id=f"{i:06d}", task="t", input=str(i), teacher="a", occurred_at=at, version="v",
                  **how)  # type: ignore[arg-type]
        )  # fmt: skip
    return traces, scores[seen], agrees[seen]


def true_agreement(threshold: float) -> float:
    unsure = max(0.0, UNSURE - threshold)
    sure = 1.0 - max(UNSURE, threshold)
    return (sure * SURE_AGREE + unsure * UNSURE_AGREE) / (sure + unsure)


@pytest.mark.parametrize("reason", [Reason.ALPHA_RAISED, Reason.PROBATION])
def test_requests_of_a_silenced_version_are_no_sample_of_the_traffic(reason: Reason) -> None:
    wrong, masses = 0, []
    for seed in range(WORLDS):
        traces, scores, agrees = world(np.random.default_rng(seed), reason)
        horizon = horizon_of(table_of(traces))
        assert horizon.evidence is not None
        assert horizon.weights is not None
        kept = horizon.evidence
        weights = horizon.weights[kept]
        masses.append(weights[scores[kept] <= UNSURE].sum() / weights.sum())
        evidence = Evidence(
            scores[kept], agrees[kept], np.arange(int(kept.sum())), weights, "crossfit",
            heaviest=horizon.heaviest,
        )  # fmt: skip
        found = certify(evidence, alpha=ALPHA, delta=DELTA)
        wrong += isinstance(found, Certified) and true_agreement(found.threshold) < ALPHA
    assert np.mean(masses) == pytest.approx(UNSURE, abs=0.02)
    assert wrong <= binom.ppf(0.99, WORLDS, DELTA)
