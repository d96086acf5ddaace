"""Labelled shots of an error model: detection events, and the edges that have fired.

Stim's sampler of error models tells which mechanisms happened, too, but a shot at a time and for
fixed probabilities; this one skips from one event of a mechanism to its next, writes straight into
the tensors of a batch, and is 10 times faster.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from qec.circuits.lattice import SpaceTimeLattice
from qec.predecoder.unit_cells import EDGE_CHANNELS, CellGrid
from qec.support.compiled_loops import compiled
from qec.support.ragged_arrays import rows


class LabelledSampler:
    """Draws shots of one error model.

    Args:
        lattice: with its error model.

    Attributes:
        grid: how they are packed into cells.

    Raises:
        QecError: as ``qec.matching.matcher.basis_split``.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        self.grid = CellGrid(lattice)
        edges, factors = self.grid.edges, self.grid.factors
        self._probability = factors.probability
        count = len(factors.probability)
        self._events = rows(factors.mechanism, factors.detector, count)
        channel = np.full(len(edges.ends), -1)  # where each edge goes
        channel[self.grid.predicted] = self.grid.place
        told = channel[edges.edge] >= 0
        self._edges = rows(edges.mechanism[told], channel[edges.edge[told]], count)

    def sample(self, shots: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Shots, reproducibly by ``seed``.

        Returns:
            uint8 (B, num_detectors), detection events, and uint8 (B, EDGE_CHANNELS, T, Y, X),
            whether each edge has fired an odd number of times, channels last in memory.
        """
        shape = self.grid.shape
        events = np.zeros((shots, self.grid.lattice.num_detectors), dtype=np.uint8)
        fired = np.zeros((shots, math.prod(shape) * EDGE_CHANNELS), dtype=np.uint8)
        rng = np.random.default_rng(seed)
        _draw(self._probability, *self._events, *self._edges, rng, events, fired)
        labels = torch.from_numpy(fired).view(shots, *shape, EDGE_CHANNELS)
        return torch.from_numpy(events), labels.permute(0, 4, 1, 2, 3)


@compiled
def _draw(
    probability: np.ndarray,
    event_start: np.ndarray,
    event: np.ndarray,
    edge_start: np.ndarray,
    edge: np.ndarray,
    rng: np.random.Generator,
    events: np.ndarray,
    fired: np.ndarray,
) -> None:
    """XORs each mechanism into the shots in which it happens.

    Between two of them lie k shots with the probability (1 - p)^k p, so that one random number u
    leads from one to the next: k is the whole part of ln(u) / ln(1 - p).
    """
    shots = len(events)
    for m in range(len(probability)):
        if probability[m] <= 0.0:
            continue
        scale = 1.0 / np.log1p(-min(probability[m], 1.0 - 1e-12))
        skip = np.log(1.0 - rng.random()) * scale
        shot = 0
        while skip < shots - shot:
            shot += int(skip)
            for k in range(event_start[m], event_start[m + 1]):
                events[shot, event[k]] ^= 1
            for k in range(edge_start[m], edge_start[m + 1]):
                fired[shot, edge[k]] ^= 1
            shot += 1
            skip = np.log(1.0 - rng.random()) * scale
