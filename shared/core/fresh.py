"""A version on traces it was not fitted on, and what that means beside a challenger."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scipy.special import betaincinv

from shared.core.grouping import copies
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
    """A version on fresh evidence. agreement and its bounds (each at level 1 - δ, Clopper and
    Pearson 1934) are None where it handled nothing."""

    n: int
    coverage: float
    agreement: float | None = None
    lower: float | None = None
    upper: float | None = None


def fresh(handled: Mask, agrees: Mask, groups: Ints, weights: Floats, delta: float) -> Fresh:
    """Of n rows observed with one over their weights as probability; near-duplicates share a
    group. The bounds are of as many rows as weights and copies leave (Kish 1965)."""
    if not len(handled) or not handled.any():
        return Fresh(len(handled), 0.0)
    mass = weights[handled]
    times = copies(groups[handled], mass)[-1]
    size = float(mass.sum() ** 2 / (times * (mass**2).sum()))
    agreement = float(mass @ agrees[handled] / mass.sum())
    errors = size * (1.0 - agreement)
    return Fresh(
        n=len(handled),
        coverage=float(mass.sum() / weights.sum()),
        agreement=agreement,
        lower=float(betaincinv(size - errors, errors + 1.0, delta)) if agreement > 0 else 0.0,
        upper=float(betaincinv(size - errors + 1.0, errors, 1.0 - delta)) if errors > 0 else 1.0,
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
