"""Circuits and models as other generators write them: frames, times, padding, shapes, rates."""

import copy
import dataclasses
import pickle
import warnings

import numpy as np
import pytest
import stim

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.patch import PADDING
from qec.circuits.surface_code import RotatedSurfaceCode, plaquette_sites
from qec.decoding.decoder import Decoder, named_decoder
from qec.decoding.decoder_names import DECODER_NAMES, has_predecoder
from qec.matching.matcher import Unexplained
from qec.predecoder.predecoder import Predecoder
from qec.support.errors import QecError
from qec.training.mixture import cz_compiled
from qec.windows.window_decoder import WindowDecoder

WITHOUT_NETWORK = [name for name in DECODER_NAMES if not has_predecoder(name)]
CSS = [name for name in WITHOUT_NETWORK if "css" in name]
# An ensemble sets up 31 matchings: only where it reads the model in a way of its own.
QUICK = [name for name in DECODER_NAMES if "ensemble" not in name]
CHANNELS = (
    "after_clifford_depolarization",
    "before_measure_flip_probability",
    "after_reset_flip_probability",
    "before_round_data_depolarization",
)


def generated(task="rotated_memory_z", distance=3, rounds=3, p=0.006, **noise):
    """Stim's circuit, with all four of its channels or with some."""
    noise = noise or dict.fromkeys(CHANNELS, p)
    return stim.Circuit.generated(f"surface_code:{task}", distance=distance, rounds=rounds, **noise)


def with_coordinates(circuit, change):
    """The circuit with each detector's coordinates replaced by change(x, y, t)."""
    moved = stim.Circuit()
    t = 0.0
    for op in circuit.flattened():
        if op.name == "SHIFT_COORDS":
            t += op.gate_args_copy()[2]
        elif op.name == "DETECTOR":
            x, y, dt = op.gate_args_copy()
            moved.append("DETECTOR", op.targets_copy(), change(x, y, t + dt))
        elif op.name != "QUBIT_COORDS":
            moved.append(op)
    return moved


def predictions(circuit, names=QUICK, shots=300, seed=5):
    dets = circuit.compile_detector_sampler(seed=seed).sample(shots)
    dem = detector_error_model(circuit)
    return {name: named_decoder(name, dem).decode_batch(dets) for name in names}


def assert_same(found, wanted):
    for name, flips in wanted.items():
        np.testing.assert_array_equal(found[name], flips, err_msg=name)


def errors(names, dem, dets, flips):
    return {n: int((named_decoder(n, dem).decode_batch(dets) != flips).sum()) for n in names}


def assert_networks_do_no_harm(circuit, shots=3000):
    """Where a network does not fit it stays out, and where it does it hardly errs more often.

    Paired: equally good decoders differ by a symmetric binomial over the discordant shots, beyond 5
    of its sigmas with probability below 1e-6; seeds are fixed.
    """
    dem = detector_error_model(circuit)
    dets, flips = circuit.compile_detector_sampler(seed=8).sample(shots, separate_observables=True)
    wrong = []
    with warnings.catch_warnings(action="ignore"):  # that it stays out
        for name in ("matching-cascade", "predecoder+matching-cascade"):
            wrong.append(named_decoder(name, dem).decode_batch(dets) != flips)
        commits_nothing = Decoder.from_dem(dem, predecoder=Predecoder.null(), cascade=False)
    plain, network = wrong
    worse, better = (network & ~plain).sum(), (plain & ~network).sum()
    assert worse - better <= 5 * np.sqrt(worse + better)
    want = named_decoder("pymatching-memory-css", dem).decode_batch(dets)
    np.testing.assert_array_equal(commits_nothing.decode_batch(dets), want)


# Frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", ["x", "z"])
@pytest.mark.parametrize(
    "change",
    [
        lambda x, y, t: (10 - x, 10 - y, t),
        lambda x, y, t: (10 - x, y, t),
        lambda x, y, t: (x, 10 - y, t),
        lambda x, y, t: (y, 10 - x, t),
        lambda x, y, t: (-y - x, x - y, t),
    ],
    ids=["turned", "mirrored in x", "mirrored in y", "by 90 degrees", "by 135 degrees"],
)
def test_the_frame_does_not_matter(basis, change):
    """A renaming of detectors: every decoder, networks included, predicts the same."""
    circuit = generated(f"rotated_memory_{basis}", 5, 4)
    names = ("pymatching-css", "predecoder+matching-cascade", "belief-matching")
    assert_same(predictions(with_coordinates(circuit, change), names), predictions(circuit, names))


class SameOrder(RotatedSurfaceCode):
    """Checks of both types couple to their data qubits in one order, as some compilers have it."""

    def schedule(self, basis):
        return super().schedule("X")


@pytest.mark.parametrize("basis", ["X", "Z"])
def test_gates_in_another_order(basis):
    circuit = memory_circuit(SameOrder(5), CircuitNoise.stim(0.004), 5, basis)
    assert_networks_do_no_harm(circuit)


# Noise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [1, 3])
def test_code_capacity(rounds):
    """Data noise between rounds only: the last detectors, among others, never fire."""
    circuit = generated(rounds=rounds, before_round_data_depolarization=0.1)
    found = predictions(circuit, CSS, shots=1000)
    np.testing.assert_array_equal(found["pymatching-memory-css"], found["pymatching-css"])
    assert_networks_do_no_harm(circuit)


@pytest.mark.parametrize("distance", [3, 5])
def test_a_perfect_final_round(distance):
    code, noise = RotatedSurfaceCode(distance), CircuitNoise.uniform(0.008)
    circuit = memory_circuit(code, noise, distance, "X", perfect_final_round=True)
    found = predictions(circuit, CSS[:3])
    np.testing.assert_array_equal(found["pymatching-memory-css"], found["pymatching-css"])
    assert_networks_do_no_harm(circuit)


@pytest.mark.parametrize("p", [0.0, 0.0004])
def test_gates_that_are_compiled_to_cz(our_circuit, p):
    assert_networks_do_no_harm(cz_compiled(our_circuit(5, 5, "Z", 0.005), p))


@pytest.mark.parametrize("likely", [0.5, 0.7, 1.0])
def test_mechanisms_that_happen_more_often_than_not(likely):
    """What is taken for granted costs nothing: the predictions are those of 1 - p, turned round."""
    dem = detector_error_model(generated(p=0.004))
    rare, often = stim.DetectorErrorModel(), stim.DetectorErrorModel()
    flipped, flip = np.zeros(dem.num_detectors, np.uint8), 0
    for k, item in enumerate(dem.flattened()):
        changed = item.type == "error" and k % 5 == 0
        p = 1 - likely if changed else None
        for model, rate in ((rare, p), (often, likely)):
            args = [rate] if changed else item.args_copy()
            model.append(item.type, args, item.targets_copy())
        if changed and likely > 0.5:
            for target in item.targets_copy():
                if target.is_relative_detector_id():
                    flipped[target.val] ^= 1
                elif target.is_logical_observable_id():
                    flip ^= 1
    dets, _, _ = rare.compile_sampler(seed=3).sample(400)
    dets = dets.view(np.uint8)
    # Where many mechanisms have 1/2, PyMatching's correlations find no weights.
    names = QUICK[:5] if likely > 0.5 else ["pymatching", "pymatching-memory-css"]
    for name in names:
        wanted = named_decoder(name, rare).decode_batch(dets) ^ flip
        decoder = named_decoder(name, often)
        np.testing.assert_array_equal(decoder.decode_batch(dets ^ flipped), wanted, err_msg=name)


def test_a_sure_error_is_taken_for_granted():
    """An X that is put in deliberately: what decoders are told of it, they allow for."""
    circuit = generated(p=0.004)
    place = next(k for k, op in enumerate(circuit) if op.name == "TICK")
    sure = circuit[:place] + stim.Circuit("X_ERROR(1) 8") + circuit[place:]
    dets, flips = sure.compile_detector_sampler(seed=4).sample(4000, separate_observables=True)
    plain, want = circuit.compile_detector_sampler(seed=4).sample(4000, separate_observables=True)
    assert dets.mean() > 1.2 * plain.mean()
    found = errors(CSS, detector_error_model(sure), dets, flips)
    right = errors(CSS, detector_error_model(circuit), plain, want)
    # The same number but for sampling: six standard deviations, false alarms below 1e-8 each.
    for name in CSS:
        assert abs(found[name] - right[name]) < 6 * np.sqrt(found[name] + right[name]), name
    assert found["pymatching-css"] == found["pymatching-memory-css"]


def test_uniform_noise_of_strength_one_is_a_circuit_that_stim_reads_back():
    circuit = memory_circuit(RotatedSurfaceCode(3), CircuitNoise.uniform(1), 3, "X")
    assert stim.Circuit(str(circuit)).num_detectors == circuit.num_detectors


def test_parallel_mechanisms_the_likelier_sign_counts():
    """Of two mechanisms with the same detectors, the order of lines does not matter."""
    circuit = generated(p=0.006)
    dem = detector_error_model(circuit)
    dets = circuit.compile_detector_sampler(seed=3).sample(2000)
    single = next(
        item
        for item in dem.flattened()
        if item.type == "error" and [str(t) for t in item.targets_copy()] == ["D22"]
    )
    assert single.args_copy()[0] > 1e-3
    rare = stim.DetectorErrorModel("error(1e-7) D22 L0")
    for name in CSS:
        wanted = named_decoder(name, dem).decode_batch(dets)
        for model in (dem + rare, rare + dem):
            np.testing.assert_array_equal(named_decoder(name, model).decode_batch(dets), wanted)


def test_tags_change_nothing():
    dem = detector_error_model(generated())
    tagged = stim.DetectorErrorModel()
    for item in dem.flattened():
        tag = "D1 D2 D3] ^ L0\nerror(0.3) D0 [" if item.type == "error" else ""
        tagged.append(
            stim.DemInstruction(item.type, item.args_copy(), item.targets_copy(), tag=tag)
        )
    dets, _, _ = dem.compile_sampler(seed=1).sample(300)
    for name in QUICK[:5]:
        wanted = named_decoder(name, dem).decode_batch(dets)
        np.testing.assert_array_equal(named_decoder(name, tagged).decode_batch(dets), wanted)


@pytest.mark.parametrize(
    "line", ["D9 L0", "D9 ^ L0", "L0 ^ D9", "L0", "D9 ^ L0 ^ D11", "D9 L0 ^ L0 ^ D11"]
)
def test_an_observable_flip_that_no_memory_check_sees(line):
    dem = detector_error_model(generated())
    assert SpaceTimeLattice.from_dem(dem).sector[[9, 11]].tolist() == [1, 1]
    dets, _, _ = dem.compile_sampler(seed=1).sample(300)
    more = dem + stim.DetectorErrorModel(f"error(1e-5) {line}")
    for name in QUICK[:5]:
        wanted = named_decoder(name, dem).decode_batch(dets)
        np.testing.assert_array_equal(
            named_decoder(name, more).decode_batch(dets), wanted, err_msg=name
        )


# Times and padding -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "time",
    [
        lambda x, y, t: t - 0.5 * (t == 3),
        lambda x, y, t: t * t,
        lambda x, y, t: 8 * t + 5 * (t == 3),
        lambda x, y, t: t + 0.25 * ((x + y) % 4 == 0),
        lambda x, y, t: 1e6 + 1e-3 * t,
    ],
    ids=["late readout", "uneven", "in steps of 8", "one type later", "large"],
)
def test_only_the_order_of_times_matters(time):
    circuit = generated()
    moved = with_coordinates(circuit, lambda x, y, t: (x, y, time(x, y, t)))
    assert_same(predictions(moved, shots=100), predictions(circuit, shots=100))


@pytest.mark.parametrize("layers", [(0,), (3,), (0, 3)])
def test_padding_is_ignored(layers):
    """Detectors of no measurement that make the first and the last layer like the others."""
    circuit = generated().flattened()
    others = [(2, 0), (2, 4), (4, 2), (4, 6)]
    coordinates = circuit.get_detector_coordinates()
    assert {(4.0, 2.0, 1.0), (2.0, 4.0, 2.0)} <= set(map(tuple, coordinates.values()))
    padded = with_coordinates(circuit, lambda x, y, t: (x, y, t))
    for layer in layers:
        for x, y in others:
            padded.append("DETECTOR", [], (x, y, layer))
    lattice = SpaceTimeLattice.from_circuit(padded)
    assert (lattice.sector == PADDING).sum() == 4 * len(layers)
    dets = circuit.compile_detector_sampler(seed=5).sample(300)
    silent = np.zeros((300, 4 * len(layers)), np.bool_)
    for name in QUICK:
        wanted = named_decoder(name, detector_error_model(circuit)).decode_batch(dets)
        decoder = named_decoder(name, detector_error_model(padded))
        found = decoder.decode_batch(np.concatenate([dets, silent], axis=1))
        np.testing.assert_array_equal(found, wanted, err_msg=name)


def test_windows_pass_over_padding_and_refuse_likely_mechanisms():
    circuit = generated(rounds=8)
    padded = circuit + stim.Circuit("DETECTOR(2, 4, -7)\nDETECTOR(2, 4, 1)\nDETECTOR")
    dets = circuit.compile_detector_sampler(seed=5).sample(300)
    wider = np.concatenate([dets, np.zeros((300, 3), np.bool_)], axis=1)
    for options in ({}, {"predecoder": "standard"}):
        windows = [
            WindowDecoder(detector_error_model(c), 3, 3, parallel=True, **options)
            for c in (circuit, padded)
        ]
        np.testing.assert_array_equal(windows[1].decode_batch(wider), windows[0].decode_batch(dets))
    likely = detector_error_model(circuit) + stim.DetectorErrorModel("error(0.7) D3 D9")
    with pytest.raises(QecError, match="in half of the shots or more"):
        WindowDecoder(likely, 3, 3)


@pytest.mark.parametrize("value", [1e7, -1e15, 1e300, np.inf, np.nan, 0.123])
def test_a_detector_far_off_is_refused_at_once(value):
    dem = detector_error_model(generated())
    moved = stim.DetectorErrorModel()
    for item in dem.flattened():
        if item.type == "detector" and item.targets_copy()[0].val == 7:
            moved.append("detector", [value, 2, 1], item.targets_copy())
        else:
            moved.append(item)
    with pytest.raises(QecError, match=r"check positions|elsewhere|has the checks of|coordinates"):
        SpaceTimeLattice.from_dem(moved)


def test_padding_without_coordinates_or_off_the_grid():
    circuit = generated()
    padded = circuit + stim.Circuit("DETECTOR\nDETECTOR(77, -3, 1)")
    lattice = SpaceTimeLattice.from_circuit(padded)
    assert (lattice.sector == PADDING).tolist() == [False] * circuit.num_detectors + [True] * 2


# Shapes ------------------------------------------------------------------------------------------


class Rectangle(RotatedSurfaceCode):
    """A patch of rows x cols data qubits, "ZV"."""

    def __init__(self, rows, cols):
        object.__setattr__(self, "distance", max(rows, cols))
        object.__setattr__(self, "orientation", "ZV")
        object.__setattr__(self, "size", (rows, cols))

    def check_sites(self, basis):
        return plaquette_sites(self.size, int(basis == "X"), on_rows=basis == "X")

    def data_coords(self):
        rows, cols = self.size
        return [(2 * c + 1, 2 * r + 1) for r in range(rows) for c in range(cols)]

    def logical_coords(self, basis):
        rows, cols = self.size
        if basis == "X":
            return [(1, 2 * r + 1) for r in range(rows)]
        return [(2 * c + 1, 1) for c in range(cols)]


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("size", [(3, 5), (5, 3), (4, 4), (4, 6), (3, 4)])
@pytest.mark.slow
def test_rectangles_and_even_distances(basis, size):
    circuit = memory_circuit(Rectangle(*size), CircuitNoise.stim(0.004), 3, basis)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    assert sorted(lattice.shape) == sorted(size)
    assert lattice.distance == len(circuit.shortest_graphlike_error())
    dets, flips = circuit.compile_detector_sampler(seed=6).sample(4000, separate_observables=True)
    wrong = errors(WITHOUT_NETWORK, detector_error_model(circuit), dets, flips)
    assert wrong["pymatching-css"] == wrong["pymatching-memory-css"]
    # Better models of the same errors do no harm: six standard deviations of the difference.
    for name in CSS:
        allowed = 6 * np.sqrt(2 * wrong["pymatching"] + 1)
        assert wrong[name] < wrong["pymatching"] + allowed, (name, wrong)
    assert_networks_do_no_harm(circuit)


@pytest.mark.parametrize("distance", [4, 6])
@pytest.mark.parametrize("rounds", [1, 2])
def test_stims_even_distances(distance, rounds):
    circuit = generated("rotated_memory_x", distance, rounds)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    assert (lattice.shape, lattice.rounds) == ((distance, distance), rounds)
    assert str(lattice) == f"d = {distance}"


@pytest.mark.parametrize(
    ("task", "distance", "rounds", "what"),
    [
        ("unrotated_memory_x", 3, 2, "an unrotated surface code, d = 3"),
        ("unrotated_memory_z", 4, 1, "an unrotated surface code, d = 4"),
        ("rotated_memory_z", 2, 2, "no patch of distance 3 or more"),
    ],
)
def test_refusals_name_the_shape(task, distance, rounds, what):
    circuit = generated(task, distance, rounds)
    dem = detector_error_model(circuit)
    dets = circuit.compile_detector_sampler(seed=1).sample(20)
    for name in DECODER_NAMES:
        if name in ("pymatching", "pymatching-correlated"):
            assert named_decoder(name, dem).decode_batch(dets).shape == (20, 1)
        else:
            with pytest.raises(QecError, match=what):
                named_decoder(name, dem)


# Events ------------------------------------------------------------------------------------------


def test_events_of_detectors_that_nothing_flips_mean_nothing():
    model = detector_error_model(generated(before_round_data_depolarization=0.02))
    live = np.setdiff1d(np.arange(24), SpaceTimeLattice.from_dem(model).silent)
    dets, _, _ = model.compile_sampler(seed=1).sample(200)
    noisy = np.ones_like(dets)
    noisy[:, live] = dets[:, live]
    for name in QUICK[:5]:
        decoder = named_decoder(name, model)
        np.testing.assert_array_equal(decoder.decode_batch(noisy), decoder.decode_batch(dets))


def test_events_that_no_mechanism_explains_name_the_shot():
    """Checks 0 and 1 are only ever flipped together: an event of one alone means another model."""
    dem = detector_error_model(generated())
    closed = stim.DetectorErrorModel()
    for item in dem.flattened():
        owners = {t.val for t in item.targets_copy() if t.is_relative_detector_id()}
        if item.type != "error" or not owners & {0, 4, 12, 20}:
            closed.append(item)
    closed += stim.DetectorErrorModel("error(0.01) D0 D4")
    dets, _, _ = closed.compile_sampler(seed=2).sample(5000)
    dets = dets.copy()
    dets[4500, 0] ^= True
    packed = np.packbits(dets, axis=1, bitorder="little")
    decoder = named_decoder("pymatching", closed)
    with pytest.raises(Unexplained, match=r"shot 4500 .* among D0, D4, which"):
        decoder.decode_recorded(packed)
    with pytest.raises(QecError, match="shot 4500"):
        decoder.decode_batch(dets)
    assert len(decoder.decode_batch(dets[:4500])) == 4500
    error = pickle.loads(pickle.dumps(Unexplained(3, [1, 2])))
    assert (error.shot, error.detectors) == (3, [1, 2])


@pytest.mark.parametrize("options", [{}, {"predecoder": "standard"}, {"predecoder": "small"}])
def test_any_value_but_zero_is_an_event(options):
    circuit = generated("rotated_memory_x", 3, 4)
    dets = circuit.compile_detector_sampler(seed=1).sample(300)
    decoder = Decoder.from_circuit(circuit, **options)
    wanted = decoder.decode_batch(dets)
    for factor in (2, 255):
        values = dets.astype(np.uint8) * np.uint8(factor)
        np.testing.assert_array_equal(decoder.decode_batch(values), wanted)
    packed = np.packbits(dets, axis=1, bitorder="little")
    with pytest.raises(QecError, match="uint8 of shape"):
        decoder.decode_batch(packed.astype(bool), bit_packed_shots=True)


# Objects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *("pymatching", "matching-cascade-ensemble", "predecoder+pymatching"),
        *("predecoder+matching-cascade", "belief-matching"),
    ],
)
def test_decoders_can_be_pickled_and_copied(name):
    circuit = generated()
    decoder = named_decoder(name, detector_error_model(circuit))
    dets = circuit.compile_detector_sampler(seed=1).sample(100)
    for other in (pickle.loads(pickle.dumps(decoder)), copy.deepcopy(decoder)):
        np.testing.assert_array_equal(other.decode_batch(dets), decoder.decode_batch(dets))


def test_a_circuit_in_place_of_its_model():
    circuit = generated()
    with pytest.raises(QecError, match=r"a circuit was given .* use from_circuit"):
        Decoder.from_dem(circuit)
    with pytest.raises(QecError, match=r"a stim\.DetectorErrorModel is needed, not str"):
        Decoder.from_dem(str(detector_error_model(circuit)))


def test_an_index_of_a_million_millions_is_a_slip():
    dem = detector_error_model(generated()) + stim.DetectorErrorModel("error(0.1) D1000000000000")
    with pytest.raises(QecError, match="is an index mistyped"):
        Decoder.from_dem(dem)


def test_no_warnings_where_all_is_well():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named_decoder("predecoder+pymatching", detector_error_model(generated()))


def test_a_lattice_is_immutable_data():
    lattice = SpaceTimeLattice.from_circuit(generated())
    with pytest.raises(dataclasses.FrozenInstanceError):
        lattice.rounds = 4
