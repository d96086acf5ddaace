"""A network on active cells computes the same cell by cell as over the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl

from qec.code import ORIENTATIONS
from qec.compiled import compiled
from qec.lattice import SpaceTimeLattice
from qec.patch import MEMORY
from qec.predecoder import sparse
from qec.predecoder.correction import Predecoder
from qec.predecoder.grid import EVENT_CHANNELS, STATIC_CHANNELS
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules
from qec.training.muon import orthogonalised

each_basis = pytest.mark.parametrize("basis", ["X", "Z"])
each_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def _network(**arguments: object) -> PreDecoderNetwork:
    torch.manual_seed(7)
    network = PreDecoderNetwork(**{"width": 8, "layers": 4, "active_only": True, **arguments})
    for conv in network.convolutions():
        torch.nn.init.normal_(conv.bias, std=0.3)
    return network


KINDS = [{}, {"separable": True, "memory_only": True}, {"ends_only": True}]


def _inputs(shots: int, shape: tuple[int, int, int], rate: float, seed: int) -> tuple:
    rng = torch.Generator().manual_seed(seed)
    events = (torch.rand(shots, EVENT_CHANNELS, *shape, generator=rng) < rate).float()
    return events, torch.rand(1, STATIC_CHANNELS, *shape, generator=rng)


@settings(max_examples=40, deadline=None)
@given(
    arguments=st.fixed_dictionaries(
        {
            "kernel": st.sampled_from([1, 3, 5]),
            "layers": st.integers(2, 4),
            "activation": st.sampled_from(["relu", "gelu", "silu"]),
            "residual": st.booleans(),
            "separable": st.booleans(),
            "memory_only": st.booleans(),
            "ends_only": st.booleans(),
        }
    ).filter(lambda a: a["kernel"] > 1 or not a["ends_only"]),
    shots=st.integers(1, 5),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    rate=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_logits_and_gradients_are_those_of_dense_convolutions(
    arguments, shots, shape, rate, seed
) -> None:
    network = _network(**arguments)
    events, static = _inputs(shots, shape, rate, seed)
    found = []
    for logits in (
        network(events, static),
        network.dense_logits(events, network.stem_static(static)),
    ):
        network.zero_grad()
        (logits.sin().sum()).backward()  # any function that is not linear
        found.append([logits.detach(), *(p.grad.clone() for p in network.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_shots_in_passes_are_the_same_bit_for_bit(kind, monkeypatch) -> None:
    network = _network(**kind)
    events, static = _inputs(9, (4, 3, 3), 0.1, 1)
    with torch.inference_mode():
        whole = network(events, static)
        monkeypatch.setattr(sparse, "_EVENTS_PER_PASS", 45)
        assert torch.equal(network(events, static), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_comes_close_to_float32(kind) -> None:
    network = _network(**kind)
    events, static = _inputs(9, (4, 3, 3), 0.1, 1)
    with torch.inference_mode():
        exact = network(events, static)
        features = network.stem_static(static)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network.from_static_features(events.bfloat16(), features.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_empty_cells_have_no_features() -> None:
    """What a far event says does not come through a gap wider than the kernel."""
    network = _network()
    events = torch.zeros(2, EVENT_CHANNELS, 1, 1, 9)
    events[:, 0, 0, 0, 0] = 1
    events[1, 0, 0, 0, 8] = 1
    with torch.inference_mode():
        near, both = network(events, torch.zeros(1, STATIC_CHANNELS, 1, 1, 9))
    torch.testing.assert_close(near[..., :5], both[..., :5])
    events[1, 0, 0, 0] = 1
    with torch.inference_mode():
        near, both = network(events, torch.zeros(1, STATIC_CHANNELS, 1, 1, 9))
    assert not torch.allclose(near[..., 0], both[..., 0])


@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (16, 16)])
def test_muon_makes_updates_nearly_orthogonal(shape) -> None:
    torch.manual_seed(3)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = torch.linspace(0.1, 1, 16)
    update = orthogonalised(u * spread @ v)
    # The same singular vectors, and singular values near 1.
    values = torch.diagonal(u.t() @ update @ v.t())
    torch.testing.assert_close((u * values) @ v, update, rtol=1e-4, atol=1e-4)
    assert (values > 0.6).all()
    assert (values < 1.3).all()
    torch.testing.assert_close(orthogonalised(1e-3 * u * spread @ v), update, rtol=1e-3, atol=1e-3)


@each_basis
@each_orientation
def test_memory_only_leaves_the_other_checks_alone(our_circuit, basis, orientation) -> None:
    """It tells all that memory checks see, and what it tells flips no other check."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(5, 3, basis, 0.01, orientation))
    network = _network(memory_only=True, separable=True)
    torch.nn.init.constant_(network.head.bias, 0.0)
    bound = Predecoder(network, CommitRules.same(0.5)).bind(lattice)
    table = bound.incidence
    flipped = np.unique(table.detector[lattice.sector == MEMORY])
    channels = flipped[flipped < table.num_bits] // np.prod(bound.grid.shape)
    assert set(channels) == set(network.bits)
    dets = (np.random.default_rng(3).random((200, lattice.num_detectors)) < 0.1).view(np.uint8)
    found = bound.apply(dets, CommitRule(0.5))[0]
    changed = (found.residual != dets).any(axis=0)
    assert changed[lattice.sector == MEMORY].any()
    assert not changed[lattice.sector != MEMORY].any()


def test_events_of_memory_checks_have_features_of_their_own() -> None:
    """Other events are seen by the first layer, and by no more."""
    network = _network(memory_only=True)
    events = torch.zeros(3, EVENT_CHANNELS, 1, 1, 5)
    events[:, 1, 0, 0, 0] = 1  # memory
    events[1, 0, 0, 0, 1] = 1  # other, beside it
    events[2, 0, 0, 0, 2] = 1  # other, farther than a kernel
    with torch.inference_mode():
        alone, beside, farther = network(events, torch.zeros(1, STATIC_CHANNELS, 1, 1, 5))
    assert not torch.equal(alone, beside)
    assert torch.equal(alone, farther)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="active_only"):
        PreDecoderNetwork(memory_only=True)
    with pytest.raises(ValueError, match="kernel of 3"):
        PreDecoderNetwork(ends_only=True, kernel=1)


def test_loops_compile_where_nothing_can_be_written(monkeypatch) -> None:
    """As numba has it when neither the package's folder nor the home can be written to."""

    def no_place(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(CacheImpl, "__init__", no_place)
    assert compiled(_successor)(2) == 3


def _successor(x: int) -> int:
    return x + 1
