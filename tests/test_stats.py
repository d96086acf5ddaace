"""Error-rate statistics against hand-computed values and properties."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qec.stats import error_rate, error_rate_per_round, paired_ratio, per_round

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
    ratio = paired_ratio(200, 100, 80)
    sigma = math.sqrt(1 / 200 + 1 / 100 - 2 * 80 / (200 * 100))
    assert ratio.value == 2
    assert ratio.low == pytest.approx(2 * math.exp(-1.959964 * sigma))
    assert ratio.high == pytest.approx(2 * math.exp(1.959964 * sigma))
    # 3 against 1 discordant shots: P(X <= 1 or X >= 3) = 2 * 5 / 16 for X ~ B(4, 1/2).
    assert paired_ratio(13, 11, 10).p_value == pytest.approx(10 / 16)


def test_paired_ratio_without_errors():
    for a, b, value in ((0, 0, math.nan), (5, 0, math.inf), (0, 5, 0.0)):
        ratio = paired_ratio(a, b, 0)
        assert ratio.value == pytest.approx(value, nan_ok=True)
        assert (ratio.low, ratio.high) == (0, math.inf)
    assert paired_ratio(0, 0, 0).p_value == 1


def test_identical_decoders_have_ratio_one():
    ratio = paired_ratio(7, 7, 7)
    assert (ratio.value, ratio.low, ratio.high, ratio.p_value) == (1, 1, 1, 1)


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 1000))
def test_paired_ratio_inverts_when_the_decoders_swap(only_a, only_b, both):
    ab = paired_ratio(only_a + both, only_b + both, both)
    ba = paired_ratio(only_b + both, only_a + both, both)
    assert ab.value * ba.value == pytest.approx(1)
    assert ab.low * ba.high == pytest.approx(1)
    assert ab.p_value == pytest.approx(ba.p_value)
    assert ab.low <= ab.value <= ab.high


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="inconsistent"):
        paired_ratio(3, 5, 4)
