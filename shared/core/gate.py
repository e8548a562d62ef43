"""The parity gate: certify that handled traffic agrees with the teacher at least α of the time.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing: policies
are ordered from strict to loose before the labels are looked at, each is tested for "agreement
< α" with an exact binomial p-value at level δ, and the walk stops at the first that cannot be
rejected. The last one rejected is certified:
P(agreement >= α) >= 1 - δ on traffic exchangeable with the evidence.

A policy is one number t for a whole cascade: a request is answered by the first stage whose accept
score reaches max(t, that stage's floor). So one certificate covers the composite.

What is certified at α is never looser than what is certified at any lower α of GRID, so coverage
never grows with α although walks for a high α begin later. Being stricter costs no validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import betainc, betaincinv

from shared.core.cascade import Outputs
from shared.core.grouping import effective_sizes
from shared.core.types import Floats, Ints, Kind, Mask

# A walk begun at the very strictest policy ends at its first unlucky handful: it begins at 20%
# coverage, and not before two disagreements would still pass. Neither looks at a label.
START_COVERAGE = 0.2
START_DISAGREEMENTS = 2
STEPS = 1000
# The default of "a new sample this many times the evidence must show the agreement too": what is
# only just true of the traffic, a third of all samples would seem to refute (docs/gate.md).
NEXT_SAMPLE = 0.25
MINIMUM_EVIDENCE = 50
# Where a walk begins depends on α, in cells of this grid.
GRID = tuple(np.round(np.arange(0.5, 0.9999, 0.005), 3).tolist())
# A stage with this floor never answers.
NEVER = 2.0


@dataclass(frozen=True)
class Evidence:
    """Rows the gate may look at.

    scores: float64[n, s], each stage's accept score, negative where it may not answer; float64[n]
    will do for one stage. agrees: bool of the same shape, whether its label is the teacher's.
    groups: int64[n], near-duplicates share one and count as one. weights: float64[n] > 0, 1 for
    rows that represent themselves. floors: float[s], below which a stage does not answer however
    loose the policy. kind: `holdout` rows took no part in fitting (exact); `crossfit` rows were
    scored out of fold (approximate: the served surrogate is refitted on all of them).
    """

    scores: Floats
    agrees: Mask
    groups: Ints
    weights: Floats
    kind: Kind
    floors: tuple[float, ...] = (0.0,)

    def __post_init__(self) -> None:
        if self.scores.ndim == 1:
            object.__setattr__(self, "scores", self.scores[:, None])
            object.__setattr__(self, "agrees", self.agrees[:, None])

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Certified:
    """Answer at max(`threshold`, the stage's floor). Coverage and agreement are of the evidence."""

    alpha: float
    delta: float
    next_sample: float
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
class Policies:
    """The walk's steps, float64[m] each: threshold, coverage, agreement and the effective number
    of independent rows handled."""

    threshold: Floats
    coverage: Floats
    agreement: Floats
    size: Floats

    def __len__(self) -> int:
        return len(self.threshold)


def evidence_of(
    outputs: Outputs, y: Ints, groups: Ints, weights: Floats, kind: Kind,
    floors: tuple[float, ...],
) -> Evidence:  # fmt: skip
    """What the gate may look at, from what the stages said of rows the teacher labelled `y`."""
    return Evidence(outputs.eligible, outputs.label == y[:, None], groups, weights, kind, floors)


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


def sample_p_values(agreement: Floats, size: Floats, alpha: float, next_sample: float) -> Floats:
    """P(at most this many disagreements | a new sample, `next_sample` > 0 times the size, agrees
    less than alpha): exact for counts that are Poisson, a little strict for binomial ones.

    Given both samples' disagreements together, each falls into the new one with probability
    next_sample / (1 + next_sample). Too many are more than (1 - alpha) of them, half a count being
    the average step from that to the next whole number. Source: Nelson 1970, prediction limits
    for Poisson counts.
    """
    errors = size * (1.0 - agreement)
    too_many = (1.0 - alpha) * next_sample * size + 0.5
    return np.asarray(betainc(too_many, errors + 1.0, next_sample / (1.0 + next_sample)))


@dataclass(frozen=True)
class Rule:
    """What a policy has to pass: the certificate's own test, and that a new sample of
    `next_sample` times the evidence would show the agreement too (0: no such test)."""

    alpha: float
    delta: float
    next_sample: float

    def passes(self, agreement: Floats, size: Floats, alpha: float | None = None) -> Mask:
        """bool[m]; at another `alpha` than the rule's, if given."""
        alpha = self.alpha if alpha is None else alpha
        passed = p_values(agreement, size, alpha) <= self.delta
        if self.next_sample > 0:
            passed &= sample_p_values(agreement, size, alpha, self.next_sample) <= self.delta
        return np.asarray(passed)


def certify(
    evidence: Evidence, *, alpha: float, delta: float, next_sample: float = NEXT_SAMPLE
) -> Certified | Refused:
    """Walk the policies from strict to loose and certify the loosest that all tests allow."""
    return frontier(evidence, (alpha,), delta, next_sample)[0]


def frontier(
    evidence: Evidence,
    alphas: Sequence[float],
    delta: float,
    next_sample: float = NEXT_SAMPLE,
) -> list[Certified | Refused]:
    """The gate's answer at each α; coverage never grows with α."""
    walked = policies(evidence)
    ends = {alpha: _walk(walked, Rule(alpha, delta, next_sample)) for alpha in {*GRID, *alphas}}
    return [
        _answer(
            walked,
            min(end for at, end in ends.items() if at <= alpha),
            evidence,
            Rule(alpha, delta, next_sample),
        )
        for alpha in alphas
    ]


def policies(evidence: Evidence) -> Policies:
    """Policies of growing coverage, fixed by the scores alone; none where rows are too few."""
    n = len(evidence)
    if n < MINIMUM_EVIDENCE:
        return Policies(*(np.empty(0) for _ in range(4)))
    reached, agreed = _events(evidence)
    handled_at = _reach(evidence).max(axis=1)
    order = np.argsort(-handled_at, kind="stable")
    levels = handled_at[order]
    n_handled = int((levels >= 0).sum())
    if not n_handled:
        return Policies(*(np.empty(0) for _ in range(4)))
    stops = np.unique(np.ceil(np.linspace(START_COVERAGE, 1.0, STEPS) * n).astype(np.int64))
    stops = np.unique(np.minimum(stops, n_handled))
    # Rows of equal score are handled together or not at all.
    last = np.unique(np.searchsorted(-levels, -levels[stops - 1], side="right")) - 1
    last = last[last < n_handled]
    threshold = np.where(last == n_handled - 1, 0.0, levels[last])
    weight = np.cumsum(evidence.weights[order])
    seen = np.searchsorted(-reached, -threshold, side="right")
    sizes = effective_sizes(evidence.groups[order], evidence.weights[order])
    return Policies(
        threshold=threshold,
        coverage=weight[last] / weight[-1],
        agreement=np.clip(agreed[seen - 1] / weight[last], 0.0, 1.0),
        size=sizes[last],
    )


def answers(evidence: Evidence, threshold: float) -> Ints:
    """int64[n]: the stage that answers each row at a threshold, -1 for none."""
    takes = _reach(evidence) >= threshold
    return np.where(takes.any(axis=1), takes.argmax(axis=1), -1)


def _reach(evidence: Evidence) -> Floats:
    """float64[n, s]: the loosest threshold at which a stage still answers; negative for never."""
    able = (evidence.scores >= np.asarray(evidence.floors)) & (evidence.scores >= 0)
    return np.where(able, evidence.scores, -1.0)


def _events(evidence: Evidence) -> tuple[Floats, Floats]:
    """As the threshold falls: where something changes, and the agreeing weight from there on.

    A row changes hands when an earlier stage comes within its reach.
    """
    reach = _reach(evidence)
    n, s = reach.shape
    order = np.argsort(-reach, axis=1, kind="stable")
    current = np.full(n, s)
    counted = np.zeros(n)
    at, change = [], []
    for rank in range(s):
        stage = order[:, rank]
        level = reach[np.arange(n), stage]
        takes_over = (stage < current) & (level >= 0)
        agrees = evidence.weights * evidence.agrees[np.arange(n), stage]
        at.append(level[takes_over])
        change.append((agrees - counted)[takes_over])
        counted = np.where(takes_over, agrees, counted)
        current = np.where(takes_over, stage, current)
    levels, changes = np.concatenate(at), np.concatenate(change)
    falling = np.argsort(-levels, kind="stable")
    return levels[falling], np.cumsum(changes[falling])


def _walk(walked: Policies, rule: Rule) -> int:
    """Index of the last policy certified, -1 for none."""
    if not len(walked):
        return -1
    first = _first(walked, rule)
    failures = np.flatnonzero(~rule.passes(walked.agreement[first:], walked.size[first:]))
    passes = int(failures[0]) if len(failures) else len(walked) - first
    return first + passes - 1 if passes else -1


def _first(walked: Policies, rule: Rule) -> int:
    """Where the walk begins; by the sizes alone, the same within a cell of GRID."""
    cell = min((g for g in GRID if g >= rule.alpha), default=rule.alpha)
    perfect = 1.0 - START_DISAGREEMENTS / np.maximum(walked.size, START_DISAGREEMENTS)
    room = np.flatnonzero(rule.passes(perfect, walked.size, cell))
    return int(room[0]) if len(room) else len(walked) - 1


def _answer(walked: Policies, end: int, evidence: Evidence, rule: Rule) -> Certified | Refused:
    if end < 0 or end < _first(walked, rule):  # never tested at this α: no certificate
        first = _first(walked, rule) if len(walked) else None
        return Refused(
            alpha=rule.alpha,
            delta=rule.delta,
            kind=evidence.kind,
            reason=_why(walked, first, evidence, rule),
            best_agreement=0.0 if first is None else float(walked.agreement[first]),
            n_evidence=len(evidence),
        )
    agreement, size = float(walked.agreement[end]), float(walked.size[end])
    return Certified(
        alpha=rule.alpha,
        delta=rule.delta,
        next_sample=rule.next_sample,
        kind=evidence.kind,
        threshold=float(walked.threshold[end]),
        coverage=float(walked.coverage[end]),
        agreement=agreement,
        agreement_lower=agreement_lower(agreement, size, rule.delta),
        n_evidence=len(evidence),
    )


def _why(walked: Policies, first: int | None, evidence: Evidence, rule: Rule) -> str:
    if len(evidence) < MINIMUM_EVIDENCE:
        return (
            f"{len(evidence)} traces are too few to certify anything: "
            f"needs about {MINIMUM_EVIDENCE - len(evidence)} more"
        )
    if first is None:
        return "every trace looks unlike the others (out of distribution)"
    agreement, size = float(walked.agreement[first]), float(walked.size[first])
    surest = f"agreement on the surest {walked.coverage[first]:.0%} of the traffic"
    if agreement <= rule.alpha:
        return f"{surest} is only {agreement:.3f}, below α = {rule.alpha}"
    # The size at which what was seen would be enough, all else growing in proportion.
    enough = size
    while enough < 1e9 and not rule.passes(np.asarray(agreement), np.asarray(enough)):
        enough *= 1.05
    more = int(np.ceil((enough / size - 1.0) * len(evidence)))
    return (
        f"{surest} is {agreement:.3f}, above α = {rule.alpha} but not yet credibly: "
        f"needs about {max(more, 1)} more traces"
    )


def with_reason(refused: Refused, reason: str) -> Refused:
    """The same refusal for another reason."""
    return replace(refused, reason=reason)
