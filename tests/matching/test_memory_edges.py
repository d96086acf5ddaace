"""The memory edges of an error model, and the cells in which the network tells them."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
import stim
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.patch import MEMORY
from qec.circuits.surface_code import ORDERS, ORIENTATIONS, RotatedSurfaceCode
from qec.matching.matcher import basis_split, matching_graph, memory_edges
from qec.matching.memory_edges import MemoryEdges
from qec.noise_learning.random_noise import vary
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.residual import Residual
from qec.predecoder.unit_cells import EDGE_CHANNELS, NEVER, CellGrid, edge_ends
from qec.training.mixture import cz_compiled

each_basis = pytest.mark.parametrize("basis", ["X", "Z"])


@functools.cache
def circuit_of(distance, rounds, basis, orientation="ZV", order="across", noise="uniform"):
    code = RotatedSurfaceCode(distance, orientation, order)
    return memory_circuit(code, CircuitNoise.named(noise, 0.006), rounds, basis)


@functools.cache
def grid_of(*case):
    return CellGrid(SpaceTimeLattice.from_circuit(circuit_of(*case)))


def by_ends(edges, lattice):
    """{(place of the first end, of the second): number of the edge}; None for a boundary."""
    place = list(zip(*(a.tolist() for a in (lattice.layer, lattice.row, lattice.col)), strict=True))
    return {
        (place[a], None if b < 0 else place[b]): k for k, (a, b) in enumerate(edges.ends.tolist())
    }


# Edges of the error model


def assert_edges_of_matching(lattice):
    """Ends, weights and flips are those of PyMatching's graph."""
    edges = MemoryEdges.of(lattice)
    nothing_silent = np.empty(0, dtype=np.int64)
    graph = matching_graph(basis_split(lattice), silent=nothing_silent)
    detectors = lattice.memory_detectors
    found = {
        frozenset(ends[ends >= 0].tolist()): (weight, flip)
        for ends, weight, flip in zip(edges.ends, -edges.log_odds, edges.flips, strict=True)
    }
    assert len(found) == len(edges.ends)
    u, v, weight, flip = memory_edges(graph, lattice)
    want = {
        frozenset({int(detectors[a])} | ({int(detectors[b])} if b >= 0 else set())): (w, f)
        for a, b, w, f in zip(u, v, weight, flip, strict=True)
    }
    assert found.keys() == want.keys()
    for ends, (w, f) in want.items():
        assert found[ends] == (pytest.approx(w, rel=1e-9), f)


@each_basis
@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("noise", ["uniform", "stim", "si1000"])
@pytest.mark.parametrize(("distance", "rounds"), [(3, 1), (3, 2), (5, 4)])
def test_edges_are_those_of_matching(basis, orientation, noise, distance, rounds):
    circuit = circuit_of(distance, rounds, basis, orientation, "across", noise)
    assert_edges_of_matching(SpaceTimeLattice.from_circuit(circuit))


@each_basis
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cz", [False, True])
def test_edges_are_those_of_matching_for_any_order_of_gates(basis, order, cz):
    circuit = circuit_of(3, 3, basis, "ZV", order)
    circuit = cz_compiled(circuit, 6e-4) if cz else circuit
    assert_edges_of_matching(SpaceTimeLattice.from_circuit(circuit))


@each_basis
def test_edges_are_those_of_matching_where_every_site_has_noise_of_its_own(basis):
    circuit = vary(circuit_of(3, 4, basis), 0.5, np.random.default_rng(1), by="site")
    assert_edges_of_matching(SpaceTimeLattice.from_circuit(circuit))


def test_edges_are_those_of_matching_where_some_detectors_never_fire():
    circuit = stim.Circuit.generated(
        "surface_code:rotated_memory_z",
        distance=5,
        rounds=3,
        before_round_data_depolarization=0.03,
    )
    lattice = SpaceTimeLattice.from_circuit(circuit)
    assert len(lattice.silent)
    assert_edges_of_matching(lattice)


def with_lines(lattice, text):
    """The lattice with other mechanisms."""
    return dataclasses.replace(
        lattice, mechanisms=Mechanisms.from_dem(stim.DetectorErrorModel(text))
    )


def test_the_worked_example():
    lattice = SpaceTimeLattice.from_circuit(circuit_of(3, 2, "X"))
    assert (lattice.sector[[0, 1, 5]] == MEMORY).tolist() == [True, True, False]
    text = "error(0.1) D0 D1 ^ D5\nerror(0.1) D0 D1\nerror(0.2) D1 L0\ndetector D15"
    edges = MemoryEdges.of(with_lines(lattice, text))
    assert edges.ends.tolist() == [[0, 1], [1, -1]]
    assert edges.flips.tolist() == [False, True]
    np.testing.assert_allclose(edges.probability, [0.18, 0.2])
    np.testing.assert_allclose(edges.shared, [0.5, 0])
    assert sorted(zip(edges.mechanism.tolist(), edges.edge.tolist(), strict=True)) == [
        *((0, 0), (1, 0)),
        (2, 1),
    ]


@each_basis
def test_an_edge_begins_earlier_and_above_and_left(basis):
    lattice = SpaceTimeLattice.from_circuit(circuit_of(5, 4, basis, "XH", "along"))
    places = [(a, b) for a, b in by_ends(MemoryEdges.of(lattice), lattice) if b is not None]
    assert all(a < b for a, b in places)
    assert {np.sign(b[0] - a[0]) for a, b in places} == {0, 1}


@each_basis
def test_probabilities_are_how_often_mechanisms_happen_an_odd_number_of_times(basis):
    """On 200,000 shots of Stim's sampler, to six standard deviations; the seed is fixed.

    For 100 edges that fails with a probability of 2e-7.
    """
    lattice = SpaceTimeLattice.from_circuit(circuit_of(3, 2, basis))
    edges, shots = MemoryEdges.of(lattice), 200_000
    sampler = basis_split(lattice).compile_sampler(seed=1)
    _, _, happened = sampler.sample(shots, return_errors=True)
    fired = np.zeros((shots, len(edges.ends)), dtype=np.uint8)
    for mechanism, edge in zip(edges.mechanism, edges.edge, strict=True):
        fired[:, edge] ^= happened[:, mechanism]
    p = edges.probability
    assert len(p) < 100
    assert (np.abs(fired.mean(axis=0) - p) < 6 * np.sqrt(p * (1 - p) / shots)).all()


def test_edges_do_not_depend_on_how_the_model_is_written():
    """Stim lists a mechanism once for each way in which it splits it, in one round or the next."""
    lattice = SpaceTimeLattice.from_circuit(circuit_of(3, 2, "X"))
    text = "error(0.2) D0 D1\nerror({}) D0 D1 ^ D5\ndetector D15\nlogical_observable L0"
    whole = MemoryEdges.of(with_lines(lattice, text.format(0.18)))
    line = text.format(0.1).splitlines()[1]
    parts = MemoryEdges.of(with_lines(lattice, f"{line}\n{text.format(0.1)}"))
    np.testing.assert_array_equal(parts.ends, whole.ends)
    np.testing.assert_allclose(parts.probability, whole.probability, rtol=1e-12)
    np.testing.assert_allclose(parts.shared, whole.shared, rtol=1e-12)


@each_basis
def test_all_rounds_of_the_bulk_look_alike_to_the_network(basis):
    """So that blocks cut from a short experiment serve any longer one."""
    static = grid_of(3, 14, basis).static[:, :, 2:-2]
    torch.testing.assert_close(static, static[:, :, :1].expand_as(static), rtol=0, atol=2e-6)


@each_basis
def test_edges_among_some_detectors_are_numbered_anew(basis):
    lattice = SpaceTimeLattice.from_circuit(circuit_of(3, 5, basis))
    edges = MemoryEdges.of(lattice)
    kept = np.flatnonzero((lattice.layer >= 1) & (lattice.layer < 4))
    some = edges.among(kept)
    assert 0 < len(some.ends) < len(edges.ends)
    inner = np.isin(edges.ends, [*kept.tolist(), -1]).all(axis=1)
    back = np.append(kept, -1)[some.ends]
    np.testing.assert_array_equal(back, edges.ends[inner])
    for name in ("flips", "probability", "shared", "log_odds"):
        np.testing.assert_array_equal(getattr(some, name), getattr(edges, name)[inner])
    pairs = {
        (m, tuple(edges.ends[e].tolist()))
        for m, e in zip(edges.mechanism.tolist(), edges.edge.tolist(), strict=True)
        if inner[e]
    }
    assert pairs == {
        (m, tuple(back[e].tolist()))
        for m, e in zip(some.mechanism.tolist(), some.edge.tolist(), strict=True)
    }
    everything = edges.among(np.arange(lattice.num_detectors))
    for field in dataclasses.fields(edges):
        whole, same = (getattr(part, field.name) for part in (edges, everything))
        np.testing.assert_array_equal(same, whole)
    assert len(edges.among(np.flatnonzero(lattice.sector != MEMORY)).ends) == 0


# Cells of edges


ALL_CASES = list(itertools.product("XZ", ORIENTATIONS, ORDERS))


@pytest.mark.parametrize(("basis", "orientation", "order"), ALL_CASES)
def test_all_edges_are_told_each_in_a_place_of_its_own(basis, orientation, order):
    grid = grid_of(5, 4, basis, orientation, order)
    assert grid.predicted.tolist() == list(range(len(grid.edges.ends)))
    assert len(set(grid.place.tolist())) == len(grid.predicted)
    assert int(grid.valid.sum()) == len(grid.predicted)
    np.testing.assert_array_equal(
        np.sort(grid.place), np.flatnonzero(grid.valid.movedim(0, -1).flatten())
    )


@pytest.mark.parametrize(("basis", "orientation", "order"), ALL_CASES)
def test_the_ends_of_an_edge_are_in_the_cells_that_its_channel_says(basis, orientation, order):
    """Its first end in the cell where it stands, its second one step further."""
    grid = grid_of(3, 4, basis, orientation, order)
    numbers = torch.arange(1, grid.lattice.num_detectors + 1)[None]
    packed = grid.pack_events(numbers)[0].numpy()
    cell_of = {packed[tuple(place)] - 1: place[1:].tolist() for place in np.argwhere(packed)}
    shape = (*grid.shape, EDGE_CHANNELS)
    for edge, place in zip(grid.predicted, grid.place, strict=True):
        *own, channel = (int(k) for k in np.unravel_index(place, shape))
        ends = [cell_of[k] for k in grid.edges.ends[edge] if k >= 0]
        assert ends[0] == own
        offsets = [tuple(np.subtract(end, own).tolist()) for end in ends]
        assert list(dict.fromkeys(offsets)) == edge_ends(channel)


@each_basis
def test_the_network_is_told_of_every_edge(basis):
    grid = grid_of(5, 3, basis)
    prior, shared = (
        grid.static[0, part].movedim(0, -1).flatten().numpy()
        for part in (slice(EDGE_CHANNELS), slice(EDGE_CHANNELS, 2 * EDGE_CHANNELS))
    )
    np.testing.assert_allclose(prior[grid.place], grid.edges.log_odds, rtol=1e-6)
    np.testing.assert_allclose(shared[grid.place], grid.edges.shared, rtol=1e-5, atol=1e-7)
    nowhere = np.setdiff1d(np.arange(len(prior)), grid.place)
    assert (prior[nowhere] == NEVER).all()
    assert not shared[nowhere].any()
    exists = grid.static[0, 2 * EDGE_CHANNELS : 2 * EDGE_CHANNELS + 4]
    everywhere = torch.ones(1, grid.lattice.num_detectors)
    assert torch.equal(exists, grid.pack_events(everywhere)[0])


def test_detectors_stand_where_their_events_are_packed():
    grid = grid_of(3, 3, "X", "XH")
    detectors = grid.lattice.num_detectors
    packed = grid.pack_events(torch.eye(detectors, dtype=torch.uint8))
    flat = packed.movedim(1, -1).flatten(1).numpy()
    assert (flat.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(flat.argmax(axis=1), grid.event_place)
    empty = SpaceTimeLattice.from_circuit(circuit_of(3, 3, "X") + stim.Circuit("DETECTOR"))
    assert CellGrid(empty).event_place[-1] == -1


def test_an_edge_without_a_channel_is_as_likely_as_ever_and_never_committed():
    """One that no order of gates makes, such as from the first round to the last."""
    dem = detector_error_model(circuit_of(3, 5, "Z"))
    lattice = SpaceTimeLattice.from_dem(dem)
    first, last = lattice.memory_detectors[[0, -1]].tolist()
    far = SpaceTimeLattice.from_dem(dem + stim.DetectorErrorModel(f"error(0.3) D{first} D{last}"))
    bound = Predecoder(PreDecoderNetwork(width=8, layers=2), 0.5).compile_for(far)
    (edge,) = np.flatnonzero((bound.grid.edges.ends == [first, last]).all(axis=1))
    assert bound.grid.predicted.tolist() == [
        k for k in range(len(bound.grid.edges.ends)) if k != edge
    ]
    dets = (np.random.default_rng(1).random((20, far.num_detectors)) < 0.2).view(np.uint8)
    np.testing.assert_allclose(bound.log_odds(dets)[:, edge], np.log(0.3 / 0.7), rtol=1e-6)
    bound.forward = lambda events: torch.full((len(events), *bound.grid.valid.shape), 50.0)
    residual, flips = bound.apply(dets)
    told = bound.grid.edges.ends[bound.grid.predicted]
    odd = np.bincount(told[told >= 0], minlength=far.num_detectors) % 2
    np.testing.assert_array_equal(residual, dets ^ odd.astype(np.uint8))
    assert (flips == bound.grid.edges.flips[bound.grid.predicted].sum() % 2).all()


# Committing edges


cases = st.tuples(
    st.sampled_from([(3, 1), (3, 2), (3, 5), (5, 3)]),
    st.sampled_from("XZ"),
    st.sampled_from(ORIENTATIONS),
    st.sampled_from(ORDERS),
).map(lambda case: (*case[0], *case[1:]))


@settings(max_examples=60)
@given(cases, st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.5, 1.0]), st.data())
def test_the_residual_of_any_set_of_edges_is_what_their_ends_say(case, seed, density, data):
    grid, rng = grid_of(*case), np.random.default_rng(seed)
    layers = grid.shape[0]
    start = data.draw(st.integers(0, layers - 1))
    core = (start, data.draw(st.integers(start + 1, layers)))
    shots, edges = 4, grid.edges
    fired = rng.random((shots, len(edges.ends))) < density
    dets = rng.integers(2, size=(shots, grid.lattice.num_detectors), dtype=np.uint8)
    want, flips = dets.copy(), np.zeros(shots, dtype=np.uint8)
    for shot, edge in np.argwhere(fired):
        ends = edges.ends[edge]
        if core[0] <= grid.lattice.layer[ends[0]] < core[1]:
            want[shot, ends[ends >= 0]] ^= 1
            flips[shot] ^= edges.flips[edge]
    residual = Residual(grid, torch.device("cpu"), core)
    told = grid.pack_edges(fired.astype(np.uint8)).float()
    left, logical, _ = residual(torch.from_numpy(dets), told, 0.5)
    np.testing.assert_array_equal(left, want)
    np.testing.assert_array_equal(logical, flips)


@settings(max_examples=20)
@given(cases, st.integers(0, 2**32))
def test_residuals_add_up(case, seed):
    """Of two sets of edges, one after the other, and of what is in one of them only."""
    grid, rng = grid_of(*case), np.random.default_rng(seed)
    residual = Residual(grid, torch.device("cpu"))
    one, two = (rng.random((2, 8, len(grid.edges.ends))) < 0.3).view(np.uint8)
    dets = torch.from_numpy(rng.integers(2, size=(8, grid.lattice.num_detectors), dtype=np.uint8))
    left, first, _ = residual(dets, grid.pack_edges(one).float(), 0.5)
    left, second, _ = residual(left, grid.pack_edges(two).float(), 0.5)
    at_once, logical, _ = residual(dets, grid.pack_edges(one ^ two).float(), 0.5)
    assert torch.equal(left, at_once)
    assert torch.equal(first ^ second, logical)


# Blocks of layers


@functools.cache
def eager(**architecture):
    """An untrained pre-decoder that commits arbitrary edges; it reaches three layers or more."""
    torch.manual_seed(0)
    network = PreDecoderNetwork(width=8, layers=3, **architecture)
    torch.nn.init.constant_(network.head.bias, 4.0)
    with torch.no_grad():
        network.head.weight *= 20
    return Predecoder(network, 0.7, name="eager")


@settings(max_examples=25)
@given(
    st.sampled_from("XZ"),
    st.sampled_from([{}, {"active_only": True, "separable": True}, {"belief_propagation": 2}]),
    st.sampled_from(["uniform", "sites"]),
    st.lists(st.integers(1, 12), max_size=4, unique=True),
)
def test_blocks_commit_what_the_whole_history_does(basis, architecture, noise, seams):
    """Every edge in the block that holds its first end, also one that leads into the next block."""
    grid = grid_of(3, 12, basis) if noise == "uniform" else _of_sites(basis)
    lattice, predecoder = grid.lattice, eager(**architecture)
    dets = (np.random.default_rng(2).random((20, lattice.num_detectors)) < 0.1).view(np.uint8)
    whole = predecoder.compile_for(grid)
    want, told = whole.apply(dets), whole.log_odds(dets)
    assert (want.residual != dets).any(axis=1).mean() > 0.5
    residual, flips = dets.copy(), np.zeros(len(dets), dtype=np.uint8)
    reach, layers = predecoder.network.reach, grid.shape[0]
    for start, end in itertools.pairwise([0, *sorted(seams), layers]):
        low, high = max(start - reach, 0), min(end + reach, layers)
        part = np.flatnonzero((lattice.layer >= low) & (lattice.layer < high))
        bound = predecoder.compile_for(grid.cut(low, high), core=(start - low, end - low))
        found = bound.apply(dets[:, part])
        residual[:, part] ^= dets[:, part] ^ found.residual
        flips ^= found.committed
        number, own = by_ends(grid.edges, lattice), bound.log_odds(dets[:, part])
        for ends, k in by_ends(bound.grid.edges, bound.lattice).items():
            if start - low <= ends[0][0] < end - low:
                moved = [end and (end[0] + low, *end[1:]) for end in ends]
                np.testing.assert_allclose(own[:, k], told[:, number[tuple(moved)]], atol=1e-3)
    np.testing.assert_array_equal(residual, want.residual)
    np.testing.assert_array_equal(flips, want.committed)


@functools.cache
def _of_sites(basis):
    circuit = vary(circuit_of(3, 12, basis), 0.5, np.random.default_rng(3), by="site")
    return CellGrid(SpaceTimeLattice.from_circuit(circuit))


@each_basis
def test_a_cut_is_told_what_the_whole_is(basis):
    grid = grid_of(3, 6, basis)
    cut = grid.cut(2, 5)
    assert cut.shape == (3, *grid.shape[1:])
    assert torch.equal(cut.static, grid.static[:, :, 2:5])
    whole, part = by_ends(grid.edges, grid.lattice), by_ends(cut.edges, cut.lattice)
    moved = {tuple(end and (end[0] + 2, *end[1:]) for end in ends): k for ends, k in part.items()}
    assert moved.keys() == {
        ends for ends in whole if all(end is None or 2 <= end[0] < 5 for end in ends)
    }
    for ends, k in moved.items():
        assert cut.edges.flips[k] == grid.edges.flips[whole[ends]]
        at, of = cut.place[k], grid.place[whole[ends]]
        assert at + 2 * np.prod(grid.shape[1:]) * EDGE_CHANNELS == of
