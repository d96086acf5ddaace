"""A network on active cells computes the same cell by cell as over the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba.core.caching import CacheImpl

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY
from qec.circuits.surface_code import ORIENTATIONS
from qec.predecoder import sparse_network as sparse
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.predecoder import Predecoder
from qec.predecoder.unit_cells import EDGE_CHANNELS, EVENT_CHANNELS, STATIC_CHANNELS
from qec.support.compiled_loops import compiled
from qec.training.muon import orthogonalised

each_basis = pytest.mark.parametrize("basis", ["X", "Z"])
each_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def _network(**arguments: object) -> PreDecoderNetwork:
    torch.manual_seed(7)
    network = PreDecoderNetwork(**{"width": 8, "layers": 4, "active_only": True, **arguments})
    for conv in network.convolutions():
        torch.nn.init.normal_(conv.bias, std=0.3)
    return network


KINDS = [{}, {"separable": True}, {"kernel": 5, "residual": False}]


def _inputs(shots: int, shape: tuple[int, int, int], rate: float, seed: int) -> tuple:
    rng = torch.Generator().manual_seed(seed)
    events = (torch.rand(shots, EVENT_CHANNELS, *shape, generator=rng) < rate).float()
    return events, torch.rand(1, STATIC_CHANNELS, *shape, generator=rng)


@settings(max_examples=40, deadline=None)
@given(
    arguments=st.fixed_dictionaries(
        {
            "kernel": st.sampled_from([3, 5]),
            "layers": st.integers(2, 4),
            "activation": st.sampled_from(["relu", "gelu", "silu"]),
            "residual": st.booleans(),
            "separable": st.booleans(),
        }
    ),
    shots=st.integers(1, 5),
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    rate=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_log_odds_and_gradients_are_those_of_dense_convolutions(
    arguments, shots, shape, rate, seed
) -> None:
    network = _network(**arguments)
    events, static = _inputs(shots, shape, rate, seed)
    found = []
    for logits in (
        network(events, static),
        network.dense_logits(events, network.static_features(static)),
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
        features = network.static_features(static)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network.from_static_features(events.bfloat16(), features.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_empty_cells_have_no_features() -> None:
    """What a far event says does not come through a gap wider than the kernel."""
    network = _network()
    events = torch.zeros(2, EVENT_CHANNELS, 1, 1, 9)
    events[:, 1, 0, 0, 0] = 1
    events[1, 1, 0, 0, 8] = 1
    with torch.inference_mode():
        near, both = network(events, torch.zeros(1, STATIC_CHANNELS, 1, 1, 9))
    torch.testing.assert_close(near[..., :5], both[..., :5])
    events[1, 1, 0, 0] = 1
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
@pytest.mark.parametrize("kind", [{"active_only": False}, *KINDS])
def test_networks_leave_the_other_checks_alone(our_circuit, basis, orientation, kind) -> None:
    """They see the events of both, and tell edges of memory checks."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(3, 3, basis, 0.01, orientation))
    network = _network(**kind)
    torch.nn.init.constant_(network.head.bias, 7.0)
    bound = Predecoder(network, 0.5).compile_for(lattice)
    dets = (np.random.default_rng(3).random((100, lattice.num_detectors)) < 0.1).view(np.uint8)
    changed = (bound.apply(dets).residual != dets).any(axis=0)
    assert changed[lattice.sector == MEMORY].any()
    assert not changed[lattice.sector != MEMORY].any()
    quiet = dets.copy()
    quiet[:, lattice.sector != MEMORY] = 0
    assert (bound.log_odds(quiet) != bound.log_odds(dets)).any()


@each_basis
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("core", [None, (1, 3)])
def test_commits_need_no_log_odds_far_from_events(our_circuit, basis, kind, core) -> None:
    """Added up where events are, they are those of all cells; priors above the cut count, too."""
    lattice = SpaceTimeLattice.from_circuit(our_circuit(5, 4, basis, 0.02))
    network = _network(**kind)
    torch.nn.init.normal_(network.head.bias, 4.0, 2.0)
    bound = Predecoder(network, 0.5).compile_for(lattice, core=core)
    dets = (np.random.default_rng(3).random((100, lattice.num_detectors)) < 0.1).view(np.uint8)
    shots = torch.from_numpy(dets)
    events = bound.cells(shots)
    found, wanted = (bound.commit(shots, see(events)) for see in (bound.predict, bound.forward))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (wanted[0] != dets).any(axis=1).mean() > 0.5
    assert bound.commit(shots[:0], bound.predict(bound.cells(shots[:0])))[1].shape == (0,)


def test_what_no_event_tells_about_is_as_likely_as_before() -> None:
    """A head of zeros adds nothing: the log-odds are the priors of the error model."""
    for kind in ({"active_only": False}, *KINDS):
        network = _network(**kind)
        for parameter in network.head.parameters():
            torch.nn.init.zeros_(parameter)
        events, static = _inputs(3, (3, 2, 2), 0.2, 5)
        with torch.inference_mode():
            found = network(events, static)
        assert torch.equal(found, static[:, :EDGE_CHANNELS].expand_as(found))


def test_events_of_memory_checks_have_features_of_their_own() -> None:
    """Other events are seen by the first layer, and by no more."""
    network = _network()
    events = torch.zeros(3, EVENT_CHANNELS, 1, 1, 5)
    events[:, 1, 0, 0, 0] = 1  # memory
    events[1, 0, 0, 0, 1] = 1  # other, beside it
    events[2, 0, 0, 0, 2] = 1  # other, farther than a kernel
    with torch.inference_mode():
        alone, beside, farther = network(events, torch.zeros(1, STATIC_CHANNELS, 1, 1, 5))
    assert not torch.equal(alone, beside)
    assert torch.equal(alone, farther)


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="active_only needs a kernel of 3"):
        PreDecoderNetwork(active_only=True, kernel=1)


def test_loops_compile_where_nothing_can_be_written(monkeypatch) -> None:
    """As numba has it when neither the package's folder nor the home can be written to."""

    def no_place(*_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(CacheImpl, "__init__", no_place)
    assert compiled(_successor)(2) == 3


def _successor(x: int) -> int:
    return x + 1
