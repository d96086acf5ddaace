"""The shortest period between rounds that a decoder keeps up with."""

from __future__ import annotations

import math
from collections.abc import Callable

_RESOLUTION = 1.1  # ratio of a period that is too short and one that is not
_MOST = 16  # runs


def shortest_period(keeps_up: Callable[[float], bool], guess: float) -> float:
    """Doubles or halves from ``guess`` until it brackets the limit, then bisects.

    Args:
        keeps_up: whether a run at a period (any unit) did.
        guess: positive.

    Returns:
        the shortest period found that is kept up with; nan if none was.
    """
    low, high = 0.0, math.inf  # too short, long enough
    period = guess
    for _ in range(_MOST):
        if keeps_up(period):
            high = period
        else:
            low = period
        if low == 0:
            period = high / 2
        elif high == math.inf:
            period = 2 * low
        elif high / low <= _RESOLUTION:
            break
        else:
            period = math.sqrt(low * high)
    return high if high < math.inf else math.nan
