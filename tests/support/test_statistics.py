"""Error-rate statistics against hand-computed values and properties."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from qec.support.statistics import (
    Estimate,
    error_rate,
    error_rate_per_round,
    independent_ratio,
    paired_ratio,
    per_round,
)

pytestmark = pytest.mark.filterwarnings("error")


def test_error_rate_is_the_clopper_pearson_interval():
    # No errors: the upper end solves (1 - p)^n = 0.025.
    none = error_rate(0, 100)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - 0.025 ** (1 / 100))
    half = error_rate(1, 2)  # 1 - (1 - p)^2 = 0.025 and p^2 = 0.025, mirrored
    assert half.low == pytest.approx(1 - math.sqrt(0.975))
    assert half.high == pytest.approx(math.sqrt(0.975))


def test_no_shots_say_nothing():
    rate = error_rate(0, 0)
    assert math.isnan(rate.value)
    assert (rate.low, rate.high) == (0, 1)


@given(st.floats(0, 0.499), st.integers(1, 1000))
def test_per_round_inverts_the_composition_of_rounds(per_shot, rounds):
    e = per_round(per_shot, rounds)
    assert 0 <= e <= per_shot + 1e-15
    assert (1 - (1 - 2 * e) ** rounds) / 2 == pytest.approx(per_shot, abs=1e-9)


def test_per_round_by_hand():
    # Two rounds with e = 0.1: an odd number of flips has P = 2 * 0.1 * 0.9.
    assert per_round(0.18, 2) == pytest.approx(0.1)
    assert per_round(1e-15, 1000) == pytest.approx(1e-18)
    assert per_round(0.5, 7) == 0.5
    assert per_round(0.9, 7) == 0.5


@given(st.integers(1, 10**6), st.data(), st.integers(1, 100))
def test_intervals_hold_the_value(shots, data, rounds):
    errors = data.draw(st.integers(0, shots))
    for rate in (error_rate(errors, shots), error_rate_per_round(errors, shots, rounds)):
        assert 0 <= rate.low <= rate.value + 1e-12
        assert rate.value <= rate.high + 1e-12


def test_paired_ratio_by_hand():
    # Bonett and Price's formula worked for 1 both, 1 only a, 7 only b: shares 2/9 and 8/9.
    ratio = paired_ratio(2, 8, 1)
    assert ratio.value == 0.25
    z = 1.959964 * math.sqrt(10 / 27) / (math.sqrt(1 / 3 - 1 / 11) + math.sqrt(1 / 9 - 1 / 11))
    low_a, high_a = binomtest(2, 9).proportion_ci(2 * norm.cdf(z) - 1, method="wilson")
    low_b, high_b = binomtest(8, 9).proportion_ci(2 * norm.cdf(z) - 1, method="wilson")
    assert ratio.low == pytest.approx(low_a / high_b, rel=1e-6)
    assert ratio.high == pytest.approx(high_a / low_b, rel=1e-6)


def test_paired_ratio_tends_to_the_delta_method():
    ratio = paired_ratio(200_000, 100_000, 80_000)
    sigma = math.sqrt(1 / 200_000 + 1 / 100_000 - 2 * 80_000 / (200_000 * 100_000))
    assert math.log(ratio.high / 2) == pytest.approx(1.959964 * sigma, rel=0.01)
    assert math.log(2 / ratio.low) == pytest.approx(1.959964 * sigma, rel=0.01)


@pytest.mark.parametrize(
    "means",
    [
        (10, 1, 0.5),
        (3, 0.3, 0.1),
        (1, 1, 0.5),
        (100, 30, 30),
        (1000, 300, 10),
        (1, 10, 1),
        (0, 5, 5),
    ],
)
def test_the_paired_interval_covers_the_ratio(means):
    """Means of the shots that both, only a, only b predict wrongly."""
    truth = (means[0] + means[1]) / (means[0] + means[2])
    counts, times = np.unique(
        np.random.default_rng(7).poisson(means, size=(4000, 3)), axis=0, return_counts=True
    )
    covered = 0
    for (both, only_a, only_b), n in zip(counts.tolist(), times, strict=True):
        ratio = paired_ratio(both + only_a, both + only_b, both)
        covered += n * (ratio.low <= truth <= ratio.high)
    assert covered / 4000 > 0.94


def test_paired_ratio_without_errors():
    for a, b, value in ((0, 0, math.nan), (5, 0, math.inf), (0, 5, 0.0)):
        ratio = paired_ratio(a, b, 0)
        assert ratio.value == pytest.approx(value, nan_ok=True)
        assert (ratio.low == 0) == (a == 0)
        assert (ratio.high == math.inf) == (b == 0)


@pytest.mark.parametrize("errors", [1, 7, 1000])
def test_identical_decoders_have_ratio_one_but_some_uncertainty(errors):
    ratio = paired_ratio(errors, errors, errors)
    assert ratio.value == 1
    assert 1 / ratio.low == pytest.approx(ratio.high)
    assert 1 + 1.8 / errors < ratio.high < 1 + 3 / errors


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_paired_ratio_inverts_when_the_decoders_swap(only_a, only_b, both):
    ab = paired_ratio(only_a + both, only_b + both, both)
    ba = paired_ratio(only_b + both, only_a + both, both)
    if only_a + only_b + both:
        assert ab.low <= ab.value <= ab.high
        assert ab.low < ab.high
    if min(only_a, only_b) + both:
        assert ab.value * ba.value == pytest.approx(1)
        assert ab.low * ba.high == pytest.approx(1)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="inconsistent"):
        paired_ratio(3, 5, 4)


def test_independent_ratio_by_hand():
    ratio = independent_ratio(Estimate(0.4, 0.2, 0.8), Estimate(0.1, 0.05, 0.2))
    assert ratio.value == pytest.approx(4)
    # Both ends are a factor of 2 away: on the logarithm, sqrt(2) ln 2 in all.
    reach = math.exp(math.sqrt(2) * math.log(2))
    assert (ratio.low, ratio.high) == pytest.approx((4 / reach, 4 * reach))


def test_independent_ratio_without_errors():
    none, some = error_rate(0, 1000), error_rate(20, 1000)
    assert independent_ratio(none, some) == Estimate(0, 0, none.high / some.low)
    assert independent_ratio(some, none) == Estimate(math.inf, some.low / none.high, math.inf)
    nothing = independent_ratio(none, none)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (0, math.inf)


def test_the_interval_of_an_independent_ratio_holds_it():
    """Of 1000 intervals of 95 %, 908 or fewer hold it with a probability below 1e-7."""
    rng = np.random.default_rng(2)
    drawn = rng.binomial(1000, [0.03, 0.01], size=(1000, 2)).tolist()
    found = [independent_ratio(error_rate(a, 1000), error_rate(b, 1000)) for a, b in drawn]
    assert sum(one.low <= 3 <= one.high for one in found) > 908
