"""Statistics of logical error counts: intervals, rates per round, paired comparisons."""

from __future__ import annotations

import dataclasses
import math

from scipy.stats import binomtest, norm

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class PairedRatio(Estimate):
    """Ratio LER(a) / LER(b) of two decoders on the same shots.

    Attributes:
        p_value: two-sided exact McNemar test of equal error rates.
    """

    p_value: float


def error_rate(errors: int, shots: int) -> Estimate:
    """Logical error rate per shot with its Clopper-Pearson ("exact") interval.

    >>> error_rate(5, 100)
    Estimate(value=0.05, low=0.016..., high=0.112...)
    """
    if shots == 0:
        return Estimate(math.nan, 0.0, 1.0)
    interval = binomtest(errors, shots).proportion_ci(CONFIDENCE, method="exact")
    return Estimate(errors / shots, float(interval.low), float(interval.high))


def per_round(per_shot: float, rounds: int) -> float:
    """Error rate per round e of a shot of R rounds with error rate P.

    The logical flips of the rounds are independent: 1 - 2 P = (1 - 2 e)^R.  A P above 1/2 (worse
    than guessing) counts as 1/2.
    """
    if math.isnan(per_shot) or per_shot >= 0.5:
        return min(per_shot, 0.5)
    return -math.expm1(math.log1p(-2 * per_shot) / rounds) / 2


def error_rate_per_round(errors: int, shots: int, rounds: int) -> Estimate:
    """``error_rate`` carried over to one round by ``per_round``, which is monotonic."""
    shot = error_rate(errors, shots)
    return Estimate(*(per_round(rate, rounds) for rate in (shot.value, shot.low, shot.high)))


def paired_ratio(errors_a: int, errors_b: int, both: int) -> PairedRatio:
    """Ratio of the error counts of decoders a and b on the same shots.

    Of the 2 x 2 table of joint outcomes only the margins and ``both`` enter: by the delta method

        Var[ln(a / b)] = 1 / a + 1 / b - 2 both / (a b),

    the covariance term being what pairing gains.  Without an error of a or of b the interval is
    (0, inf); two decoders that err on exactly the same shots have ratio 1 and variance 0.

    Args:
        errors_a, errors_b: shots that a, that b predicts wrongly.
        both: shots that both predict wrongly.
    """
    only_a, only_b = errors_a - both, errors_b - both
    if min(only_a, only_b, both) < 0:
        raise ValueError(f"inconsistent joint counts: {errors_a=}, {errors_b=}, {both=}")
    discordant = only_a + only_b
    p_value = float(binomtest(only_a, discordant).pvalue) if discordant else 1.0
    if errors_b == 0:
        return PairedRatio(math.inf if errors_a else math.nan, 0.0, math.inf, p_value)
    ratio = errors_a / errors_b
    if errors_a == 0:
        return PairedRatio(ratio, 0.0, math.inf, p_value)
    sigma = math.sqrt(discordant / (errors_a * errors_b))
    reach = math.exp(float(norm.ppf((1 + CONFIDENCE) / 2)) * sigma)
    return PairedRatio(ratio, ratio / reach, ratio * reach, p_value)
