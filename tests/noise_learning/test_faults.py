"""The faults of a circuit against Stim's own detector error model, and what they have in common."""

import numpy as np
import pytest
import stim
from hypothesis import given
from hypothesis import strategies as st
from mechanism_catalogue import catalogue

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import PAULI_PAIRS, CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.faults import CircuitFaults, independent_flips, parameter_rates
from qec.support.errors import QecError

ALL = [c + p for c in "IXYZ" for p in "IXYZ"][1:]


def by_symptom(dem):
    """Probability of every (detectors, observables), lines with the same symptom combined."""
    found = {}
    for instruction in dem.flattened():
        if instruction.type != "error":
            continue
        flips = {}
        for target in instruction.targets_copy():
            if not target.is_separator():
                flips[str(target)] = not flips.get(str(target), False)
        key = frozenset(name for name, odd in flips.items() if odd)
        a, b = found.get(key, 0.0), instruction.args_copy()[0]
        found[key] = a + b - 2 * a * b
    return found


def ours(circuit):
    """The same from the enumerated faults."""
    enumerated = CircuitFaults.of(circuit)
    x = np.bincount(enumerated.faults.mechanism, enumerated.faults.x)
    sets = enumerated.sets.tocsr()
    found = {}
    for k, rate in enumerate(x):
        detectors = sets.indices[sets.indptr[k] : sets.indptr[k + 1]]
        observables = np.flatnonzero(enumerated.flips_observable[k])
        key = frozenset([*(f"D{d}" for d in detectors), *(f"L{o}" for o in observables)])
        found[key] = -np.expm1(-rate) / 2
    return found


def disjoint_noise():
    rng = np.random.default_rng(5)
    return CircuitNoise(
        prep_x=0.001,
        prep_z=0.002,
        meas_x=0.003,
        meas_z=0.004,
        idle_cnot=(0.001, 0.0021, 0.0005),
        idle_spam=(0.0012, 0.0003, 0.0006),
        cnot=tuple(rng.uniform(0.0001, 0.001, 15)),
    )


@pytest.mark.parametrize("orientation", ["ZV", "XH"])
@pytest.mark.parametrize("noise", ["uniform", "stim", "si1000"])
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_faults_add_up_to_stims_model_exactly_where_channels_are_independent(
    our_circuit, orientation, noise, basis
):
    circuit = our_circuit(5, 6, basis, 0.005, orientation, noise)
    stims, mine = by_symptom(circuit.detector_error_model()), ours(circuit)
    assert set(stims) == set(mine)
    assert max(abs(mine[key] / stims[key] - 1) for key in stims) < 1e-9


def test_faults_add_up_to_stims_model_within_a_percent_where_channels_are_disjoint():
    circuit = memory_circuit(RotatedSurfaceCode(5), disjoint_noise(), 5, "Z")
    stims = by_symptom(circuit.detector_error_model(approximate_disjoint_errors=True))
    mine = ours(circuit)
    assert set(stims) == set(mine)
    assert max(abs(mine[key] / stims[key] - 1) for key in stims) < 1e-2


def test_faults_of_stims_generated_circuit_and_of_noisy_measurements(stim_circuit):
    circuit = stim_circuit(3, 3, "X", 0.004)
    stims, mine = by_symptom(circuit.detector_error_model()), ours(circuit)
    assert set(stims) == set(mine)
    assert max(abs(mine[key] / stims[key] - 1) for key in stims) < 1e-9

    noisy = stim.Circuit("""
        R 0 1
        MZZ(0.125) 0 1
        M(0.25) 0
        CORRELATED_ERROR(0.1) X0 X1
        MR(0.0625) 1
        DETECTOR rec[-3]
        DETECTOR rec[-2]
        DETECTOR rec[-1] rec[-2]
        OBSERVABLE_INCLUDE(0) rec[-1]
    """)
    assert ours(noisy) == pytest.approx(by_symptom(noisy.detector_error_model()))


@given(st.lists(st.floats(0.0, 0.02), min_size=15, max_size=15))
def test_a_channel_is_the_product_of_its_independent_flips(rates):
    x = independent_flips(ALL, rates)
    # The eigenvalue at Q is the product of (1 - 2 q_P) over the flips that anticommute with it.
    strings = [stim.PauliString(p) for p in ALL]
    anticommute = np.array([[not a.commutes(b) for b in strings] for a in strings], dtype=float)
    assert np.exp(-anticommute @ x) == pytest.approx(1 - 2 * anticommute @ np.array(rates))


def test_depolarising_channels_are_stims_independent_flips():
    for name, p, paulis in (("DEPOLARIZE1", 0.03, 3), ("DEPOLARIZE2", 0.05, 15)):
        q = (1 - (1 - p * (paulis + 1) / paulis) ** (2 / (paulis + 1))) / 2
        names = ["X", "Y", "Z"] if paulis == 3 else ALL
        x = independent_flips(names, [p / paulis] * paulis)
        assert -np.expm1(-x) / 2 == pytest.approx(np.full(paulis, q)), name


def test_roles_are_the_fields_of_circuit_noise():
    noise = disjoint_noise()
    for basis in "XZ":
        for rounds in (2, 5):
            circuit = memory_circuit(RotatedSurfaceCode(3), noise, rounds, basis)
            rates = parameter_rates(circuit)
            assert len(rates) == 25
            enumerated = CircuitFaults.of(circuit).faults
            for k, name in enumerate(enumerated.parameter_names):
                same = enumerated.x[enumerated.parameter == k]
                assert same == pytest.approx(np.full(len(same), rates[name])), name
            want = [noise.prep_x, noise.prep_z, noise.meas_x, noise.meas_z]
            want = [independent_flips(["X"], [p])[0] for p in want]
            want += independent_flips(["X", "Y", "Z"], noise.idle_cnot).tolist()
            want += independent_flips(["X", "Y", "Z"], noise.idle_spam).tolist()
            want += independent_flips(list(PAULI_PAIRS), noise.cnot).tolist()
            assert sorted(rates.values()) == pytest.approx(sorted(want))


def test_si1000_has_the_rotations_of_ancillas_as_parameters_of_their_own(our_circuit):
    names = parameter_rates(our_circuit(3, 3, "X", 0.005, "ZV", "si1000"))
    assert len(names) == 31  # three Paulis before and three after the CNOTs


def test_a_tag_is_a_role():
    circuit = stim.Circuit("""
        R 0 1
        X_ERROR[mine](0.1) 0
        X_ERROR(0.2) 1
        M 0 1
        DETECTOR rec[-1]
        DETECTOR rec[-2]
        OBSERVABLE_INCLUDE(0) rec[-1]
    """)
    assert set(parameter_rates(circuit)) == {"mine.X", "flip after R.X"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("R 0\nM 0\nDETECTOR rec[-1]", "no noise"),
        ("R 0\nHERALDED_ERASE(0.1) 0\nDETECTOR rec[-1]", "HERALDED_ERASE"),
        ("R 0\nE(0.1) X0\nELSE_CORRELATED_ERROR(0.1) Z0\nM 0\nDETECTOR rec[-1]", "ELSE"),
        ("R 0\nX_ERROR(0.5) 0\nM 0\nDETECTOR rec[-1]", "too strong"),
        ("R 0\nM(0.1) 0\nCX rec[-1] 0\nM 0\nDETECTOR rec[-1]", "feedback"),
    ],
)
def test_what_is_no_product_of_pauli_channels_is_refused(text, message):
    with pytest.raises(QecError, match=message):
        CircuitFaults.of(stim.Circuit(text))


@pytest.mark.slow
def test_the_classes_of_mechanisms_are_the_same_at_every_distance(our_circuit):
    found = {d: catalogue(ErrorStructure.of(our_circuit(d, d, "X"))) for d in (5, 7, 9)}
    for c in found.values():
        assert {(k.size, k.is_edge, k.formula) for k in c.classes} == {
            (k.size, k.is_edge, k.formula) for k in found[5].classes
        }
        assert len(c.classes) == len(found[5].classes) == 287
        assert c.rank == 21
    assert sum(k.count for k in found[9].classes) > sum(k.count for k in found[7].classes)
    bulk = [catalogue(ErrorStructure.of(our_circuit(d, d, "X")), margin=2) for d in (7, 9)]
    assert len(bulk[0].classes) == len(bulk[1].classes) < 287


def test_mechanisms_do_not_change_along_gauge_directions(our_circuit):
    structure = ErrorStructure.of(our_circuit(5, 5, "Z"))
    found = catalogue(structure)
    faults = structure.faults
    assert found.gauge.shape == (4, 25)
    for direction in found.gauge:
        change = np.bincount(faults.mechanism, direction[faults.parameter])
        assert np.abs(change).max() < 1e-9
