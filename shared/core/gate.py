"""The parity gate: certify that handled traffic agrees with the teacher at least α of the time.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing: policies
"handle what scores at least t" are ordered from strict to loose before the labels are looked at,
each is tested for "agreement < α" with an exact binomial p-value at level δ, and the walk stops at
the first that cannot be rejected. The last one rejected is certified:
P(agreement >= α) >= 1 - δ on traffic exchangeable with the evidence.

What is certified at α is never looser than what is certified at any lower α of GRID, so coverage
never grows with α although walks for a high α begin later. Being stricter costs no validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, betaincinv

from shared.core.grouping import effective_sizes
from shared.core.types import Floats, Ints, Kind, Mask

# A walk begun at the very strictest policy ends at its first unlucky handful: it begins at 20%
# coverage, and not before two disagreements would still pass. Neither looks at a label.
START_COVERAGE = 0.2
START_DISAGREEMENTS = 2
STEPS = 200
MINIMUM_EVIDENCE = 50
# Where a walk begins depends on α, in cells of this grid.
GRID = tuple(np.round(np.arange(0.5, 0.9999, 0.005), 3).tolist())


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
class _Policies:
    """The walk's steps, float64[m] each: threshold, coverage, agreement and the effective number
    of independent rows handled."""

    threshold: Floats
    coverage: Floats
    agreement: Floats
    size: Floats

    def __len__(self) -> int:
        return len(self.threshold)


def agreement_lower(agreement: float, size: float, delta: float) -> float:
    """Exact (Clopper-Pearson) lower bound at level 1 - delta from `size` rows (may be fractional).

    Source: Clopper and Pearson 1934.
    """
    if size <= 0 or agreement <= 0:
        return 0.0
    errors = size * (1.0 - agreement)
    return float(betaincinv(size - errors, errors + 1.0, delta))


def p_values(agreement: Floats, size: Floats, alpha: float) -> Floats:
    """P(at most this many disagreements | true agreement = alpha), exact binomial tails."""
    errors = size * (1.0 - agreement)
    return np.where(agreement > 0, betainc(np.maximum(size - errors, 1e-9), errors + 1.0, alpha), 1)


def certify(evidence: Evidence, *, alpha: float, delta: float) -> Certified | Refused:
    """Walk the policies from strict to loose and certify the loosest that all tests allow."""
    return frontier(evidence, (alpha,), delta)[0]


def frontier(
    evidence: Evidence, alphas: Sequence[float], delta: float
) -> list[Certified | Refused]:
    """The gate's answer at each α; coverage never grows with α."""
    policies = _policies(evidence)
    ends = {alpha: _walk(policies, alpha, delta) for alpha in {*GRID, *alphas}}
    return [
        _answer(
            policies,
            min(end for at, end in ends.items() if at <= alpha),
            evidence,
            alpha,
            delta,
        )
        for alpha in alphas
    ]


def _policies(evidence: Evidence) -> _Policies:
    """Policies of growing coverage, fixed by the scores alone; none where rows are too few."""
    n = len(evidence)
    if n < MINIMUM_EVIDENCE:
        return _Policies(*(np.empty(0) for _ in range(4)))
    order = np.argsort(-evidence.scores, kind="stable")
    scores, weights = evidence.scores[order], evidence.weights[order]
    handled = np.cumsum(weights)
    agreed = np.cumsum(weights * evidence.agrees[order])
    sizes = effective_sizes(evidence.groups[order], weights)
    stops = np.ceil(np.linspace(START_COVERAGE, 1.0, STEPS) * n).astype(np.int64)
    # Rows of equal score are handled together or not at all.
    last = np.unique(np.searchsorted(-scores, -scores[stops - 1], side="right")) - 1
    return _Policies(
        threshold=np.where(last == n - 1, 0.0, scores[last]),
        coverage=handled[last] / handled[-1],
        agreement=agreed[last] / handled[last],
        size=sizes[last],
    )


def _walk(policies: _Policies, alpha: float, delta: float) -> int:
    """Index of the last policy certified at α, -1 for none."""
    if not len(policies):
        return -1
    first = _first(policies, alpha, delta)
    passed = p_values(policies.agreement[first:], policies.size[first:], alpha) <= delta
    failures = np.flatnonzero(~passed)
    passes = int(failures[0]) if len(failures) else len(passed)
    return first + passes - 1 if passes else -1


def _first(policies: _Policies, alpha: float, delta: float) -> int:
    """Where the walk for α begins; by the sizes alone, the same within a cell of GRID."""
    cell = min((g for g in GRID if g >= alpha), default=alpha)
    perfect = 1.0 - START_DISAGREEMENTS / np.maximum(policies.size, START_DISAGREEMENTS)
    room = np.flatnonzero(p_values(perfect, policies.size, cell) <= delta)
    return int(room[0]) if len(room) else len(policies) - 1


def _answer(
    policies: _Policies, end: int, evidence: Evidence, alpha: float, delta: float
) -> Certified | Refused:
    if end < 0:
        first = _first(policies, alpha, delta) if len(policies) else None
        return Refused(
            alpha=alpha,
            delta=delta,
            kind=evidence.kind,
            reason=_why(policies, first, evidence, alpha, delta),
            best_agreement=0.0 if first is None else float(policies.agreement[first]),
            n_evidence=len(evidence),
        )
    agreement, size = float(policies.agreement[end]), float(policies.size[end])
    return Certified(
        alpha=alpha,
        delta=delta,
        kind=evidence.kind,
        threshold=float(policies.threshold[end]),
        coverage=float(policies.coverage[end]),
        agreement=agreement,
        agreement_lower=agreement_lower(agreement, size, delta),
        n_evidence=len(evidence),
    )


def _why(
    policies: _Policies, first: int | None, evidence: Evidence, alpha: float, delta: float
) -> str:
    if first is None:
        return (
            f"{len(evidence)} traces are too few to certify anything: "
            f"needs about {MINIMUM_EVIDENCE - len(evidence)} more"
        )
    agreement, size = float(policies.agreement[first]), float(policies.size[first])
    surest = f"agreement on the surest {policies.coverage[first]:.0%} of the traffic"
    if agreement <= alpha:
        return f"{surest} is only {agreement:.3f}, below α = {alpha}"
    # The size at which what was seen would be enough, all else growing in proportion.
    enough = size
    while enough < 1e9 and p_values(np.asarray(agreement), np.asarray(enough), alpha) > delta:
        enough *= 1.05
    more = int(np.ceil((enough / size - 1.0) * len(evidence)))
    return (
        f"{surest} is {agreement:.3f}, above α = {alpha} but not yet credibly: "
        f"needs about {max(more, 1)} more traces"
    )
