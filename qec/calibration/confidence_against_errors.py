"""Confidence next to errors: reliability in bins of one nat, its correction, post-selection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from qec.support.statistics import CONFIDENCE, Estimate, error_rate

SHARES = (0.0, 0.01, 0.05, 0.2)
"""Shares of shots discarded that tables show."""
LEAST_ERRORS = 5
"""Of the bins that tables and figures show: the intervals of others say little."""
_CURVE = 30  # further points of a curve
_MOST_DISCARDED = 0.5


@dataclasses.dataclass(frozen=True)
class Bin:
    """Shots whose gap lies in [low, low + 1) nats.

    Attributes:
        low: nats.
        shots, errors: in the bin.
        predicted: odds of an error, those of the shots' mean probability of one.
    """

    low: int
    shots: int
    errors: int
    predicted: float

    @property
    def observed(self) -> Estimate:
        """Odds of an error with the interval of ``qec.support.statistics.error_rate``."""
        rate = error_rate(self.errors, self.shots)
        return Estimate(*(_odds(p) for p in (rate.value, rate.low, rate.high)))

    @property
    def ratio(self) -> Estimate:
        """Observed over predicted odds."""
        seen = self.observed
        return Estimate(*(x / self.predicted for x in (seen.value, seen.low, seen.high)))


def _odds(probability: float) -> float:
    return probability / (1 - probability) if probability < 1 else math.inf


def reliability(nats: np.ndarray, wrong: np.ndarray, slope: float = 1.0) -> tuple[Bin, ...]:
    """Bins of one nat of the gap, those without shots left out.

    Args:
        nats: float64 (B,), gaps, not negative.
        wrong: bool (B,), which predictions are errors.
        slope: a shot's odds of an error are taken for exp(-slope * gap).
    """
    place = np.floor(nats).astype(np.int64)
    shots = np.bincount(place)
    errors = np.bincount(place, wrong)
    expected = np.bincount(place, expit(-slope * nats))
    return tuple(
        Bin(low, int(shots[low]), int(errors[low]), _odds(float(expected[low] / shots[low])))
        for low in np.flatnonzero(shots).tolist()
    )


def fit_slope(nats: np.ndarray, wrong: np.ndarray) -> Estimate:
    """The slope by which gaps have to be multiplied to be the logarithm of odds.

    Maximum likelihood for odds of an error exp(-slope * gap), a logistic regression without
    intercept.  The interval is Wald's.

    Args:
        nats: float64 (B,), gaps, not negative.
        wrong: bool (B,), which predictions are errors.

    Returns:
        nan, between 0 and infinity, where no shot with a gap above 0 is wrong, or none is right.
    """
    if not nats[wrong].any() or not nats[~wrong].any():
        return Estimate(math.nan, 0.0, math.inf)
    in_errors = nats[wrong].sum()

    def score(slope: float) -> float:
        return float(nats @ expit(-slope * nats) - in_errors)

    reach = 1.0
    while score(-reach) < 0 or score(reach) > 0:
        reach *= 2
    slope = float(brentq(score, -reach, reach))
    probability = expit(-slope * nats)
    information = float(nats**2 @ (probability * (1 - probability)))
    half = float(norm.ppf((1 + CONFIDENCE) / 2)) / math.sqrt(information)
    return Estimate(slope, slope - half, slope + half)


@dataclasses.dataclass(frozen=True)
class Selected:
    """What is left once the least sure shots are discarded.

    Attributes:
        discarded: shots.
        shots, errors: left.
    """

    discarded: int
    shots: int
    errors: int

    @property
    def rate(self) -> Estimate:
        """Logical error rate of the shots that are left."""
        return error_rate(self.errors, self.shots)


def post_selection(nats: np.ndarray, wrong: np.ndarray) -> tuple[Selected, ...]:
    """Errors left against shots discarded, least sure first, from none to half of them.

    Among equally sure shots the first ones go first.

    Args:
        nats: float64 (B,), B >= 1, gaps.
        wrong: bool (B,), which predictions are errors.
    """
    n = len(nats)
    order = np.argsort(nats, kind="stable")
    left = wrong.sum() - np.concatenate([[0], np.cumsum(wrong[order])])
    return tuple(Selected(k, n - k, int(left[k])) for k in discards(n))


def discards(shots: int) -> list[int]:
    """The numbers of discarded shots that ``post_selection`` looks at, ascending."""
    most = max(_MOST_DISCARDED * shots, 1.0)
    curve = np.geomspace(1, most, _CURVE).astype(np.int64).tolist()
    found = {*curve, *(at_share(share, shots) for share in SHARES)}
    return sorted(k for k in found if k < shots)


def at_share(share: float, shots: int) -> int:
    """Shots discarded at a share of them."""
    return int(share * shots)


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How far the confidence of one decoder can be believed.

    Attributes:
        decoder: its name.
        shots, errors: decoded, and predicted wrongly.
        slope: ``fit_slope`` on the first half of the shots.
        raw: ``reliability`` of gaps as they are, all shots.
        corrected: of gaps times the slope, the second half; empty without a slope.
        selected: ``post_selection`` by the decoder's own gaps.
        reference: by the exact gap of uncorrelated matching, on the same predictions.
    """

    decoder: str
    shots: int
    errors: int
    slope: Estimate
    raw: tuple[Bin, ...]
    corrected: tuple[Bin, ...]
    selected: tuple[Selected, ...]
    reference: tuple[Selected, ...]

    @classmethod
    def of(
        cls, decoder: str, wrong: np.ndarray, nats: np.ndarray, reference: np.ndarray
    ) -> Calibration:
        """Compares gaps with errors.

        Args:
            decoder: its name.
            wrong: bool (B,), B >= 1, which predictions are errors.
            nats: float64 (B,), the decoder's gaps.
            reference: float64 (B,), the gaps of uncorrelated matching, 0 where it differs.
        """
        half = len(wrong) // 2
        slope = fit_slope(nats[:half], wrong[:half])
        known = not math.isnan(slope.value)
        corrected = reliability(nats[half:], wrong[half:], slope.value) if known else ()
        return cls(
            decoder=decoder,
            shots=len(wrong),
            errors=int(wrong.sum()),
            slope=slope,
            raw=reliability(nats, wrong),
            corrected=corrected,
            selected=post_selection(nats, wrong),
            reference=post_selection(reference, wrong),
        )


def selected_at(curve: Sequence[Selected], share: float) -> Selected:
    """The point of a curve at one of ``SHARES``."""
    wanted = at_share(share, curve[0].shots)
    return next(point for point in curve if point.discarded == wanted)
