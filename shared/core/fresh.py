"""A version on traces it was not fitted on, and what that means beside a challenger."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from shared.core.shares import share_of
from shared.core.types import Floats, Ints, Mask

# A certified challenger replaces the incumbent unless that covers this much more: it has seen
# newer traces, and a day's coverage is known to about a point.
KEEP_MARGIN = 0.01


class Verdict(StrEnum):
    """What a closed window means for the version in use."""

    REPLACED = "replaced"
    KEPT = "kept"
    RETIRED = "retired"


@dataclass(frozen=True)
class Fresh:
    """A version on fresh evidence. agreement and its bounds (each at level 1 - δ) are None where
    it handled nothing."""

    n: int
    coverage: float
    agreement: float | None = None
    lower: float | None = None
    upper: float | None = None


def fresh(handled: Mask, agrees: Mask, groups: Ints, weights: Floats, delta: float) -> Fresh:
    """Of n rows observed with one over their weights as probability; near-duplicates share a
    group (`share_of` has the bounds: valid whichever rows are the wrong ones)."""
    found = share_of(agrees[handled], weights[handled], groups[handled], delta)
    if found is None:
        return Fresh(len(handled), 0.0)
    return Fresh(
        n=len(handled),
        coverage=float(weights[handled].sum() / weights.sum()),
        agreement=found.share,
        lower=found.lower,
        upper=found.upper,
    )


def judge(
    incumbent: Fresh,
    *,
    certified_coverage: float,
    challenger_coverage: float | None,
    alpha: float,
    still_valid: bool,
) -> Verdict:
    """certified_coverage: of the incumbent's certificate; challenger_coverage: of the challenger's,
    None for a refusal. still_valid: the incumbent's certificate is of the teacher and the labels of
    today.

    Certificates are compared with each other: they promise less than versions turn out to cover.
    """
    if challenger_coverage is not None:
        holds = incumbent.agreement is not None and incumbent.agreement >= alpha
        covers = min(incumbent.coverage, certified_coverage)
        ahead = covers > challenger_coverage + KEEP_MARGIN
        return Verdict.KEPT if still_valid and holds and ahead else Verdict.REPLACED
    fails = incumbent.upper is not None and incumbent.upper < alpha
    return Verdict.RETIRED if fails or not still_valid else Verdict.KEPT
