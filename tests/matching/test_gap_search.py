"""The search for small logical gaps, against exact ones by a second matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.matching.complementary_gap import GapMatcher
from qec.matching.gap_search import GapSearch
from qec.matching.matcher import MemoryMatcher, basis_split, matching_graph


@pytest.mark.parametrize(
    ("v", "weight", "events", "flip", "gap"),
    [
        ([-1, 1, -1], [3, 4, 5], [1, 1], 0, 4),
        ([-1, 1, -1, 2, -1], [3, 4, 5, 4, 1], [1, 1, 1], 1, 2),
    ],
)
def test_the_worked_example(v, weight, events, flip, gap):
    """Detectors in a row between two boundaries, as ``alternating_paths`` describes them."""
    u = np.array([0, 0, 1, 1, 2])[: len(v)]
    far = (np.array(v) < 0) & (u > 0)
    n = len(events)
    side = np.zeros(n, dtype=np.bool_)
    search = GapSearch(n, u, np.array(v), np.array(weight, float), far, side, 6.0)
    shots = np.array([events], dtype=np.uint8)
    for nats, certain in ((gap - 0.1, True), (gap + 0.1, False)):
        flips, sure = search.decode_batch(shots, nats)
        assert flips.tolist() == [flip]
        assert sure.tolist() == [certain]


def _matchers(lattice: SpaceTimeLattice, most: float) -> tuple[GapMatcher, GapMatcher]:
    """With the search, and without."""
    graph = matching_graph(basis_split(lattice), silent=lattice.silent)
    return GapMatcher(graph, lattice, nats=most), GapMatcher(graph, lattice, searched=False)


def _check(circuit, detectors: np.ndarray, nats: float) -> tuple[float, float]:
    """Shares of shots whose gap is below ``nats``, and of those that are not sure."""
    lattice = SpaceTimeLattice.from_circuit(circuit)
    searching, exact = _matchers(lattice, nats)
    flips, sure = searching.decide(detectors, nats)
    gaps = exact.decode_batch(detectors)[1]
    assert (gaps[sure] >= nats).all()
    plain = MemoryMatcher(lattice).decode_batch(detectors)
    np.testing.assert_array_equal(flips[sure], plain[sure])
    return (gaps < nats).mean(), (~sure).mean()


@pytest.mark.parametrize("noise", ["uniform", "si1000"])
def test_every_syndrome_of_a_small_code(our_circuit, noise):
    """d = 3, R = 2: all 4096 sets of events of the memory checks."""
    circuit = our_circuit(3, 2, "Z", 0.003, noise=noise)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    memory = lattice.memory_detectors
    everything = np.array(list(itertools.product((0, 1), repeat=len(memory))), dtype=np.uint8)
    detectors = np.zeros((len(everything), lattice.num_detectors), dtype=np.uint8)
    detectors[:, memory] = everything
    for nats in (1.0, 3.0, 5.0, 8.0):
        below, unsure = _check(circuit, detectors, nats)
        # Dense syndromes are full of odd cycles; these are what the search may not see through.
        assert below <= unsure < below + 0.1
    assert below < 1


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    distance=st.sampled_from([3, 5, 7]),
    rounds=st.integers(1, 7),
    nats=st.sampled_from([2.0, 5.0, 9.0]),
)
@pytest.mark.slow
def test_random_rates(seed, distance, rounds, nats):
    """Rates of every kind drawn anew, from 1e-4 to 2e-2: no two edges weigh the same."""
    rng = np.random.default_rng(seed)
    rates = 10 ** rng.uniform(-4, -1.7, 10)
    noise = CircuitNoise(
        prep_x=rates[0],
        prep_z=rates[1],
        meas_x=rates[2],
        meas_z=rates[3],
        idle_cnot=tuple(rates[4:7] / 3),
        idle_spam=tuple(rates[7:10] / 3),
        cnot=tuple(10 ** rng.uniform(-5, -3, 15)),
    )
    circuit = memory_circuit(RotatedSurfaceCode(distance), noise, rounds, "X")
    detectors = circuit.compile_detector_sampler(seed=seed % 2**31).sample(300).view(np.uint8)
    _check(circuit, detectors, nats)


@pytest.mark.parametrize(
    ("distance", "p", "shots", "more"),
    [(5, 0.006, 4000, 0.01), (9, 0.003, 1500, 0.01), (9, 0.008, 600, 0.1)],
)
def test_the_search_is_nearly_exact(our_circuit, distance, p, shots, more):
    """Fixed seed: how many more shots than those with a small gap are not sure."""
    circuit = our_circuit(distance, distance, "X", p)
    detectors = circuit.compile_detector_sampler(seed=3).sample(shots).view(np.uint8)
    below, unsure = _check(circuit, detectors, 5.0)
    assert below <= unsure < below + more


@pytest.mark.slow
def test_large_and_dense_codes(our_circuit):
    for distance, p, shots in ((13, 0.006, 100), (21, 0.003, 10), (21, 0.006, 10)):
        circuit = our_circuit(distance, distance, "Z", p)
        detectors = circuit.compile_detector_sampler(seed=4).sample(shots).view(np.uint8)
        _check(circuit, detectors, 5.0)


def test_what_is_sure_does_not_depend_on_the_batch(our_circuit):
    """Shots are matched side by side in one graph."""
    circuit = our_circuit(5, 5, "X", 0.008)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    searching, _ = _matchers(lattice, 5.0)
    detectors = circuit.compile_detector_sampler(seed=5).sample(3000).view(np.uint8)
    flips, sure = searching.decide(detectors, 5.0)
    order = np.random.default_rng(6).permutation(len(detectors))
    shuffled, still = searching.decide(detectors[order], 5.0)
    np.testing.assert_array_equal(still, sure[order])
    np.testing.assert_array_equal(shuffled, flips[order])
    for some in (0, 1, 7):
        flip, one = searching.decide(detectors[:some], 5.0)
        assert (flip.shape, one.shape) == ((some,), (some,))
        np.testing.assert_array_equal(one, sure[:some])


def test_capped_gaps_are_those_of_second_matchings(our_circuit):
    circuit = our_circuit(7, 5, "Z", 0.006)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    searching, exact = _matchers(lattice, 6.0)
    detectors = circuit.compile_detector_sampler(seed=7).sample(2000).view(np.uint8)
    gaps = exact.decode_batch(detectors)[1]
    capped = searching.decode_batch(detectors)[1]
    np.testing.assert_allclose(capped, np.minimum(gaps, 6.0), atol=0.1)
    assert 0.02 < (capped < 6.0).mean() < 0.9


def test_more_nats_than_a_logical_operator_weighs_are_never_sure(our_circuit):
    circuit = our_circuit(3, 3, "X", 0.05)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    searching, _ = _matchers(lattice, 50.0)
    detectors = np.zeros((3, lattice.num_detectors), dtype=np.uint8)
    assert searching.logical_weight < 50
    assert not searching.decide(detectors, 50.0)[1].any()
    assert searching.decide(detectors, searching.logical_weight - 1.0)[1].all()
