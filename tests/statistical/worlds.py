"""Synthetic worlds whose true agreement is known."""

from __future__ import annotations

import numpy as np

from shared.core.gate import Evidence
from shared.core.types import Floats, Kind


def world(
    n: int, seed: int, *, agreement_at: tuple[float, float], duplicates: int = 1,
    kind: Kind = "holdout",
) -> Evidence:  # fmt: skip
    """n rows: score uniform in (0, 1); P(agree | score) linear from agreement_at[0] to [1].

    With `duplicates` every row is there that many times, in one group.
    """
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=n)
    agrees = rng.uniform(size=n) < agreement_given(scores, agreement_at)
    groups = np.arange(n)
    return Evidence(
        scores=np.repeat(scores, duplicates),
        agrees=np.repeat(agrees, duplicates),
        groups=np.repeat(groups, duplicates),
        weights=np.ones(n * duplicates),
        kind=kind,
    )


def agreement_given(scores: Floats, agreement_at: tuple[float, float]) -> Floats:
    low, high = agreement_at
    return low + (high - low) * scores


def true_agreement(threshold: float, agreement_at: tuple[float, float]) -> float:
    """Agreement on traffic whose score is at least `threshold`, scores uniform in (0, 1)."""
    middle = (threshold + 1.0) / 2.0
    low, high = agreement_at
    return low + (high - low) * middle
