"""The network's logical gap against the lightest logical operator that matching finds."""

from __future__ import annotations

import numpy as np
import pymatching
import pytest
import torch
from scipy.sparse import csc_matrix

from qec.decoder import Decoder
from qec.lattice import SpaceTimeLattice
from qec.predecoder.correction import Predecoder
from qec.predecoder.grid import CHAIN_CHANNELS, CellGrid
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.network_gap import NetworkGap
from qec.predecoder.residual import incidence
from qec.predecoder.rule import CommitRule, CommitRules


def lightest_operator(grid: CellGrid, logits: torch.Tensor) -> float:
    """Least sum of absolute logits of bits that flip the observable and no detector."""
    table = incidence(grid)
    checks = np.zeros((grid.lattice.num_detectors + 1, table.num_bits + 1), dtype=np.uint8)
    np.put_along_axis(checks[:-1], table.detector, 1, axis=1)
    checks[-1, table.observable] = 1
    cost = logits.abs().flatten().numpy()
    kept = np.flatnonzero((cost < 4) & checks[:, :-1].any(axis=0))
    syndrome = np.zeros(len(checks), dtype=np.uint8)
    syndrome[-1] = 1
    matching = pymatching.Matching.from_check_matrix(
        csc_matrix(checks[:, kept]), weights=cost[kept].astype(np.float64)
    )
    try:
        return matching.decode(syndrome, return_weight=True)[1]
    except ValueError:  # no such bits
        return np.inf


@pytest.mark.parametrize("basis", ["X", "Z"])
@pytest.mark.parametrize("distance", [3, 5])
def test_gap_is_the_weight_of_the_lightest_logical_operator(our_circuit, distance, basis):
    grid = CellGrid(SpaceTimeLattice.from_circuit(our_circuit(distance, 3, basis, 0.01)))
    rng = torch.Generator().manual_seed(5)
    shape = (40, CHAIN_CHANNELS, *grid.shape)
    # From shots where every bit is in doubt to shots where few are.
    scale = torch.linspace(1, 20, 40).view(-1, 1, 1, 1, 1)
    logits = torch.randn(shape, generator=rng) * scale
    gaps = NetworkGap(grid.lattice, incidence(grid), torch.device("cpu"))(
        logits.to(memory_format=torch.channels_last_3d)
    )
    want = [lightest_operator(grid, shot) for shot in logits]
    assert gaps.dtype == np.float32
    assert 0 < np.isinf(want).sum() < len(want)
    # PyMatching rounds weights to 1 part in some 10,000 of the largest.
    np.testing.assert_allclose(gaps, want, atol=0.01)


def test_sure_bits_leave_no_doubt(our_circuit):
    grid = CellGrid(SpaceTimeLattice.from_circuit(our_circuit(3, 2, "Z", 0.01)))
    logits = torch.full((3, CHAIN_CHANNELS, *grid.shape), -4.5)
    logits[1] = 0
    assert NetworkGap(grid.lattice, incidence(grid), torch.device("cpu"))(logits).tolist() == [
        np.inf,
        0,
        np.inf,
    ]


def test_shots_fall_back_where_the_network_is_unsure(our_circuit):
    """A network that is sure of nothing: every shot is doubtful, unless fallback is off."""
    circuit = our_circuit(3, 3, "X", 0.01)
    network = PreDecoderNetwork(width=8, layers=2)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    dets = circuit.compile_detector_sampler(seed=9).sample(300).view(np.uint8)
    for rule, share in ((CommitRule(0.9, 0.01), 1), (CommitRule(0.9, 0), 0)):
        predecoder = Predecoder(network, CommitRules(rule, rule))
        decoder = Decoder.from_circuit(circuit, predecoder=predecoder)
        predecoded = decoder.predecode(dets)
        assert (predecoded.gap == (0 if share else np.inf)).all()
        assert decoder.match(dets, predecoded).fell_back.mean() == share
