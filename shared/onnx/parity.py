"""Fit and ONNX graph must say the same on real rows before anything is published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.onnx.session import Scored

SCORE_TOLERANCE = 1e-3  # float32 sums of thousands of kernel values
ACCEPT_TOLERANCE = 2e-3
# Labels may differ where the fit itself hardly prefers one.
TIE = 1e-3


class ParityError(Exception):
    """The exported graph does not compute what was fitted."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences over `rows` rows."""

    rows: int
    scores: float
    accept: float
    novelty: float


def check_parity(
    said: Scored,
    *,
    labels: NDArray[np.int64],
    lead: NDArray[np.float64],
    scores: NDArray[np.float64],
    accept: NDArray[np.float64],
    novelty: NDArray[np.float64],
) -> Parity:
    """Compare what a graph said of n rows with the float64 reference.

    labels: int64[n]; lead: float64[n], by how much (in log-probability) the label is preferred to
    the next; scores: float64[n, k]; accept, novelty: float64[n]. Labels must be equal except where
    the lead is below 1e-3, scores within 1e-3, accept and novelty within 2e-3. Raises ParityError.
    """
    differing = int(((said.label != labels) & (lead > TIE)).sum())
    if differing:
        raise ParityError(f"{differing} of {len(labels)} labels differ between ONNX and the fit")
    parity = Parity(
        rows=len(labels),
        scores=_largest(said.scores, scores),
        accept=_largest(said.accept, accept),
        novelty=_largest(said.novelty, novelty),
    )
    # Where a near-tie fell the other way, the rest follows the label.
    if not parity.scores <= SCORE_TOLERANCE:  # NaN is no agreement
        raise ParityError(f"scores differ by {parity.scores:.2g}, more than {SCORE_TOLERANCE}")
    same = said.label == labels
    for name, found, expected in (
        ("accept scores", said.accept, accept),
        ("novelty scores", said.novelty, novelty),
    ):
        difference = _largest(found[same], expected[same])
        if not difference <= ACCEPT_TOLERANCE:
            raise ParityError(f"{name} differ by {difference:.2g}, more than {ACCEPT_TOLERANCE}")
    return parity


def _largest(a: NDArray[np.float32], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max(initial=0.0))
