"""The basis-split decomposition: an exact regrouping of the model, and never worse to decode."""

import collections
import math
import pathlib

import numpy as np
import pytest
import stim

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY
from qec.circuits.surface_code import ORIENTATIONS
from qec.matching.matcher import Matcher, basis_split, matching_model
from qec.support.errors import QecError

GOOGLE = pathlib.Path(__file__).parents[3] / "shared/data/google_qec3v5"
P = 0.006
each_basis = pytest.mark.parametrize("basis", ["X", "Z"])


def components(error):
    """[(detectors, observables)] of the pieces of one error instruction."""
    pieces = [(set(), set())]
    for target in error.targets_copy():
        if target.is_separator():
            pieces.append((set(), set()))
        elif target.is_relative_detector_id():
            pieces[-1][0].symmetric_difference_update({target.val})
        else:
            pieces[-1][1].symmetric_difference_update({target.val})
    return pieces


def mechanisms(dem):
    """Multiset of (detectors, observable flip, probability), whatever the decomposition."""
    found = collections.Counter()
    for error in dem.flattened():
        if error.type != "error":
            continue
        detectors, observables = set(), set()
        for d, o in components(error):
            detectors ^= d
            observables ^= o
        if detectors or observables:
            found[frozenset(detectors), bool(observables), error.args_copy()[0]] += 1
    return found


def combined(counts):
    """{mechanism: probability that an odd number of its entries happens}."""
    balance = collections.defaultdict(lambda: 1.0)
    for (detectors, flip, p), n in counts.items():
        balance[detectors, flip] *= (1 - 2 * p) ** n
    return {key: (1 - value) / 2 for key, value in balance.items()}


def assert_split(dem):
    lattice = SpaceTimeLattice.from_dem(dem)
    split = basis_split(lattice)
    assert (split.num_detectors, split.num_observables) == (dem.num_detectors, 1)
    assert mechanisms(split) == mechanisms(dem)
    for error in split:
        if error.type != "error":
            continue
        for detectors, observables in components(error):
            assert len(detectors) <= 2
            sectors = set(lattice.sector[sorted(detectors)].tolist())
            assert len(sectors) <= 1
            assert not observables or sectors <= {MEMORY}
    return split


@each_basis
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("noise", ["uniform", "si1000"])
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 2), (3, 7), (5, 5)])
def test_our_circuits(our_circuit, basis, orientation, noise, distance, rounds):
    circuit = our_circuit(distance, rounds, basis, P, orientation, noise)
    assert_split(circuit.detector_error_model())


@each_basis
@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("flatten", [False, True])
def test_stims_circuits_folded_or_not_decomposed_or_not(stim_circuit, basis, decompose, flatten):
    circuit = stim_circuit(3, 20, basis, P)
    dem = circuit.detector_error_model(decompose_errors=decompose, flatten_loops=flatten)
    assert ("repeat" in str(dem)) != flatten
    split = assert_split(dem)
    # Stim lists a mechanism once per decomposition that it found for it; together they are one.
    whole = combined(mechanisms(circuit.detector_error_model()))
    assert combined(mechanisms(split)) == pytest.approx(whole, rel=1e-6)


def test_what_the_split_is_for(stim_circuit):
    """Stim cuts pairs of checks of one type into pieces that reach for the boundary each."""
    dem = stim_circuit(5, 5, "X", P).detector_error_model(decompose_errors=True)
    split = basis_split(SpaceTimeLattice.from_dem(dem))
    most = [
        max(len(components(error)) for error in model.flattened() if error.type == "error")
        for model in (dem, split)
    ]
    assert most[0] > 2
    assert most[1] == 2


@pytest.mark.parametrize("experiment", ["d3_r05", "d5_r11"])
def test_google_devices_split_too(experiment):
    folders = list(GOOGLE.glob(f"surface_code_bX_{experiment}_*"))
    if not folders:
        pytest.skip("the Google data set is not there")
    for name in ("circuit_detector_error_model", "pij_from_even_for_odd"):
        assert_split(stim.DetectorErrorModel.from_file(folders[0] / f"{name}.dem"))


@each_basis
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("decomposition", ["css", "stim"])
def test_every_single_fault_is_corrected(our_circuit, basis, correlated, decomposition):
    dem = our_circuit(5, 5, basis, P).detector_error_model(decompose_errors=True)
    matcher = Matcher(matching_model(dem, None, decomposition), correlated)
    faults = [(d, flip) for d, flip, _ in mechanisms(dem)]
    syndromes = np.zeros((len(faults), dem.num_detectors), dtype=np.uint8)
    for syndrome, (detectors, _) in zip(syndromes, faults, strict=True):
        syndrome[list(detectors)] = 1
    want = np.array([flip for _, flip in faults])
    predictions = matcher.decode_batch(syndromes)
    assert predictions.shape == (len(faults),)
    assert predictions.dtype == np.uint8
    np.testing.assert_array_equal(predictions, want)


@each_basis
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.slow
def test_the_split_decodes_at_least_as_well(stim_circuit, basis, correlated):
    """Paired on the same shots; 5 sigma of the discordant shots, false alarm below 1e-6."""
    circuit = stim_circuit(5, 5, basis, 0.008)
    dem = circuit.detector_error_model(decompose_errors=True)
    dets, obs = circuit.compile_detector_sampler(seed=8).sample(60_000, separate_observables=True)
    wrong = {
        name: Matcher(matching_model(dem, None, name), correlated).decode_batch(dets) != obs[:, 0]
        for name in ("css", "stim")
    }
    worse, better = wrong["css"] & ~wrong["stim"], wrong["stim"] & ~wrong["css"]
    assert worse.sum() - better.sum() <= 5 * math.sqrt(worse.sum() + better.sum())


def test_the_model_as_given_is_left_alone(our_circuit):
    dem = our_circuit(3, 3, "X").detector_error_model(decompose_errors=True)
    assert matching_model(dem, None, "stim") == dem
    lattice = SpaceTimeLattice.from_dem(dem)
    assert matching_model(dem, lattice, "css") == basis_split(lattice)
    with pytest.raises(QecError, match="decomposition='css2' is unknown: use 'css' or 'stim'"):
        matching_model(dem, None, "css2")


def test_a_mechanism_that_matching_cannot_use(our_circuit):
    dem = our_circuit(3, 3, "X").detector_error_model().flattened()
    dem.append("error", 0.01, [stim.target_relative_detector_id(k) for k in range(4)])
    with pytest.raises(QecError, match=r"\[0, 1, 2, 3\] of one basis.*decompose_errors=True"):
        basis_split(SpaceTimeLattice.from_dem(dem))


def test_correlated_matching_refuses_probabilities_above_one_half(our_circuit):
    dem = our_circuit(3, 3, "X").detector_error_model(decompose_errors=True).flattened()
    dem.append("error", 0.6, [stim.target_relative_detector_id(0)])
    with pytest.raises(QecError, match=r"PyMatching refuses the model: Errors with"):
        Matcher(dem, correlated=True)
    Matcher(dem, correlated=False)
