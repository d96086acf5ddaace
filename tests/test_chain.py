"""Chains: the boundary identity, the trivial cycles, and the invariants of the canonical form."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qec import chain as chains
from qec.chain import Chain
from qec.circuit import memory_circuit
from qec.code import ORIENTATIONS, RotatedSurfaceCode
from qec.lattice import MEMORY, OTHER, SpaceTimeLattice
from qec.noise import CircuitNoise
from qec.sampling import FrameSampler

CASES = [(3, 1), (3, 2), (3, 3), (5, 4)]


@functools.cache
def make_lattice(distance, rounds, orientation, basis):
    code = RotatedSurfaceCode(distance, orientation)
    return SpaceTimeLattice.from_circuit(
        memory_circuit(code, CircuitNoise.uniform(0.005), rounds, basis)
    )


@functools.cache
def trivial_cycles(lattice):
    """Generators as lists of ("q", sector, layer, row, col) and ("t", layer, row, col) bits.

    Written from their definition, site by site; the package has them as strided views.
    """
    d, last = lattice.distance, lattice.rounds
    data = [(r, c) for r in range(d) for c in range(d)]
    cycles = []
    for sector in (MEMORY, OTHER):
        mine, dual = lattice.check_sites[sector], lattice.check_sites[1 - sector]
        layers = np.flatnonzero(lattice.data_exists[sector]).tolist()
        corners = {
            (r, c): [(r + i, c + j) for i in (0, 1) for j in (0, 1) if mine[r + i, c + j]]
            for r, c in data
        }
        for k in layers:
            for row, col in np.argwhere(dual).tolist():
                around = [(row - i, col - j) for i in (0, 1) for j in (0, 1)]
                cycles.append([("q", sector, k, *rc) for rc in around if rc in corners])
        for k in layers[:-1]:  # an error that is there in one round only, and missed checks
            for rc in data:
                pair = [("q", sector, k, *rc), ("q", sector, k + 1, *rc)]
                cycles.append(pair + [("t", k, *site) for site in corners[rc]])
        if sector == OTHER and layers:
            for rc in data:  # before the first round, and after the last
                for k, t in ((1, 0), (last - 1, last - 1)):
                    sites = [("t", t, *site) for site in corners[rc]]
                    cycles.append([("q", sector, k, *rc), *sites])
    return cycles


def flip(chain, cycle, words):
    for name, *index in cycle:
        getattr(chain, name)[tuple(index)] ^= words


def random_chain(lattice, seed, density=0.5, words=1):
    rng = np.random.default_rng(seed)
    bits = [rng.random((*a.shape[:-1], words, 64)) < density for a in chains.zeros(lattice, 1)]
    packed = [np.packbits(b, axis=-1, bitorder="little").view(np.uint64)[..., 0] for b in bits]
    return chains.drop_invisible(Chain(*packed), lattice)


def copy(chain):
    return Chain(*(part.copy() for part in chain))


def weight_by_shot(chain):
    return sum(
        np.unpackbits(part.reshape(-1, 1).view(np.uint8), axis=1).sum(axis=0, dtype=int)
        for part in chain
    )


lattices = st.builds(
    lambda case, orientation, basis: make_lattice(*case, orientation, basis),
    st.sampled_from(CASES),
    st.sampled_from(ORIENTATIONS),
    st.sampled_from("XZ"),
)
seeds = st.integers(0, 2**32 - 1)
densities = st.sampled_from([0.002, 0.02, 0.1, 0.5])


@given(lattices, seeds, seeds)
def test_boundary_and_parity_are_linear(lattice, seed_a, seed_b):
    a, b = random_chain(lattice, seed_a), random_chain(lattice, seed_b)
    both = Chain(a.q ^ b.q, a.t ^ b.t)
    for linear in (chains.boundary, chains.logical_parity):
        np.testing.assert_array_equal(
            linear(both, lattice), linear(a, lattice) ^ linear(b, lattice)
        )


@given(lattices, seeds)
def test_boundary_is_the_formula(lattice, seed):
    """d_k = H q_k + t_k + t_{k-1}, site by site, where a detector exists."""
    chain = random_chain(lattice, seed, words=2)
    events = chains.boundary(chain, lattice)
    d, rounds = lattice.distance, lattice.rounds
    want = np.zeros_like(events)
    for k, row, col, s in zip(lattice.layer, lattice.row, lattice.col, lattice.sector, strict=True):
        for r in (row - 1, row):
            for c in (col - 1, col):
                if 0 <= r < d and 0 <= c < d:
                    want[k, row, col] ^= chain.q[s, k, r, c]
        for t in (k - 1, k):
            if 0 <= t < rounds:
                want[k, row, col] ^= chain.t[t, row, col]
    np.testing.assert_array_equal(events, want)


@given(lattices, seeds)
def test_words_and_plain_bytes_agree(lattice, seed):
    packed = random_chain(lattice, seed)
    plain = Chain(
        *(np.unpackbits(part.view(np.uint8), axis=-1, bitorder="little") for part in packed)
    )
    for function in (chains.boundary, chains.logical_parity):
        words = function(packed, lattice).view(np.uint8)
        np.testing.assert_array_equal(
            function(plain, lattice), np.unpackbits(words, axis=-1, bitorder="little")
        )
    assert chains.weight(packed) == sum(int(part.sum()) for part in plain)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.slow
def test_trivial_cycles_are_trivial(orientation, basis, case):
    """No detection events, no logical flip; at d > 3 each alone reduces to the empty chain.

    At d = 3 a logical line of the other sector in its first layer, which no detector sees, is as
    light as a generator, and no single move makes it lighter.
    """
    lattice = make_lattice(*case, orientation, basis)
    one = np.array([1], dtype=np.uint64)
    for cycle in trivial_cycles(lattice):
        chain = chains.zeros(lattice, 1)
        flip(chain, cycle, one)
        assert 1 <= chains.weight(chain) == len(cycle) <= 4
        assert not chains.boundary(chain, lattice).any()
        assert not chains.logical_parity(chain, lattice).any()
        left = chains.weight(chains.canonicalise(chain, lattice))
        assert left == 0 or (lattice.distance == 3 and left <= len(cycle))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("basis", ["X", "Z"])
def test_trivial_cycles_generate_all_of_them(orientation, basis):
    """Rank: visible bits = independent cycles + independent events + one logical."""
    lattice = make_lattice(3, 3, orientation, basis)
    bits = int(lattice.data_exists.sum()) * 9 + int(lattice.time_exists.sum())
    names = {}
    rows = []
    for cycle in trivial_cycles(lattice):
        rows.append(sum(1 << names.setdefault(bit, len(names)) for bit in cycle))
    pivots = {}
    for row in rows:
        while row and (top := row.bit_length()) in pivots:
            row ^= pivots[top]
        if row:
            pivots[row.bit_length()] = row
    assert bits == len(pivots) + lattice.num_detectors + 1


@given(lattices, seeds, densities)
def test_canonical_form_invariants(lattice, seed, density):
    chain = random_chain(lattice, seed, density)
    events, parity = chains.boundary(chain, lattice), chains.logical_parity(chain, lattice)
    canonical = chains.canonicalise(copy(chain), lattice)
    np.testing.assert_array_equal(chains.boundary(canonical, lattice), events)
    np.testing.assert_array_equal(chains.logical_parity(canonical, lattice), parity)
    assert (weight_by_shot(canonical) <= weight_by_shot(chain)).all()
    again = chains.canonicalise(copy(canonical), lattice)
    for part, same in zip(canonical, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_the_empty_chain_stays_empty():
    lattice = make_lattice(5, 4, "ZV", "X")
    assert chains.weight(chains.canonicalise(chains.zeros(lattice, 3), lattice)) == 0


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize(("moves", "bound"), [("stabiliser", 0.95), ("any generator", 0.93)])
def test_equivalent_chains_get_the_same_label(basis, moves, bound, capsys):
    """Measured: the share of shots whose label survives adding one random trivial cycle.

    Fixed seeds make it deterministic; at 4096 shots the bounds lie more than 5 sigmas (below 1e-6)
    under what was measured when they were set.
    """
    circuit = memory_circuit(RotatedSurfaceCode(5), CircuitNoise.uniform(0.006), 5, basis)
    sampler = FrameSampler(circuit)
    lattice, shots = sampler.lattice, 4096
    chain = sampler.sample(shots, seed=11).chain
    moved = copy(chain)
    cycles = trivial_cycles(lattice)
    if moves == "stabiliser":
        cycles = [cycle for cycle in cycles if all(name == "q" for name, *_ in cycle)]
    choice = np.random.default_rng(12).integers(len(cycles), size=shots)
    for k, cycle in enumerate(cycles):
        flip(moved, cycle, np.packbits(choice == k, bitorder="little").view(np.uint64))
    labels = [chains.canonicalise(c, lattice) for c in (chain, moved)]
    differ = [(a ^ b).reshape(-1, shots // 64) for a, b in zip(*labels, strict=True)]
    differ = np.bitwise_or.reduce(np.concatenate(differ), axis=0)
    agreement = 1 - np.bitwise_count(differ).sum() / shots
    with capsys.disabled():
        print(f"\n{agreement:.1%} of labels survive one {moves} (d = 5, {basis})", end=" ")
    assert agreement > bound
