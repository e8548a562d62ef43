"""Which stages a cascade has and how far its first is opened: compared by cross-validated coverage.

- `l2d`: the semantic stage alone answers, behind its acceptor (`global` where it may answer all).
- `lexical`: the lexical stage answers first, down to a floor.
- `rsb`: the same, and what both defer goes to a residual stage.

Compared out of fold on all fitted evidence; for cross-fitted evidence those rows certify too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.core.cascade import Outputs
from shared.core.gate import Certified, Rule, frontier
from shared.core.policies import NEVER, evidence_of
from shared.core.training import TrainingSet
from shared.core.types import Mask

# Floors of the lexical stage, as parts of 1 - α around α: an answer that agrees with this
# probability is good enough for the cheap stage.
FLOORS = tuple((np.arange(-16, 13) / 16).tolist())
# The lexical stage costs a hundredth of the encoder, and the encoder far less than the teacher: it
# may add this share to what is deferred.
LEXICAL_COST = 0.02
# Coverages a step of the walk apart are as good as the same.
SAME_COVERAGE = 0.001
# A residual stage doubles the semantic part: it must earn this much coverage.
RESIDUAL_GAIN = 0.005


@dataclass(frozen=True)
class Family:
    """Stages used, the floor of each, and the coverage certified out of fold."""

    name: str
    floors: tuple[float, ...]
    coverage: float


def coverage(outputs: Outputs, rows: TrainingSet, floors: tuple[float, ...], rule: Rule) -> float:
    """Certified coverage on these rows, 0 for a refusal."""
    evidence = evidence_of(outputs, rows, "crossfit", floors)
    (verdict,) = frontier(evidence, (rule.alpha,), rule.delta, rule.next_sample)
    return verdict.coverage if isinstance(verdict, Certified) else 0.0


def base_families(outputs: Outputs, rows: TrainingSet, chosen: Mask, rule: Rule) -> list[Family]:
    """`l2d` and, where there is a lexical stage, `lexical` with its best floor, by the `chosen`
    rows."""
    said, seen = outputs.take(chosen), rows.take(chosen)

    def family(name: str, floors: tuple[float, ...]) -> Family:
        return Family(name, floors, coverage(said, seen, floors, rule))

    if outputs.label.shape[1] == 1:
        return [family("l2d", (0.0,))]
    alone = family("l2d", (NEVER, 0.0))
    opened = [family("lexical", (_floor(rule.alpha, part), 0.0)) for part in FLOORS]
    best = max(alone.coverage, *(f.coverage for f in opened))
    return [alone, next((f for f in opened if f.coverage >= _enough(best)), opened[-1])]


def _enough(best: float) -> float:
    """The coverage that is as good as the best for a cheaper cascade."""
    return best - max(LEXICAL_COST * (1.0 - best), SAME_COVERAGE)


def _floor(alpha: float, part: float) -> float:
    """Exact in float32, in which the graphs score."""
    return float(np.float32(alpha + part * (1.0 - alpha)))


def choose(families: list[Family]) -> Family:
    """The cheapest whose coverage is as good as any's, within what cheapness and simplicity are
    worth."""
    cheap = [f for f in families if f.name != "rsb"]
    best = max(f.coverage for f in cheap)
    chosen = next(f for f in reversed(cheap) if f.coverage >= _enough(best))
    for residual in families:
        if residual.name == "rsb" and residual.coverage >= chosen.coverage + RESIDUAL_GAIN:
            return residual
    return chosen
