"""Recognition of the space-time lattice from detector error models of many origins."""

import math
import pathlib

import numpy as np
import pytest
import stim

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.patch import MEMORY
from qec.circuits.surface_code import ORIENTATIONS, RotatedSurfaceCode
from qec.support.errors import QecError

GOOGLE = pathlib.Path(__file__).parents[3] / "shared/data/google_qec3v5"
P = 0.005
each_basis = pytest.mark.parametrize("basis", ["X", "Z"])
each_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def dem_of(circuit):
    return circuit.detector_error_model(decompose_errors=True)


def with_coordinates(dem, change):
    """The model with each detector's coordinates replaced by change(x, y, t)."""
    moved = stim.DetectorErrorModel()
    for item in dem.flattened():
        if item.type == "detector":
            moved.append("detector", list(change(*item.args_copy())), item.targets_copy())
        else:
            moved.append(item)
    return moved


def assert_same(a, b):
    assert (a.distance, a.rounds, a.parity) == (b.distance, b.rounds, b.parity)
    for name in ("layer", "row", "col", "sector", "logical_support"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    np.testing.assert_allclose(a.detection_rate, b.detection_rate)


def observable_line(circuit, lattice):
    """Canonical (row, column) of the data qubits of observable 0, from its measurements."""
    readout = [op for op in circuit.flattened() if op.name in ("M", "MX")][-1].targets_copy()
    targets = circuit.flattened()[-1].targets_copy()
    xy = circuit.get_final_qubit_coordinates()
    records = [xy[readout[len(readout) + t.value].value] for t in targets]
    return {tuple(map(int, np.floor(place))) for place in lattice.frame(np.array(records))}


def check_against_circuit(circuit, lattice, distance, rounds):
    """Every field, from the definitions."""
    assert (lattice.distance, lattice.rounds) == (distance, rounds)
    coordinates = np.array([xyt for _, xyt in sorted(circuit.get_detector_coordinates().items())])
    np.testing.assert_array_equal(lattice.layer, coordinates[:, 2])
    np.testing.assert_allclose(
        lattice.frame(coordinates[:, :2]), np.stack([lattice.row, lattice.col], axis=1)
    )
    first = {tuple(xy) for xy in coordinates[coordinates[:, 2] == 0][:, :2]}
    memory = np.array([tuple(xy) in first for xy in coordinates[:, :2]])
    np.testing.assert_array_equal(lattice.sector == MEMORY, memory)
    assert lattice.check_sites[lattice.sector, lattice.row, lattice.col].all()
    # Weight-2 memory checks are on the first and last row of the canonical frame.
    assert {0, distance} <= set(lattice.row[memory])
    assert {0, distance}.isdisjoint(lattice.col[memory])
    assert set(map(tuple, np.argwhere(lattice.logical_support))) == observable_line(
        circuit, lattice
    )


@each_basis
@each_orientation
@pytest.mark.parametrize("noise", ["uniform", "stim", "si1000"])
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 2), (3, 3), (3, 7), (5, 5)])
def test_our_circuits(our_circuit, basis, orientation, noise, distance, rounds):
    circuit = our_circuit(distance, rounds, basis, P, orientation, noise)
    check_against_circuit(circuit, SpaceTimeLattice.from_circuit(circuit), distance, rounds)


@each_basis
@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("rounds", [1, 2, 5, 11])
def test_stims_circuits(stim_circuit, basis, distance, rounds):
    circuit = stim_circuit(distance, rounds, basis, P)
    lattice = SpaceTimeLattice.from_dem(dem_of(circuit))
    check_against_circuit(circuit, lattice, distance, rounds)
    assert_same(lattice, SpaceTimeLattice.from_circuit(circuit))
    # Loops and decomposition change nothing.
    undecomposed = circuit.detector_error_model(flatten_loops=True)
    assert_same(lattice, SpaceTimeLattice.from_dem(undecomposed))


def test_large_and_perfect_final_round():
    circuit = memory_circuit(
        RotatedSurfaceCode(9, "XH"), CircuitNoise.uniform(P), 9, "Z", perfect_final_round=True
    )
    check_against_circuit(circuit, SpaceTimeLattice.from_circuit(circuit), 9, 9)


@pytest.mark.parametrize("rounds", [1, 3])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, t: (x + 3, y - 7, t + 11),
        lambda x, y, t: (x / 2, y / 2, t),
        lambda x, y, t: (0.3 * x + 0.1, 0.3 * y, 2.5 * t),
        lambda x, y, t: (x, y, t, 5),
        lambda x, y, t: (x, y, t, x % 4, -1),
    ],
    ids=["shifted", "scaled", "both", "fourth coordinate", "five coordinates"],
)
def test_shifted_and_scaled_coordinates(our_circuit, rounds, change):
    dem = dem_of(our_circuit(3, rounds, "Z", P, "XV"))
    assert_same(
        SpaceTimeLattice.from_dem(with_coordinates(dem, change)), SpaceTimeLattice.from_dem(dem)
    )


@each_basis
@each_orientation
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 3), (5, 2)])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, t: ((x + y) / 2, (x - y) / 2, t),
        lambda x, y, t: ((y - x) / 2 + 5, (x + y) / 2 - 2, t),
        lambda x, y, t: (-x - y, x - y, t),
        lambda x, y, t: (-y, x, t),
        lambda x, y, t: (y, x, t),
    ],
    ids=["45", "-45 shifted", "135 scaled", "90", "mirrored"],
)
def test_rotated_coordinates(our_circuit, basis, orientation, distance, rounds, change):
    """The same lattice up to a symmetry of the square, which keeps all distances."""
    dem = dem_of(our_circuit(distance, rounds, basis, P, orientation))
    a, b = SpaceTimeLattice.from_dem(dem), SpaceTimeLattice.from_dem(with_coordinates(dem, change))
    assert (a.distance, a.rounds) == (b.distance, b.rounds)
    np.testing.assert_array_equal(a.layer, b.layer)
    np.testing.assert_array_equal(a.sector, b.sector)
    apart = []
    for lattice in (a, b):
        place = np.stack([lattice.row, lattice.col])
        apart.append(np.sort(abs(place[:, :, None] - place[:, None, :]), axis=0))
        assert lattice.check_sites[lattice.sector, lattice.row, lattice.col].all()
    np.testing.assert_array_equal(*apart)
    assert a.logical_support.sum() == b.logical_support.sum() == distance
    assert b.logical_support.any(axis=1).all()  # memory-sector strings run along the rows


@each_basis
@pytest.mark.parametrize("line", [0, 1, 2])
def test_the_observable_may_be_any_logical(our_circuit, basis, line):
    circuit = our_circuit(3, 3, basis)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    readout = [op for op in circuit.flattened() if op.name in ("M", "MX")][-1].targets_copy()
    xy = circuit.get_final_qubit_coordinates()
    columns = [int(lattice.frame(np.array([xy[q.value]]))[0, 1]) for q in readout]
    records = [stim.target_rec(k - 9) for k, column in enumerate(columns) if column == line]
    moved = circuit[:-1]
    moved.append("OBSERVABLE_INCLUDE", records, 0)
    want = np.zeros((3, 3), dtype=bool)
    want[:, line] = True
    np.testing.assert_array_equal(SpaceTimeLattice.from_circuit(moved).logical_support, want)


@each_basis
def test_detection_rates_are_those_of_the_sampler(our_circuit, basis):
    circuit = our_circuit(3, 3, basis, 0.02)
    shots = 100_000
    found = circuit.compile_detector_sampler(seed=5).sample(shots).mean(axis=0)
    rate = SpaceTimeLattice.from_circuit(circuit).detection_rate
    z = (found - rate) / np.sqrt(rate * (1 - rate) / shots)
    assert abs(z).max() < 6  # 24 detectors: a false alarm has probability 5e-8


@pytest.mark.parametrize("distance", [3, 5])
@pytest.mark.parametrize("rounds", [5, 11])
@pytest.mark.parametrize("model", ["circuit_detector_error_model", "pij_from_even_for_odd"])
def test_google_devices(distance, rounds, model):
    folders = list(GOOGLE.glob(f"surface_code_bX_d{distance}_r{rounds:02d}_*"))
    if not folders:
        pytest.skip("the Google data set is not there")
    lattice = SpaceTimeLattice.from_dem(
        stim.DetectorErrorModel.from_file(folders[0] / f"{model}.dem")
    )
    assert (lattice.distance, lattice.rounds) == (distance, rounds)
    assert lattice.logical_support.sum() % 2 == 1
    events = stim.read_shot_data_file(
        path=folders[0] / "detection_events.b8",
        format="b8",
        num_detectors=lattice.num_detectors,
    )
    assert abs(events.mean(axis=0) - lattice.detection_rate).max() < 0.1
    assert events.mean() == pytest.approx(lattice.detection_rate.mean(), rel=0.15)


def generated(task, distance, rounds):
    noise = {"after_clifford_depolarization": P, "before_measure_flip_probability": P}
    return stim.Circuit.generated(task, distance=distance, rounds=rounds, **noise)


@pytest.mark.parametrize(
    ("task", "distance", "rounds"),
    [
        ("repetition_code:memory", 3, 3),
        ("repetition_code:memory", 9, 1),
        ("color_code:memory_xyz", 3, 2),
        ("color_code:memory_xyz", 5, 4),
        ("surface_code:unrotated_memory_x", 3, 3),
        ("surface_code:unrotated_memory_z", 5, 1),
    ],
)
def test_other_codes_are_refused(task, distance, rounds):
    dem = generated(task, distance, rounds).detector_error_model()
    with pytest.raises(QecError) as refusal:
        SpaceTimeLattice.from_dem(dem)
    message = str(refusal.value)
    assert "rotated surface code" in message or "(x, y, t) coordinates" in message
    assert "\n" not in message
    assert "Use a rotated surface-code memory experiment" in message or "Keep the" in message


def refusal(dem):
    with pytest.raises(QecError) as caught:
        SpaceTimeLattice.from_dem(dem)
    return str(caught.value)


def test_models_without_coordinates_are_refused(our_circuit):
    dem = dem_of(our_circuit(3, 2, "X"))
    assert "16 of 16 detectors have no (x, y, t) coordinates (first: D0)" in refusal(
        with_coordinates(dem, lambda *_: ())
    )
    assert "(x, y, t)" in refusal(with_coordinates(dem, lambda x, y, t: (x, y)))
    assert "no detectors" in refusal(stim.DetectorErrorModel())
    assert "same time" in refusal(with_coordinates(dem, lambda x, y, t: (x, y, 0)))


def test_a_missing_or_doubled_detector_is_refused(our_circuit):
    circuit = our_circuit(3, 3, "Z").flattened()
    places = [k for k, op in enumerate(circuit) if op.name == "DETECTOR"]
    for k in (places[0], places[9], places[-1]):
        without = circuit[:k] + circuit[k + 1 :]
        message = refusal(dem_of(without))
        assert "do not lie on the grid of a rotated surface code" in message
    k = places[9]
    assert "two detectors of one check have the same time" in refusal(
        dem_of(circuit[: k + 1] + circuit[k:])
    )


def test_the_number_of_observables(our_circuit):
    circuit = our_circuit(3, 2, "X")
    two = circuit.copy()
    two.append("OBSERVABLE_INCLUDE", circuit[-1].targets_copy(), 1)
    assert "has 2 observables; a surface-code memory experiment has exactly one" in refusal(
        dem_of(two)
    )
    assert "has 0 observables" in refusal(dem_of(circuit[:-1]))


def test_an_observable_that_is_no_logical_is_refused(our_circuit):
    circuit = our_circuit(3, 2, "X")
    half = circuit[:-1]
    half.append("OBSERVABLE_INCLUDE", circuit[-1].targets_copy()[:1], 0)
    with pytest.raises(QecError, match=r"detector error model|logical operator"):
        SpaceTimeLattice.from_circuit(half)


def test_a_model_without_data_errors_is_refused():
    noise = CircuitNoise(meas_x=P, meas_z=P, prep_x=P, prep_z=P, cnot=(0,) * 15)
    circuit = memory_circuit(RotatedSurfaceCode(3), noise, 2, "X")
    dem = stim.DetectorErrorModel(
        "\n".join(
            line
            for line in str(dem_of(circuit).flattened()).splitlines()
            if "L0" not in line or not line.startswith("error")
        )
        + "\nlogical_observable L0"
    )
    assert "Give every data qubit a non-zero error rate" in refusal(dem)


def test_random_detectors_are_refused_with_stims_reason(our_circuit):
    random = stim.Circuit("R 0\nH 0\nM 0\nDETECTOR(0, 0, 0) rec[-1]")
    with pytest.raises(QecError, match=r"Stim cannot derive a detector error model: .*determin"):
        SpaceTimeLattice.from_circuit(random)


def test_probabilities_of_the_model_are_checked(our_circuit):
    """Stim refuses probabilities outside [0, 1] itself, but lets NaN in this way."""
    dem = dem_of(our_circuit(3, 1, "X"))
    dem.append("error", math.nan, [stim.target_relative_detector_id(0)])
    assert "not in [0, 1]" in refusal(dem)
