"""The parity gate: certify that handled traffic agrees with the teacher at least α of the time.

Learn-then-Test (Angelopoulos et al. 2021, arXiv 2110.01052) with fixed-sequence testing: policies
are ordered from strict to loose before the labels are looked at, each is tested for "agreement
< α" with an exact binomial p-value at level δ, and the walk stops at the first that cannot be
rejected. The last one rejected is certified:
P(agreement >= α) >= 1 - δ on traffic exchangeable with the evidence.

What is certified at α is never looser than what is certified at any lower α of GRID, so coverage
never grows with α although walks for a high α begin later. Being stricter costs no validity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.special import betainc, betaincinv

from shared.core.policies import MINIMUM_EVIDENCE, Evidence, Policies, policies
from shared.core.types import Floats, Kind, Mask
from shared.core.weighted_counts import Counts

# A walk begins not before so many disagreements would still pass: a matter of sizes, not of labels.
START_DISAGREEMENTS = 2
# The default of "a new sample this many times the evidence must show the agreement too": what is
# only just true of the traffic, a third of all samples would seem to refute (docs/gate.md).
NEXT_SAMPLE = 0.25
LASTING_SHARE = 0.8
# Where a walk begins depends on α, in cells of this grid.
GRID = tuple(np.round(np.arange(0.5, 0.9999, 0.005), 3).tolist())


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
    """No policy could be certified."""

    alpha: float
    delta: float
    kind: Kind
    reason: str
    n_evidence: int


def agreement_lower(counts: Counts, delta: float) -> Floats:
    """Exact (Clopper-Pearson) lower bounds at level 1 - delta.

    Source: Clopper and Pearson 1934.
    """
    agreed = np.maximum(counts.size - counts.errors, 0.0)
    some = np.maximum(agreed, 1e-9)
    return np.where(agreed > 0, betaincinv(some, counts.errors + 1.0, delta), 0.0)


def p_values(counts: Counts, alpha: float) -> Floats:
    """P(at most this many disagreements | true agreement = alpha), exact binomial tails."""
    agreed = counts.size - counts.errors
    some = np.maximum(agreed, 1e-9)
    return np.where(agreed > 0, betainc(some, counts.errors + 1.0, alpha), 1.0)


def sample_p_values(counts: Counts, alpha: float, next_sample: float) -> Floats:
    """P(at most this many disagreements | a new sample, `next_sample` > 0 times the size, agrees
    less than alpha): exact for counts that are Poisson, a little strict for binomial ones.

    Given both samples' disagreements together, each falls into the new one with probability
    next_sample / (1 + next_sample). Too many are more than (1 - alpha) of them, half a count being
    the average step from that to the next whole number. A new sample of weighted traffic is one
    observed alike. Source: Nelson 1970, prediction limits for Poisson counts.
    """
    too_many = (1.0 - alpha) * next_sample * counts.size + 0.5
    share = next_sample / (1.0 + next_sample)
    return np.asarray(betainc(too_many, counts.errors + 1.0, share))


@dataclass(frozen=True)
class Rule:
    """What a policy has to pass: the certificate's own test, and that a new sample of
    `next_sample` times the evidence would show the agreement too (0: no such test)."""

    alpha: float
    delta: float
    next_sample: float

    def certifies(self, counts: Counts) -> Mask:
        """bool[m]: agreement of the traffic is credibly alpha or more."""
        return np.asarray(p_values(counts, self.alpha) <= self.delta)

    def lasts(self, counts: Counts) -> Mask:
        """bool[m]: so is that of a new sample."""
        if self.next_sample <= 0:
            return np.ones(len(counts.size), dtype=np.bool_)
        found = sample_p_values(counts, self.alpha, self.next_sample)
        return np.asarray(found <= self.delta)

    def at(self, alpha: float) -> Rule:
        return replace(self, alpha=alpha)


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
    rule = Rule(max(alphas, default=0.0), delta, next_sample)
    begins = _begins(walked, rule, alphas)
    earlier = _earlier_failures(walked, rule, begins)
    answers = []
    for at_alpha in map(rule.at, alphas):
        walk = _lasting(walked, _walk(walked, at_alpha, begins, earlier), at_alpha)
        answers.append(_answer(walked, walk, evidence, at_alpha))
    return answers


# A test that ended a walk: the index of the policy, and the α.
_Failed = tuple[int, float]


@dataclass(frozen=True)
class _Walk:
    """first, end: indices of the first policy tested at α and of the last one certified, which is
    before `first` for none. failed: what ended the walk, if something did."""

    first: int
    end: int
    failed: _Failed | None


def _walk(
    walked: Policies, rule: Rule, begins: dict[float, int], earlier: dict[float, _Failed]
) -> _Walk:
    """The walk at the rule's α, cut short by those at lower α of GRID.

    A policy that passes at one α passes at every lower one, so a walk at a lower α can only fail at
    policies before the one where the walk at the next α begins.
    """
    if not len(walked):
        return _Walk(0, -1, None)
    first = begins[_cell(rule.alpha)]
    failed = _failure(walked, rule, first, len(walked))
    below = max((cell for cell in begins if cell < _cell(rule.alpha)), default=0.0)
    failed = earlier.get(below, failed)
    return _Walk(first, (len(walked) if failed is None else failed[0]) - 1, failed)


def _lasting(walked: Policies, walk: _Walk, rule: Rule) -> _Walk:
    """The walk, back to the loosest policy whose agreement a new sample would show as well.

    All policies down to LASTING_SHARE of its coverage must, so that none is taken for a lucky
    handful. Any policy the walk has certified may be chosen, by whatever rule.
    """
    if rule.next_sample <= 0 or walk.end < walk.first:
        return walk
    counts = walked.handled[: walk.end + 1].counts(rule.alpha)
    fails = np.concatenate([[0], np.cumsum(~rule.lasts(counts))])
    coverage = walked.coverage[: walk.end + 1]
    narrower = np.searchsorted(coverage, LASTING_SHARE * coverage)
    lasting = np.flatnonzero(fails[1:] == fails[narrower])
    if len(lasting) and lasting[-1] >= walk.first:
        return _Walk(walk.first, int(lasting[-1]), walk.failed)
    risk = sample_p_values(counts, rule.alpha, rule.next_sample)
    worst = [
        begin + int(risk[begin : end + 1].argmax())
        for end, begin in enumerate(narrower.tolist())
        if end >= walk.first
    ]
    return _Walk(walk.first, walk.first - 1, (min(worst, key=risk.__getitem__), rule.alpha))


def _cell(alpha: float) -> float:
    return min((g for g in GRID if g >= alpha), default=alpha)


def _begins(walked: Policies, rule: Rule, alphas: Sequence[float]) -> dict[float, int]:
    """Where walks begin, by the sizes alone: the same within a cell of GRID, earlier in lower ones.

    Of all cells up to that of the largest α, from it down.
    """
    cells = {_cell(alpha) for alpha in alphas}
    cells |= {g for g in GRID if g <= max(cells, default=0.0)}
    begins: dict[float, int] = {}
    before = len(walked)
    for cell in sorted(cells, reverse=True) if len(walked) else ():
        some = walked.handled[:before].with_errors(START_DISAGREEMENTS)
        room = np.flatnonzero(rule.at(cell).certifies(some.counts(cell)))
        before = begins[cell] = int(room[0]) if len(room) else min(before, len(walked) - 1)
    return begins


def _earlier_failures(
    walked: Policies, rule: Rule, begins: dict[float, int]
) -> dict[float, _Failed]:
    """By α of GRID, the strictest policy that fails at it, or at a lower one, before the walk at
    the next α begins; none where there is none."""
    found: dict[float, _Failed] = {}
    cells = sorted(begins)
    last: _Failed | None = None
    for cell, above in pairwise(cells):
        failed = _failure(walked, rule.at(cell), begins[cell], begins[above])
        last = min(filter(None, (last, failed)), default=None)
        if last is not None:
            found[cell] = last
    return found


def _failure(walked: Policies, rule: Rule, begin: int, end: int) -> _Failed | None:
    """The first of the policies that does not pass."""
    if begin >= end:
        return None
    failures = np.flatnonzero(~rule.certifies(walked.handled[begin:end].counts(rule.alpha)))
    return (begin + int(failures[0]), rule.alpha) if len(failures) else None


def _answer(walked: Policies, walk: _Walk, evidence: Evidence, rule: Rule) -> Certified | Refused:
    if walk.end < walk.first:
        return Refused(
            alpha=rule.alpha,
            delta=rule.delta,
            kind=evidence.kind,
            reason=_why(walked, walk, evidence, rule),
            n_evidence=len(evidence),
        )
    counts = walked.handled[walk.end : walk.end + 1].counts(rule.alpha)
    return Certified(
        alpha=rule.alpha,
        delta=rule.delta,
        next_sample=rule.next_sample,
        kind=evidence.kind,
        threshold=float(walked.threshold[walk.end]),
        coverage=float(walked.coverage[walk.end]),
        agreement=float(walked.agreement[walk.end]),
        agreement_lower=float(agreement_lower(counts, rule.delta)[0]),
        n_evidence=len(evidence),
    )


def _why(walked: Policies, walk: _Walk, evidence: Evidence, rule: Rule) -> str:
    if len(evidence) < MINIMUM_EVIDENCE:
        return (
            f"{len(evidence)} traces are too few to certify anything: "
            f"needs about {MINIMUM_EVIDENCE - len(evidence)} more"
        )
    if walk.failed is None:
        return "every trace looks unlike the others (out of distribution)"
    at, alpha = walk.failed
    agreement = float(walked.agreement[at])
    surest = f"agreement on the surest {walked.coverage[at]:.0%} of the traffic"
    if agreement <= alpha:
        found = f"{surest} is only {agreement:.3f}, below α = {alpha}"
    else:
        found = (
            f"{surest} is {agreement:.3f}, above α = {alpha} but not yet credibly: "
            f"needs about {_more_traces(walked, walk.failed, evidence, rule)} more traces"
        )
    if at >= walk.first or alpha == rule.alpha:
        return found
    return (
        f"{found}. On the surest {walked.coverage[walk.first]:.0%} it is "
        f"{walked.agreement[walk.first]:.3f}, credibly above α = {rule.alpha}, but what fails at "
        f"α = {alpha} is not certified at a higher one: the surest answers are not the best ones, "
        "look at those that are wrong"
    )


def _more_traces(walked: Policies, failed: _Failed, evidence: Evidence, rule: Rule) -> int:
    """How many more would be enough, all that was seen growing in proportion."""
    at, alpha = failed
    counts = walked.handled[at : at + 1].counts(alpha)
    times = 1.0
    while times < 1e9:
        grown = Counts(counts.errors * times, counts.size * times)
        part = Counts(grown.errors * LASTING_SHARE, grown.size * LASTING_SHARE)
        if rule.at(alpha).certifies(grown) and rule.at(alpha).lasts(part):
            break
        times *= 1.05
    return max(int(np.ceil((times - 1.0) * len(evidence))), 1)


def with_reason(refused: Refused, reason: str) -> Refused:
    """The same refusal for another reason."""
    return replace(refused, reason=reason)
