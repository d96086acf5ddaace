"""What the pre-decoder commits."""

from __future__ import annotations

import math
import reprlib
from typing import Any, NamedTuple

import numpy as np

from qec.support.errors import QecError


class PredecodeResult(NamedTuple):
    """What the pre-decoder makes of a batch.

    Attributes:
        residual: uint8 (B, num_detectors), detection events that it leaves.
        committed: uint8 (B,), flips of observable 0 by the edges that it commits.
    """

    residual: np.ndarray
    committed: np.ndarray


def check_threshold(threshold: Any) -> None:
    """QecError unless it is a probability above which edges can be committed."""
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not number or not 0.5 <= threshold <= 1:
        raise QecError(f"threshold={reprlib.repr(threshold)} must be a probability in [0.5, 1].")


def log_odds(probability: float) -> float:
    """ln(p / (1 - p)); infinite at 1."""
    return math.inf if probability == 1 else math.log(probability / (1 - probability))
