"""What all simulations have in common: how often, at which level, and what is allowed.

`TRACER_REPEATS` makes them long (`make stat`); the quick form runs in `make test`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from scipy.stats import binom

from shared.core.gate import Certified, certify
from shared.core.policies import Evidence

REPEATS = int(os.environ.get("TRACER_REPEATS", "200"))
# Of simulations that take a good part of a second each.
FITS = max(25, REPEATS // 10)
ALPHA = 0.9
DELTA = 0.1
# Agreement that makes every policy a wrong one.
JUST_BELOW = ALPHA - 1e-9


def allowed(repeats: int = REPEATS, share: float = DELTA) -> int:
    """The most violations that do not refute "at most `share`" at one in a thousand."""
    return int(binom.ppf(0.999, repeats, share))


def certified(evidence: Evidence, next_sample: float = 0.0) -> Certified | None:
    """The gate's certificate of the traffic (and of a next sample, if asked for), if it gives one.

    That of the traffic alone is the looser one: what holds for it holds for the other.
    """
    verdict = certify(evidence, alpha=ALPHA, delta=DELTA, next_sample=next_sample)
    return verdict if isinstance(verdict, Certified) else None


def wrong_certificates(
    evidence: Callable[[int], Evidence], agreement: Callable[[float], float]
) -> int:
    """How many of REPEATS seeds give a policy certified whose true agreement is below α."""
    bad = 0
    for seed in range(REPEATS):
        certificate = certified(evidence(seed))
        bad += certificate is not None and agreement(certificate.threshold) < ALPHA
    return bad
