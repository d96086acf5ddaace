"""Memory circuits against Stim's own, and physics checked by exhaustive small cases."""

import dataclasses
import itertools

import pytest
import stim

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import PAULI_PAIRS, CircuitNoise
from qec.circuits.surface_code import ORIENTATIONS, RotatedSurfaceCode
from qec.support.errors import QecError

P = 0.004
each_basis = pytest.mark.parametrize("basis", ["X", "Z"])
each_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def mechanisms(circuit):
    """{(detectors and observables): probability} of a circuit."""
    dem = circuit.detector_error_model(approximate_disjoint_errors=True).flattened()
    return {
        frozenset(map(str, error.targets_copy())): error.args_copy()[0]
        for error in dem
        if error.type == "error"
    }


def types_that_fire(code, circuit):
    """Types of the checks that have detectors in some mechanism of the circuit."""
    type_at = {xy: b for b in "XZ" for xy in code.check_coords(b)}
    coordinates = circuit.get_detector_coordinates()
    fired = {t for targets in mechanisms(circuit) for t in targets if t.startswith("D")}
    return {type_at[tuple(map(int, coordinates[int(t[1:])][:2]))] for t in fired}


@each_basis
@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("flatten", [False, True])
def test_stim_mode_has_the_error_model_of_stims_circuit(
    stim_circuit, basis, distance, rounds, flatten
):
    ours = memory_circuit(RotatedSurfaceCode(distance), CircuitNoise.stim(P), rounds, basis)
    want, got = (
        circuit.detector_error_model(flatten_loops=flatten)
        for circuit in (stim_circuit(distance, rounds, basis, P), ours)
    )
    assert got.approx_equals(want, atol=1e-9)


@each_basis
@each_orientation
@pytest.mark.parametrize("distance", [3, 5])
def test_the_circuit_distance_is_the_code_distance(basis, orientation, distance):
    code = RotatedSurfaceCode(distance, orientation)
    circuit = memory_circuit(code, CircuitNoise.uniform(P), distance, basis)
    assert len(circuit.shortest_graphlike_error()) == distance


@each_basis
@each_orientation
@pytest.mark.parametrize("rounds", [1, 2, 3, 7])
def test_detectors_are_deterministic_and_in_their_layers(basis, orientation, rounds):
    code = RotatedSurfaceCode(3, orientation)
    circuit = memory_circuit(code, CircuitNoise(), rounds, basis)
    assert not circuit.compile_detector_sampler(seed=1).sample(64, append_observables=True).any()
    found = sorted(tuple(map(int, c)) for c in circuit.get_detector_coordinates().values())
    other = "XZ".replace(basis, "")
    want = [(*xy, k) for xy in code.check_coords(basis) for k in range(rounds + 1)]
    want += [(*xy, k) for xy in code.check_coords(other) for k in range(1, rounds)]
    assert found == sorted(want)


@each_orientation
def test_no_qubit_takes_part_in_two_cnots_at_once(orientation):
    circuit = memory_circuit(RotatedSurfaceCode(5, orientation), CircuitNoise.uniform(P), 3, "X")
    layers = [[]]
    for operation in circuit.flattened():
        if operation.name == "TICK":
            layers.append([])
        elif operation.name == "CX":
            layers[-1] += [target.value for target in operation.targets_copy()]
    assert sum(bool(layer) for layer in layers) == 4 * 3
    assert all(len(layer) == len(set(layer)) for layer in layers)


def only(**rates):
    return CircuitNoise(**rates)


FLIPS_Z_CHECKS = (
    [only(prep_z=P), only(meas_z=P), only(idle_spam=(P, 0, 0)), only(idle_cnot=(P, 0, 0))]
    + [only(cnot=[P * (pair == k) for pair in PAULI_PAIRS]) for k in ("IX", "XI", "XX")]
)  # fmt: skip
FLIPS_X_CHECKS = (
    [only(prep_x=P), only(meas_x=P), only(idle_spam=(0, 0, P)), only(idle_cnot=(0, 0, P))]
    + [only(cnot=[P * (pair == k) for pair in PAULI_PAIRS]) for k in ("IZ", "ZI", "ZZ")]
)  # fmt: skip


@each_basis
@pytest.mark.parametrize(
    ("fires", "noise"),
    [("Z", n) for n in FLIPS_Z_CHECKS] + [("X", n) for n in FLIPS_X_CHECKS],
)
def test_each_rate_fires_the_checks_that_it_should(basis, fires, noise):
    code = RotatedSurfaceCode(3, "XH")
    circuit = memory_circuit(code, noise, 3, basis)
    assert types_that_fire(code, circuit) == {fires}


@pytest.mark.parametrize("rates", [{"idle_spam": (0, P, 0)}, {"idle_cnot": (0, P, 0)}])
def test_y_errors_fire_both_types(rates):
    code = RotatedSurfaceCode(3)
    assert types_that_fire(code, memory_circuit(code, only(**rates), 3, "X")) == {"X", "Z"}


@each_basis
def test_pauli_channels_agree_with_depolarising_ones_in_their_limit(basis):
    code, equal = RotatedSurfaceCode(3), CircuitNoise.uniform(P)
    tilt = {
        name: tuple(r * (1 + 1e-6 * k) for k, r in enumerate(getattr(equal, name)))
        for name in ("idle_cnot", "idle_spam", "cnot")
    }
    exact = memory_circuit(code, equal, 3, basis)
    tilted = memory_circuit(code, dataclasses.replace(equal, **tilt), 3, basis)
    assert "PAULI_CHANNEL" not in str(exact)
    assert {"DEPOLARIZE1", "DEPOLARIZE2"}.isdisjoint(op.name for op in tilted.flattened())
    want, got = mechanisms(exact), mechanisms(tilted)
    assert got.keys() == want.keys()
    # Stim takes general channels to first order in their rates.
    assert all(got[key] == pytest.approx(want[key], rel=3 * P) for key in want)


def test_the_rates_of_a_cnot_are_control_first():
    """As in Stim, whose PAULI_CHANNEL_2 follows each CX on the same targets."""
    rates = [P * (k + 1) / 100 for k in range(15)]
    circuit = memory_circuit(RotatedSurfaceCode(3), only(cnot=rates), 1, "X").flattened()
    steps = [k for k, op in enumerate(circuit) if op.name == "CX"]
    assert len(steps) == 4
    for k in steps:
        cnots, channel = circuit[k], circuit[k + 1]
        assert channel.name == "PAULI_CHANNEL_2"
        assert channel.targets_copy() == cnots.targets_copy()
        assert channel.gate_args_copy() == pytest.approx(rates)


@each_basis
@pytest.mark.parametrize("rounds", [2, 3, 5])
def test_perfect_final_round(basis, rounds):
    code, noise = RotatedSurfaceCode(3), CircuitNoise.uniform(P)
    perfect = memory_circuit(code, noise, rounds, basis, perfect_final_round=True)
    noisy = memory_circuit(code, noise, rounds, basis)
    assert perfect.get_detector_coordinates() == noisy.get_detector_coordinates()
    assert len(perfect.shortest_graphlike_error()) == 3
    last = {f"D{k}" for k, (_, _, t) in perfect.get_detector_coordinates().items() if t == rounds}
    # Data errors before the perfect round are seen by it; the readout has nothing to add.
    assert not any(last & set(targets) for targets in mechanisms(perfect))
    assert any(last & set(targets) for targets in mechanisms(noisy))
    # The noise of the first R - 1 rounds is that of the noisy circuit: events of its first R - 2
    # layers come from the same mechanisms.
    early = {
        f"D{k}" for k, (_, _, t) in perfect.get_detector_coordinates().items() if t < rounds - 1
    }
    first = [
        {key: p for key, p in mechanisms(c).items() if {t for t in key if t[0] == "D"} <= early}
        for c in (perfect, noisy)
    ]
    assert first[0].keys() == first[1].keys()


def test_more_rounds_cost_no_more_text():
    code, noise = RotatedSurfaceCode(3), CircuitNoise.uniform(P)
    short, long = (memory_circuit(code, noise, r, "X") for r in (3, 10**6))
    assert len(str(long)) < len(str(short)) + 20
    assert long.num_detectors == 4 * (10**6 + 1) + 4 * (10**6 - 1)


def test_every_family_gives_a_decomposable_model():
    for name, (orientation, basis) in itertools.product(
        ("uniform", "stim", "si1000"), itertools.product(ORIENTATIONS, "XZ")
    ):
        code, noise = RotatedSurfaceCode(3, orientation), CircuitNoise.named(name, P)
        dem = memory_circuit(code, noise, 3, basis).detector_error_model(decompose_errors=True)
        assert isinstance(dem, stim.DetectorErrorModel)


@pytest.mark.parametrize("rounds", [0, -1, 2.0, "3", True, None])
def test_bad_rounds(rounds):
    with pytest.raises(QecError, match=r"rounds=.* use an integer >= 1"):
        memory_circuit(RotatedSurfaceCode(3), CircuitNoise(), rounds, "X")


@pytest.mark.parametrize("basis", ["x", "Y", "", None])
def test_bad_basis(basis):
    with pytest.raises(QecError, match=r"basis=.* use X or Z"):
        memory_circuit(RotatedSurfaceCode(3), CircuitNoise(), 1, basis)


def test_perfect_final_round_needs_two_rounds():
    with pytest.raises(QecError, match="needs rounds >= 2"):
        memory_circuit(RotatedSurfaceCode(3), CircuitNoise(), 1, "X", perfect_final_round=True)
