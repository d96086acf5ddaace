"""Belief propagation against exact marginals, and against itself: in batches, blocks, tensors."""

import functools
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.matching.belief_propagation import BeliefPropagation, FactorGraph, change_of_log_odds
from qec.matching.memory_edges import MemoryEdges
from qec.predecoder.architectures import build_network
from qec.predecoder.labelled_shots import LabelledSampler
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.unit_cells import CellGrid
from qec.support.errors import QecError


def of_each_mechanism(probability, rows, detectors, iterations):
    """One edge for each mechanism, which flips some detectors."""
    mechanism = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    factors = FactorGraph(np.array(probability), mechanism, np.concatenate(rows))
    each, nothing = np.arange(len(rows)), np.zeros(len(rows))
    ends = np.stack([each, each - len(rows)], axis=1)  # of no meaning here
    edges = MemoryEdges(ends, nothing > 0, each, each, factors.probability, nothing)
    return BeliefPropagation(factors, edges, None, detectors, iterations)


def log_odds(belief, probability):
    p = np.array(probability)
    return change_of_log_odds(belief) + np.log(p / (1 - p))


@st.composite
def trees(draw):
    """(probabilities, detectors of each mechanism, number of detectors), without loops."""
    rows, detectors = [], 1
    for _ in range(draw(st.integers(1, 6))):
        new = draw(st.integers(0, 2))
        rows.append([draw(st.integers(0, detectors - 1)), *range(detectors, detectors + new)])
        detectors += new
    p = draw(st.lists(st.floats(0.01, 0.4), min_size=len(rows), max_size=len(rows)))
    return p, rows, detectors


@given(trees(), st.data())
@settings(max_examples=60, deadline=None)
def test_marginals_are_exact_where_the_graph_has_no_loops(tree, data) -> None:
    probability, rows, detectors = tree
    happened = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    seen = np.zeros(detectors, dtype=np.uint8)
    for there, row in zip(happened, rows, strict=True):
        seen[row] ^= there
    weight = np.zeros((2, len(rows)))  # of all errors with these events
    for error in itertools.product([0, 1], repeat=len(rows)):
        events = np.zeros(detectors, dtype=np.uint8)
        for there, row in zip(error, rows, strict=True):
            events[row] ^= there
        if (events == seen).all():
            chance = np.prod([p if e else 1 - p for e, p in zip(error, probability, strict=True)])
            weight[error, np.arange(len(rows))] += chance
    propagation = of_each_mechanism(probability, rows, detectors, iterations=40)
    found = log_odds(propagation(seen[None]), probability)[0]
    exact = np.log(np.maximum(weight[1], 1e-30)) - np.log(np.maximum(weight[0], 1e-30))
    assert np.clip(found, -6, 6) == pytest.approx(np.clip(exact, -6, 6), abs=0.02)


def test_three_detectors() -> None:
    """The worked example: a did happen, b did not."""
    propagation = of_each_mechanism([0.1, 0.1], [[0, 1], [1, 2]], 3, iterations=1)
    once = log_odds(propagation(np.array([[1, 1, 0]], dtype=np.uint8)), [0.1, 0.1])[0]
    assert once[0] > 10
    assert once[1] < -10


@functools.cache
def sampler_of(distance, rounds):
    code = RotatedSurfaceCode(distance)
    circuit = memory_circuit(code, CircuitNoise.named("uniform", 0.006), rounds, "X")
    return LabelledSampler(SpaceTimeLattice.from_circuit(circuit))


def test_tensors_give_what_the_loops_give() -> None:
    sampler = sampler_of(5, 5)
    events, _ = sampler.sample(200, seed=1)
    loops = torch.from_numpy(sampler.grid.beliefs(8)(events.numpy()))
    tensors = sampler.grid.belief_tensors(8, events.device)(events)
    assert (loops - tensors).abs().max() < 1e-3
    assert loops.std() > 0.3


def test_a_shot_alone_has_the_beliefs_that_it_has_in_a_batch() -> None:
    sampler = sampler_of(3, 4)
    events, _ = sampler.sample(70, seed=2)
    batch = sampler.grid.pack_beliefs(events, 8)
    for shots in (slice(0, 1), slice(1, 4), slice(5, 70)):
        assert torch.equal(sampler.grid.pack_beliefs(events[shots], 8), batch[shots])


def test_beliefs_are_better_than_the_model_and_better_with_iterations() -> None:
    sampler = sampler_of(7, 7)
    grid = sampler.grid
    events, fired = sampler.sample(256, seed=3)
    fired = fired[:, grid.valid].double()
    prior = grid.static[0, : len(grid.valid)][grid.valid].double()
    losses = []
    for iterations in (1, 2, 4, 8):
        belief = grid.pack_beliefs(events, iterations)[:, grid.valid].double()
        told = prior + 8 * torch.atanh(belief / 2)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(told, fired)
        losses.append(loss.item())
    by_prior = torch.nn.functional.binary_cross_entropy_with_logits(
        prior.expand_as(fired), fired
    ).item()
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < by_prior / 3


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_block_has_the_beliefs_of_the_whole_within_reach(iterations) -> None:
    sampler = sampler_of(3, 14)
    grid, layer = sampler.grid, sampler.grid.lattice.layer
    events, _ = sampler.sample(100, seed=4)
    whole = grid.pack_beliefs(events, iterations)
    start, end = 3, 12
    part = grid.cut(start, end)
    kept = torch.from_numpy((layer >= start) & (layer < end))
    cut = part.pack_beliefs(events[:, kept], iterations)
    core = slice(start + iterations, end - iterations - 1)
    inner = slice(iterations, end - start - iterations - 1)
    valid = part.valid[:, inner]
    assert torch.equal(cut[:, :, inner][:, valid], whole[:, :, core][:, valid])
    assert not torch.equal(cut[:, part.valid], whole[:, :, start:end][:, part.valid])


def test_a_mechanism_that_flips_a_detector_twice_does_not_flip_it() -> None:
    lattice = sampler_of(3, 4).grid.lattice
    factors = CellGrid(lattice).factors
    pairs = set(zip(factors.mechanism.tolist(), factors.detector.tolist(), strict=True))
    assert len(pairs) == len(factors.mechanism)


def test_a_network_that_adds_nothing_tells_what_it_believes() -> None:
    sampler = sampler_of(3, 4)
    network = PreDecoderNetwork(width=4, layers=3, belief_propagation=2)
    for parameter in network.head.parameters():
        torch.nn.init.zeros_(parameter)
    bound = Predecoder(network, 0.9).compile_for(sampler.grid)
    events, _ = sampler.sample(50, seed=5)
    belief = sampler.grid.beliefs(2)(events.numpy())
    want = sampler.grid.edges.log_odds[sampler.grid.predicted] + 4 * belief
    found = bound.log_odds(events.numpy())[:, sampler.grid.predicted]
    np.testing.assert_allclose(found, want, atol=1e-4)


@pytest.mark.parametrize("arguments", [{"active_only": True}, {"belief_propagation": -1}])
def test_networks_that_cannot_see_beliefs_are_refused(arguments) -> None:
    with pytest.raises((QecError, ValueError), match="belief_propagation"):
        build_network({"width": 4, "layers": 3, "belief_propagation": 2, **arguments})
