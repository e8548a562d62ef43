"""Which traces of a long horizon a fit looks at: a known probability each, minorities whole.

A row is kept with a probability that depends on its stratum (day, label, way of observing) alone,
by a hash of its id. So whether it is kept depends neither on the order of arrival nor on its text,
and one over that probability, times what it stood for before, is what it stands for now: the bounds
that hold for audits hold for what is kept. Rows kept at one size are, but for a few, kept at any
larger one, so that embeddings made once serve again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from shared.core.types import Floats

# A purpose of its own: other draws by a hash of the id (audits, canaries) tell nothing of this one.
_PERSON = b"tracer-reservoir"
# The number kept is random: in all but one of a thousand cases it stays below what was asked for.
STANDARD_ERRORS = 3.0


def keep_probabilities(count: Floats, mass: Floats, age: Floats, *, most: int,
                       half_life: float | None = None) -> Floats:  # fmt: skip
    """float64[s] in (0, 1]: the probability with which each stratum's rows are kept.

    count: float64[s], rows; mass: float64[s], the traffic they stand for; age: float64[s], in days.
    At most about `most` rows are kept in all. Expected numbers grow with the root of the mass
    (power allocation, Bankier 1988), between equal numbers, best for what is rare, and
    proportional ones, best for the whole; a stratum that has fewer rows than that is kept whole.
    half_life: a day counts half as much each so many days; None for no such thing.
    """
    if count.sum() <= most:
        return np.ones(len(count))
    target = max(most - STANDARD_ERRORS * np.sqrt(most), 1.0)
    pull = np.sqrt(mass)
    if half_life is not None:
        pull = pull * 0.5 ** (age / half_life)
    pull = np.maximum(pull, 1e-12 * pull.max())
    # Strata are kept whole in the order of count / pull: find how many, then what is left to share.
    order = np.argsort(count / pull, kind="stable")
    whole = np.concatenate([[0.0], np.cumsum(count[order])])
    rest = np.concatenate([np.cumsum(pull[order][::-1])[::-1], [0.0]])
    with np.errstate(divide="ignore"):
        each = np.where(rest > 0, (target - whole) / rest, np.inf)  # rows per pull, if i are whole
    fits = each[:-1] <= (count / pull)[order]  # the next stratum is not kept whole any more
    return np.asarray(np.minimum(1.0, each[int(fits.argmax())] * pull / count))


def draws(ids: Sequence[str]) -> Floats:
    """float64[n] in [0, 1): a row is kept where this is below its probability."""
    digests = b"".join(
        hashlib.blake2b(row.encode(errors="surrogatepass"), digest_size=8, person=_PERSON).digest()
        for row in ids
    )
    # 53 bits are what a float holds.
    return (np.frombuffer(digests, dtype=">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53
