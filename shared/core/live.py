"""The live certificate of one version: what its audits say of agreement, valid at every moment.

Audits are a uniform sample of the handled requests, in order of arrival; each agrees with the
teacher or not. Three questions, all by mixtures of likelihood ratios (Ville 1939: a non-negative
martingale that begins at 1 ever reaches 1/δ with probability δ at most):

- *Tripped*: has agreement credibly fallen below α, at whatever time? False trips over a whole
  life have probability δ at most, as long as agreement is α or more.
- *Suspicious*: does it look so? Much faster, and now and then wrong: with agreement just α once
  in FALSE_ALARM_EVERY audits on average, or less often.
- *Cleared*: is it so again, on audits since suspicion led to a probation?

A disagreement rate q against 1 - α weighs q/(1 - α) per disagreement and (1 - q)/α per agreement.
For every q above 1 - α this is a supermartingale at any true rate up to 1 - α, also a changing
one. The prior over q is a small grid, not a density: then a mixture over *all* starting points is
one number per q, R(q) ← (R(q) + weight of the starting point) · ratio, and neither time nor memory
grows. Source: Shiryaev 1963, Roberts 1966; as e-processes Shin, Ramdas and Rinaldo 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from shared.core.types import Floats

# With agreement just α, false suspicions are as rare as this, in audits on average. At 250 the
# wrong answers before a suspicion are a fifth fewer, and a version at α that is audited at 20%
# spends a fifth of its life on probation.
FALSE_ALARM_EVERY = 500
# Probation ends when the rate of disagreement is not this much above 1 - α ...
WORSE_POINTS = 0.03
WORSE_SHARE = 0.6  # ... or this share of 1 - α, where that is less, ...
WRONGLY_CLEARED = 0.04  # ... but for this probability, and not before so many audits.
PROBATION_AUDITS = 100
# What a good version may show instead, as parts of 1 - α.
GOOD_RATES = (0.1, 0.4, 0.7, 0.9)
# Tilts of the bound: each is the best one at some number of audits, up to some 100,000.
TILTS = -np.geomspace(0.02, 4.0, 20)
STEPS = 30
# Where the product of ratios is kept; beyond it nothing is decided.
LARGEST = 1e200


@dataclass(frozen=True)
class Prior:
    """What a failing version may look like; how good the guess is decides the delay, not validity.

    odds: of disagreement, as multiples of those at α, and their weights: mostly what a broken
    surrogate shows, a little for hardly below α and for far below. from_the_start: the weight of
    "below α since its first audit". The rest is spread over later beginnings: half of it over the
    first `half_life` audits, half of what is left over the next two of these, and so on.
    Chosen by `make bench-live`.
    """

    odds: tuple[float, ...] = (1.15, 1.5, 1.8, 2.2, 2.7, 3.3, 8.0)
    weights: tuple[float, ...] = (1, 9, 9, 8, 7, 5, 1)
    from_the_start: float = 0.6
    half_life: int = 500

    def rates(self, alpha: float) -> Floats:
        """float64[q]: rates of disagreement."""
        odds = (1.0 - alpha) / alpha * np.asarray(self.odds)
        return np.asarray(odds / (1.0 + odds))

    def unborn(self, n: int) -> float:
        """The weight of all beginnings after the first n audits."""
        return (1.0 - self.from_the_start) * self.half_life / (n + self.half_life)


PRIOR = Prior()


class LiveCertificate:
    """What is known of one version from its audits so far. Same outcomes, same state.

    alpha: the agreement it was certified for. delta: the level of `tripped` and of `lower`.
    Raises ValueError where they are not in (0, 1).
    """

    def __init__(self, alpha: float, delta: float, prior: Prior = PRIOR) -> None:
        if not (0.0 < alpha < 1.0 and 0.0 < delta < 1.0):
            raise ValueError(f"alpha and delta must be between 0 and 1, not {alpha} and {delta}")
        self.alpha = alpha
        self.delta = delta
        self.n = 0
        self.disagreements = 0
        self.tripped = False
        self.suspicious = False
        self.on_probation = False
        self.cleared = False
        self._prior = prior
        rates = prior.rates(alpha)
        self._agreeing = (1.0 - rates) / alpha
        self._disagreeing = rates / (1.0 - alpha)
        self._weights: Floats = np.asarray(prior.weights) / np.sum(prior.weights)
        # float64[2, q]: mixtures over starting points, of the trip (weighted) and of suspicion.
        self._mixtures = np.zeros((2, len(rates)))
        self._mixtures[0] = prior.from_the_start
        self._births = np.ones((2, 1))
        self._probation = Probation(alpha)

    def observe(self, agrees: bool) -> None:
        """One audit more, in order of arrival."""
        self._births[0, 0] = self._prior.unborn(self.n) - self._prior.unborn(self.n + 1)
        self.n += 1
        self._mixtures += self._births
        if agrees:  # only disagreements are evidence against the version
            self._mixtures *= self._agreeing
        else:
            self.disagreements += 1
            self._mixtures *= self._disagreeing
            np.minimum(self._mixtures, LARGEST, out=self._mixtures)
            self.tripped |= self.e_value >= 1.0 / self.delta
            self.suspicious |= self.tripped or self.suspicion >= FALSE_ALARM_EVERY
        if self.on_probation:
            self._probation.observe(agrees)
            if self._probation.passed and not self.tripped:
                self._clear()

    def observe_all(self, outcomes: Iterable[bool]) -> None:
        """Replay audits. Probations are no part of the outcomes: begin them where they began."""
        for agrees in outcomes:
            self.observe(agrees)

    def begin_probation(self) -> None:
        """From here on audits decide whether the version is cleared of a suspicion."""
        self._probation = Probation(self.alpha)
        self.on_probation = True
        self.cleared = False

    def forget_suspicion(self) -> None:
        """It begins anew; the evidence for a trip stays."""
        self.suspicious = False
        self._mixtures[1] = 0.0

    def _clear(self) -> None:
        self.cleared = True
        self.on_probation = False
        self.forget_suspicion()

    @property
    def e_value(self) -> float:
        """Evidence that agreement is below α since some time: 1 at first, a trip at 1/δ."""
        return float(self._mixtures[0] @ self._weights + self._prior.unborn(self.n))

    @property
    def suspicion(self) -> float:
        """Shiryaev-Roberts statistic. With agreement α its mean is the number of audits so far,
        so the mean time until it reaches a level is that level at least."""
        return float(self._mixtures[1] @ self._weights)

    @property
    def agreement(self) -> float:
        """The share of audits that agree, 1 before the first."""
        return 1.0 - self.disagreements / self.n if self.n else 1.0

    @property
    def lower(self) -> float:
        """Lower bound at level 1 - delta on mean agreement over the life so far, all times at once.

        Agreement may change from audit to audit: the bound is on its mean.
        """
        return agreement_lower(self.n, self.disagreements, self.delta)


class Probation:
    """Evidence against "the version is really worse": audits since a probation began.

    A mixture over GOOD_RATES against the rate of a version that must not be cleared; the chance
    that such a one ever passes is at most WRONGLY_CLEARED (Wald 1945).
    """

    def __init__(self, alpha: float) -> None:
        worse = 1.0 - alpha + min(WORSE_POINTS, WORSE_SHARE * (1.0 - alpha), alpha / 2.0)
        good = (1.0 - alpha) * np.asarray(GOOD_RATES)
        self._agreeing = (1.0 - good) / (1.0 - worse)
        self._disagreeing = good / worse
        self._ratios: Floats = np.ones(len(good))
        self.n = 0
        self.passed = False

    def observe(self, agrees: bool) -> None:
        self.n += 1
        self._ratios *= self._agreeing if agrees else self._disagreeing
        np.minimum(self._ratios, LARGEST, out=self._ratios)
        credible = self._ratios.mean() >= 1.0 / WRONGLY_CLEARED
        self.passed |= bool(self.n >= PROBATION_AUDITS and credible)


def agreement_lower(n: int, disagreements: int, delta: float) -> float:
    """`LiveCertificate.lower` from its counts, which are all it rests on."""
    return 1.0 - _highest_rate(n, disagreements, delta)


def _highest_rate(n: int, disagreements: int, delta: float) -> float:
    """The highest mean rate of disagreement that n audits do not refute at level delta.

    For rates r_i, whatever they depend on, the product of exp(λ x_i)/(1 + r_i (exp λ - 1)) is a
    martingale, and for λ < 0 it can only shrink if all r_i are replaced by their mean, since the
    logarithm is concave. So the mixture over TILTS refutes a mean rate when it reaches 1/δ.
    Source: Howard, Ramdas, McAuliffe and Sekhon 2021 (sub-Bernoulli mixtures).
    """
    low, high = (disagreements / n if n else 0.0), 1.0
    for _ in range(STEPS if n else 0):
        rate = (low + high) / 2.0
        logs = TILTS * disagreements - n * np.log1p(rate * np.expm1(TILTS))
        top = logs.max()
        if top + np.log(np.exp(logs - top).mean()) >= -np.log(delta):
            high = rate
        else:
            low = rate
    return high
