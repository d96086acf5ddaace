"""Arrays of runs, one after the other."""

from __future__ import annotations

import numpy as np


def place_in_run(lengths: np.ndarray) -> np.ndarray:
    """int64 (sum of lengths,): 0, 1, ... in each run; lengths [2, 0, 3] -> 0 1 0 1 2."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(starts, lengths)


def rows(owner: np.ndarray, value: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The values of each owner, one after the other: where each begins, (count + 1,), and they.

    Those of negative owners come before the first.
    """
    order = np.argsort(owner, kind="stable")
    return np.searchsorted(owner[order], np.arange(count + 1)), value[order]


def padded_rows(owner: np.ndarray, value: np.ndarray, count: int, fill: int) -> np.ndarray:
    """int64 (count, k), the values of each owner, none of which is negative, and ``fill``."""
    start, value = rows(owner, value, count)
    size = np.diff(start)
    table = np.full((count, max(int(size.max(initial=0)), 1)), fill)
    table[np.repeat(np.arange(count), size), place_in_run(size)] = value
    return table
