"""The parity gate: certify that handled traffic agrees with the teacher at least α of the time.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing: policies
"handle what scores at least t" are ordered from strict to loose before the labels are looked at,
each is tested for "agreement < α" with an exact binomial p-value at level δ, and the walk stops at
the first that cannot be rejected. The last one rejected is certified:
P(agreement >= α) >= 1 - δ on traffic exchangeable with the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv

from shared.core.grouping import effective_sizes
from shared.core.types import Floats, Ints, Kind, Mask

# Begun at the very strictest policy, the walk ends at its first unlucky handful.
START_COVERAGE = 0.2
STEPS = 200
MINIMUM_EVIDENCE = 50


@dataclass(frozen=True)
class Evidence:
    """Rows the gate may look at: accept score, whether surrogate and teacher agree, weight.

    scores: float64[n]. agrees: bool[n]. groups: int64[n], near-duplicates share one and count as
    one. weights: float64[n] > 0, 1 for rows that represent themselves. kind: `holdout` rows took
    no part in fitting (exact); `crossfit` rows were scored out of fold (approximate: the served
    surrogate is refitted on all of them).
    """

    scores: Floats
    agrees: Mask
    groups: Ints
    weights: Floats
    kind: Kind

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Certified:
    """Handle what scores at least `threshold`. Coverage and agreement are measured on evidence."""

    alpha: float
    delta: float
    kind: Kind
    threshold: float
    coverage: float
    agreement: float
    agreement_lower: float
    n_evidence: int


@dataclass(frozen=True)
class Refused:
    """No policy could be certified. `best_agreement` is that of the strictest one tested."""

    alpha: float
    delta: float
    kind: Kind
    reason: str
    best_agreement: float
    n_evidence: int


@dataclass(frozen=True)
class _Step:
    threshold: float
    coverage: float
    agreement: float
    size: float  # effective number of independent rows handled


def agreement_lower(agreement: float, size: float, delta: float) -> float:
    """Exact (Clopper-Pearson) lower bound at level 1 - delta from `size` rows (may be fractional).

    Source: Clopper and Pearson 1934.
    """
    if size <= 0 or agreement <= 0:
        return 0.0
    errors = size * (1.0 - agreement)
    return float(betaincinv(size - errors, errors + 1.0, delta))


def p_value(agreement: float, size: float, alpha: float) -> float:
    """P(at most this many disagreements | true agreement = alpha), exact binomial tail."""
    if size <= 0 or agreement <= 0:
        return 1.0
    errors = size * (1.0 - agreement)
    return float(betainc(size - errors, errors + 1.0, alpha))


def certify(evidence: Evidence, *, alpha: float, delta: float) -> Certified | Refused:
    """Walk the policies from strict to loose and certify the loosest that all tests allow."""
    return frontier(evidence, (alpha,), delta)[0]


def frontier(
    evidence: Evidence, alphas: Sequence[float], delta: float
) -> list[Certified | Refused]:
    """The gate's answer at each α; coverage never grows with α."""
    policies = _policies(evidence)
    return [_walk(policies, evidence, alpha, delta) for alpha in alphas]


def _policies(evidence: Evidence) -> list[_Step]:
    """Policies of growing coverage, fixed by the scores alone."""
    n = len(evidence)
    if n < MINIMUM_EVIDENCE:
        return []
    order = np.argsort(-evidence.scores, kind="stable")
    scores, weights = evidence.scores[order], evidence.weights[order]
    handled = np.cumsum(weights)
    agreed = np.cumsum(weights * evidence.agrees[order])
    sizes = effective_sizes(evidence.groups[order], weights)
    stops = np.ceil(np.linspace(START_COVERAGE, 1.0, STEPS) * n).astype(np.int64)
    # Rows of equal score are handled together or not at all.
    stops = np.unique(np.searchsorted(-scores, -scores[stops - 1], side="right"))
    return [
        _Step(
            threshold=0.0 if stop == n else float(scores[stop - 1]),
            coverage=float(handled[stop - 1] / handled[-1]),
            agreement=float(agreed[stop - 1] / handled[stop - 1]),
            size=float(sizes[stop - 1]),
        )
        for stop in stops
    ]


def _walk(
    policies: Sequence[_Step], evidence: Evidence, alpha: float, delta: float
) -> Certified | Refused:
    walked = None
    for step in policies:
        if p_value(step.agreement, step.size, alpha) > delta:
            break
        walked = step
    if walked is None:
        first = policies[0] if policies else None
        return Refused(
            alpha=alpha,
            delta=delta,
            kind=evidence.kind,
            reason=_why(evidence, first, alpha, delta),
            best_agreement=first.agreement if first else 0.0,
            n_evidence=len(evidence),
        )
    return Certified(
        alpha=alpha,
        delta=delta,
        kind=evidence.kind,
        threshold=walked.threshold,
        coverage=walked.coverage,
        agreement=walked.agreement,
        agreement_lower=agreement_lower(walked.agreement, walked.size, delta),
        n_evidence=len(evidence),
    )


def _why(evidence: Evidence, first: _Step | None, alpha: float, delta: float) -> str:
    if first is None:
        return (
            f"{len(evidence)} traces are too few to certify anything: "
            f"needs about {MINIMUM_EVIDENCE - len(evidence)} more"
        )
    if first.agreement > alpha:
        # The size at which the agreement seen would be enough, by the normal approximation's rate.
        size = first.size
        while size < 1e9 and p_value(first.agreement, size, alpha) > delta:
            size *= 1.1
        more = int(np.ceil((size / first.size - 1.0) * len(evidence)))
        return (
            f"agreement on the surest {first.coverage:.0%} is {first.agreement:.3f}, above "
            f"α = {alpha} but not yet credibly: needs about {more} more traces"
        )
    return (
        f"agreement on the surest {first.coverage:.0%} of the traffic is only "
        f"{first.agreement:.3f}, below α = {alpha}"
    )
