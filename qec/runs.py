"""Arrays of runs, one after the other."""

from __future__ import annotations

import numpy as np


def place_in_run(lengths: np.ndarray) -> np.ndarray:
    """int64 (sum of lengths,): 0, 1, ... in each run; lengths [2, 0, 3] -> 0 1 0 1 2."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)
