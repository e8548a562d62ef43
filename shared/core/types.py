"""The arrays the core works on. It knows no texts, no files and no network."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Scores = NDArray[np.float32] | NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# What one stage may take in an artifact: three of them stay below the 64 MiB that a registry takes
# (MAX_ARTIFACT_BYTES in shared/registry/base.py, which the core does not know).
STAGE_BYTES = 20 * 1024 * 1024

Kind = Literal["holdout", "crossfit"]


class InvalidData(ValueError):
    """Arrays no surrogate can be fitted on; the message names the array and the row."""
