"""The noise model: its parameters, its families as compositions of channels, its validation."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qec.circuits.noise_model import PAULI_PAIRS, CircuitNoise
from qec.support.errors import QecError

strengths = st.floats(0, 0.2)


def compose(*channels):
    """Pauli rates (X, Y, Z) of single-qubit Pauli channels one after the other.

    A Pauli's eigenvalue is 1 - 2 (rates of the Paulis that anticommute with it); they multiply.
    """
    anticommutes = 1 - np.eye(3)
    eigenvalues = np.prod([1 - 2 * anticommutes @ np.array(c) for c in channels], axis=0)
    return np.linalg.solve(anticommutes, (1 - eigenvalues) / 2)


def depolarising(p):
    return (p / 3,) * 3


def parameters(noise):
    rates = dataclasses.asdict(noise)
    assert rates.pop("ancilla_rotation") is not None
    return np.concatenate([np.ravel(rate) for rate in rates.values()])


def test_the_model_has_25_parameters():
    assert parameters(CircuitNoise()).shape == (25,)
    assert len(PAULI_PAIRS) == len(set(PAULI_PAIRS)) == 15
    assert (PAULI_PAIRS[0], PAULI_PAIRS[3], PAULI_PAIRS[-1]) == ("IX", "XI", "ZZ")


@given(strengths)
def test_uniform_composes_depolarising_channels(p):
    noise = CircuitNoise.uniform(p)
    x, y, z = depolarising(p)
    assert noise.prep_z == noise.meas_z == pytest.approx(x + y)  # X and Y flip a Z eigenstate
    assert noise.prep_x == noise.meas_x == pytest.approx(z + y)
    assert noise.idle_cnot == pytest.approx(depolarising(p))
    assert noise.idle_spam == pytest.approx(compose(depolarising(p), depolarising(p)), abs=1e-15)
    assert sum(noise.cnot) == pytest.approx(p)
    assert len(set(noise.cnot)) == 1
    assert noise.ancilla_rotation == 0


@given(strengths)
def test_si1000_strengths(p):
    noise = CircuitNoise.si1000(p)
    flips = (noise.prep_x, noise.prep_z, noise.meas_x, noise.meas_z)
    assert flips == pytest.approx((2 * p, 2 * p, 5 * p, 5 * p))
    depolarising_strengths = [
        sum(rates) for rates in (noise.idle_cnot, noise.idle_spam, noise.cnot)
    ]
    assert depolarising_strengths == pytest.approx([p / 10, 2 * p, p])
    assert noise.ancilla_rotation == pytest.approx(p / 10)


@pytest.mark.parametrize("name", ["uniform", "stim", "si1000"])
def test_named_families_vanish_at_zero_and_grow(name):
    assert CircuitNoise.named(name, 0) == CircuitNoise()
    weak, strong = (parameters(CircuitNoise.named(name, p)) for p in (1e-3, 1e-2))
    assert (weak <= strong).all()
    assert CircuitNoise.named(name, 1e-3) == getattr(CircuitNoise, name)(1e-3)


@pytest.mark.parametrize("family", [CircuitNoise.uniform, CircuitNoise.stim, CircuitNoise.si1000])
@pytest.mark.parametrize("p", [-0.1, 1.5, math.nan, math.inf, True, "0.1", None])
def test_families_refuse_what_is_not_a_probability(family, p):
    with pytest.raises(QecError, match=r"p=.*\[0, 1\]"):
        family(p)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(CircuitNoise)])
@pytest.mark.parametrize("bad", [-1e-9, 1.01, math.nan, math.inf, True, "x", None])
def test_each_rate_is_validated(name, bad):
    default = getattr(CircuitNoise(), name)
    value = (bad, *default[1:]) if isinstance(default, tuple) else bad
    with pytest.raises(QecError, match=rf"{name}=.*\[0, 1\]"):
        CircuitNoise(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("idle_cnot", (0.1, 0.1)),
        ("idle_spam", (0.1,) * 4),
        ("idle_spam", 0.1),
        ("cnot", (0.01,) * 16),
        ("cnot", ()),
    ],
)
def test_wrong_number_of_rates(name, value):
    with pytest.raises(QecError, match=f"{name}=.* must be a list of (3|15) rates"):
        CircuitNoise(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"), [("idle_cnot", (0.5, 0.5, 0.1)), ("cnot", (0.07,) * 15)]
)
def test_rates_of_a_channel_add_up_to_at_most_one(name, value):
    with pytest.raises(QecError, match=f"{name}: the rates add up to 1.*above 1"):
        CircuitNoise(**{name: value})


def test_si1000_refuses_measurement_flips_above_one():
    with pytest.raises(QecError, match=r"p <= 0\.2"):
        CircuitNoise.si1000(0.3)


def test_unknown_names():
    with pytest.raises(QecError, match="noise='sd6' is unknown: use one of uniform, stim, si1000"):
        CircuitNoise.named("sd6", 0.1)
    with pytest.raises(QecError, match=r"unknown noise rates \['prepx'\]: the names are .*prep_x"):
        CircuitNoise.from_mapping({"prepx": 0.1})


def test_from_mapping_takes_lists():
    noise = CircuitNoise.from_mapping({"meas_x": 1, "idle_cnot": [0.1, 0, 0.2]})
    assert noise == CircuitNoise(meas_x=1.0, idle_cnot=(0.1, 0.0, 0.2))
    assert hash(noise) is not None
