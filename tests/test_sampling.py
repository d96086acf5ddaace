"""Labelled shots: the chain explains every event and the observable; statistics are Stim's."""

import itertools
import re

import numpy as np
import pytest
import stim
from scipy.stats import norm

from qec import chain as chains
from qec.circuit import memory_circuit
from qec.code import ORIENTATIONS, RotatedSurfaceCode
from qec.errors import QecError
from qec.lattice import MEMORY, OTHER
from qec.noise import CircuitNoise
from qec.sampling import FrameSampler

each_basis = pytest.mark.parametrize("basis", ["X", "Z"])


def assert_chain_explains(sampler, shots):
    lattice = sampler.lattice
    for canonical in (False, True):
        if canonical:
            chains.canonicalise(shots.chain, lattice)
        events = chains.boundary(shots.chain, lattice)
        at_detectors = events[lattice.layer, lattice.row, lattice.col]
        np.testing.assert_array_equal(at_detectors.view(np.uint8), shots.detectors)
        assert np.bitwise_count(at_detectors).sum() == np.bitwise_count(events).sum()
        parity = chains.logical_parity(shots.chain, lattice)
        np.testing.assert_array_equal(parity.view(np.uint8), shots.observables)


@each_basis
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("noise", ["uniform", "stim", "si1000"])
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 2), (3, 3), (5, 5)])
def test_our_circuits(our_circuit, basis, orientation, noise, distance, rounds):
    sampler = FrameSampler(our_circuit(distance, rounds, basis, 0.02, orientation, noise))
    shots = sampler.sample(512, seed=3)
    assert shots.detectors.shape == (sampler.lattice.num_detectors, 64)
    assert shots.observables.shape == (64,)
    assert shots.detectors.any()
    assert_chain_explains(sampler, shots)


@each_basis
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 2), (5, 5), (3, 7)])
def test_stims_circuits(stim_circuit, basis, distance, rounds):
    sampler = FrameSampler(stim_circuit(distance, rounds, basis, 0.02))
    assert_chain_explains(sampler, sampler.sample(512, seed=4))


@each_basis
def test_general_pauli_channels_and_a_perfect_final_round(basis):
    rng = np.random.default_rng(0)
    noise = CircuitNoise(
        prep_x=0.02,
        meas_z=0.03,
        idle_cnot=tuple(rng.random(3) / 100),
        idle_spam=tuple(rng.random(3) / 50),
        cnot=tuple(rng.random(15) / 300),
    )
    circuit = memory_circuit(RotatedSurfaceCode(3, "XH"), noise, 4, basis, perfect_final_round=True)
    sampler = FrameSampler(circuit)
    assert_chain_explains(sampler, sampler.sample(512, seed=5))


def with_hadamards(circuit):
    """The same experiment with each X preparation and X readout made of a Z one and an H."""
    text = re.sub(r"^( *)RX (.*)$", r"\1R \2\n\1H \2", str(circuit), flags=re.M)
    return stim.Circuit(re.sub(r"^( *)MX(\S*) (.*)$", r"\1H \3\n\1M\2 \3", text, flags=re.M))


def after_each_round(circuit, checks):
    """Positions in the flattened circuit where all ancillas have just been measured."""
    measured, places = 0, []
    for k, op in enumerate(circuit):
        if op.name.startswith("M"):
            measured += len(op.targets_copy())
            if measured % checks == 0 and measured // checks > len(places):
                places.append(k + 1)
    return places


@each_basis
@pytest.mark.parametrize("rewrite", [lambda circuit: circuit, with_hadamards])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.slow
def test_one_data_error_is_one_bit(our_circuit, basis, rewrite, orientation):
    """Each X and each Z error of a data qubit between two rounds, alone, at d = 3 and R = 3."""
    circuit = rewrite(our_circuit(3, 3, basis, 0.02, orientation)).flattened()
    lattice = FrameSampler(circuit).lattice
    quiet = circuit.without_noise()
    data = {q: xy for q, xy in quiet.get_final_qubit_coordinates().items() if xy[0] % 2 == 1}
    for layer, place in enumerate(after_each_round(quiet, 8)[:2], start=1):
        for (qubit, xy), pauli in itertools.product(data.items(), "XZ"):
            faulty = quiet[:place]
            faulty.append(f"{pauli}_ERROR", [qubit], 1)
            shots = FrameSampler(faulty + quiet[place:], lattice).sample(64, seed=0)
            row, col = lattice.frame(np.array([xy])).ravel()
            sector = MEMORY if pauli != basis else OTHER
            assert chains.weight(shots.chain) == 64
            assert shots.chain.q[sector, layer, int(row), int(col)] == 2**64 - 1


@each_basis
@pytest.mark.parametrize("source", ["stim", "ours"])
@pytest.mark.slow
def test_statistics_are_those_of_stims_detector_sampler(stim_circuit, our_circuit, basis, source):
    """Rates of each detector, each pair of neighbours in time, and the observable.

    Two-sample z-tests; by Bonferroni a correct sampler fails with probability below 1e-6, and the
    seeds are fixed.
    """
    circuit = (
        stim_circuit(3, 3, basis, 0.01) if source == "stim" else our_circuit(3, 3, basis, 0.01)
    )
    n = 64 * 3000
    shots = FrameSampler(circuit).sample(n, seed=6)
    ours = np.unpackbits(np.vstack([shots.detectors, shots.observables]), axis=1)
    dets, obs = circuit.compile_detector_sampler(seed=7).sample(n, separate_observables=True)
    stims = np.vstack([dets.T, obs.T])
    counts = []
    for bits in (ours.astype(bool), stims):
        pairs = [a & b for k, a in enumerate(bits) for b in bits[k + 1 :]]
        counts.append([row.sum() for row in (*bits, *pairs)])
    counts = np.array(counts, dtype=float)
    pooled = counts.sum(axis=0) / (2 * n)
    often = pooled * n > 50  # where the normal approximation holds
    z = (counts[0] - counts[1]) / np.sqrt(2 * n * pooled * (1 - pooled) + 1e-9)
    assert often.sum() > 100
    assert abs(z[often]).max() < norm.isf(1e-6 / 2 / often.sum())


def test_shots_are_reproducible(our_circuit):
    circuit = our_circuit(3, 3, "X", 0.02)
    a, b, c = (FrameSampler(circuit).sample(256, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a.detectors, b.detectors)
    np.testing.assert_array_equal(a.chain.q, b.chain.q)
    np.testing.assert_array_equal(a.chain.t, b.chain.t)
    assert (a.detectors != c.detectors).any()
    sampler = FrameSampler(circuit)
    sampler.sample(64, seed=9)  # no state is carried over
    np.testing.assert_array_equal(sampler.sample(256, seed=1).detectors, a.detectors)


def test_noiseless_circuits_give_empty_chains():
    circuit = memory_circuit(RotatedSurfaceCode(3), CircuitNoise.uniform(0.01), 3, "X")
    lattice = FrameSampler(circuit).lattice
    quiet = memory_circuit(RotatedSurfaceCode(3), CircuitNoise(), 3, "X")
    shots = FrameSampler(quiet, lattice).sample(64, seed=1)
    assert chains.weight(shots.chain) == 0
    assert not shots.detectors.any()


@pytest.mark.parametrize("shots", [0, 63, 100, -64])
def test_shots_come_in_words(our_circuit, shots):
    with pytest.raises(QecError, match=f"shots={shots} must be a positive multiple of 64"):
        FrameSampler(our_circuit(3, 1, "X")).sample(shots, seed=0)


def test_circuits_that_cannot_be_labelled_are_refused(our_circuit):
    circuit = our_circuit(3, 2, "X")
    nowhere = stim.Circuit(
        "\n".join(line for line in str(circuit).splitlines() if "QUBIT_COORDS" not in line)
    )
    with pytest.raises(QecError, match="QUBIT_COORDS"):
        FrameSampler(nowhere)
