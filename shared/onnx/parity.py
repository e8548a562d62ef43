"""scikit-learn and ONNX must say the same on real rows before anything is published."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.onnx.session import StageSession

PROBABILITY_TOLERANCE = 1e-5
ACCEPT_TOLERANCE = 1e-4  # a float32 sigmoid of a sum of logarithms


class ParityError(Exception):
    """The exported graph does not compute what was fitted."""


@dataclass(frozen=True)
class Parity:
    """Largest absolute differences over `rows` rows."""

    rows: int
    probabilities: float
    accept: float


def check_parity(
    session: StageSession,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    accept: NDArray[np.float64],
) -> Parity:
    """Compare a graph with what scikit-learn said of the same float32[n, d] rows.

    Labels must be equal, probabilities within 1e-5, accept scores within 1e-4.
    Raises ParityError.
    """
    scored = session.run(features)
    differing = int((scored.label != labels).sum())
    if differing:
        raise ParityError(f"{differing} of {len(labels)} labels differ between ONNX and sklearn")
    parity = Parity(
        rows=len(labels),
        probabilities=_largest(session.probabilities(features), probabilities),
        accept=_largest(scored.accept, accept),
    )
    if parity.probabilities > PROBABILITY_TOLERANCE:
        raise ParityError(f"probabilities differ by {parity.probabilities:.2g}, more than 1e-5")
    if parity.accept > ACCEPT_TOLERANCE:
        raise ParityError(f"accept scores differ by {parity.accept:.2g}, more than 1e-4")
    return parity


def _largest(a: NDArray[np.float32], b: NDArray[np.float64]) -> float:
    return float(np.abs(a - b).max(initial=0.0))
