"""Packing of the space-time lattice into unit cells: the tensors that the network sees.

A rotated surface code repeats every two sites, not every one.  So 2 x 2 plaquettes form one cell,
and their four positions become channels.  The columns are shifted by one where needed, so that the
memory checks always take the same two positions.  An edge of the matching graph belongs to the
cell of its first end; its channel says where in the cell that is, and which step leads to the
other end.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import torch

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import PADDING
from qec.matching.belief_propagation import BeliefPropagation, FactorGraph
from qec.matching.matching_edges import MatchingEdges
from qec.matching.memory_edges import MemoryEdges
from qec.predecoder.belief_tensors import BeliefTensors

STEPS = (
    *((0, 1, -1), (0, 1, 1), (0, 0, 2), (0, 2, 0)),
    *((1, 0, 0), (1, -1, -1), (1, -1, 1), (1, 1, -1), (1, 1, 1)),
    *((1, -2, 0), (1, 2, 0), (1, 0, -2), (1, 0, 2)),
)
"""Layers, rows and columns from the first end of an edge to the second, in all orders of gates."""
_KINDS = len(STEPS) + 1  # the last one ends on a boundary
EVENT_CHANNELS = 4
EDGE_CHANNELS = 2 * _KINDS
STATIC_CHANNELS = 2 * EDGE_CHANNELS + 8
MEMORY_EVENTS = slice(1, 3)  # the channels of memory checks
NEVER = -20.0  # the log-odds of an edge that there is not
_TYPICAL_LOG_RATE = -3.0  # log detection rate in the middle of the useful range of noise


def edge_ends(channel: int) -> list[tuple[int, int, int]]:
    """The cells of the ends of an edge, (t, y, x) from its own; one where they are the same.

    Args:
        channel: one of the ``EDGE_CHANNELS``.
    """
    row, kind = divmod(channel, _KINDS)
    if kind == len(STEPS):
        return [(0, 0, 0)]
    layer, rows, cols = STEPS[kind]
    other = (layer, (row + rows) // 2, (1 - row + cols) // 2)
    return list(dict.fromkeys([(0, 0, 0), other]))


class Known(NamedTuple):
    """What a grid knows of an error model: attributes of ``CellGrid``; None: to be made."""

    edges: MemoryEdges
    factors: FactorGraph
    static: torch.Tensor | None


class CellGrid:
    """Index arithmetic between detectors, edges and cell tensors of one lattice.

    Args:
        lattice: of the detectors.
        known: of its error model; None: made of the lattice's.

    Attributes:
        shape: (T, Y, X): R+1 layers and the rows and columns of cells.
        edges: the memory edges of the error model.
        factors: its mechanisms and the detectors that they flip.
        told: int64 (n,), the edges for which there is a channel: nearly all.
        place: int64 (n,), where they stand in the flattened (T, Y, X, EDGE_CHANNELS).
        static: float32 (1, STATIC_CHANNELS, T, Y, X), what the network is told of the error model:
            for each edge the log-odds that it fires and how much of that it shares with others
            (``MemoryEdges``); which detectors exist, and their log detection rates.
    """

    def __init__(
        self,
        lattice: SpaceTimeLattice,
        known: Known | None = None,
    ) -> None:
        self.lattice = lattice
        if known is None:
            pieces = MatchingEdges.of(lattice)
            known = Known(MemoryEdges.of(lattice, pieces), FactorGraph.of(pieces), None)
        self.edges, self.factors, static = known
        shift = 1 - lattice.parity
        rows, cols = lattice.shape
        self.shape = (lattice.rounds + 1, rows // 2 + 1, (cols + 2 + shift) // 2)
        self._full = (self.shape[0], 2 * self.shape[1], 2 * self.shape[2])

        there = np.flatnonzero(lattice.sector != PADDING)
        where = (lattice.layer[there], lattice.row[there], lattice.col[there] + shift)
        detector = np.full(self._full, lattice.num_detectors)
        detector[where] = there
        # (T, Y, X, 4), channels last; the extra detector is an always silent one.
        self._detector = torch.from_numpy(self._cells(detector).reshape(-1).copy())
        self.predicted, self.place = self._places(shift)
        self._told_place = torch.from_numpy(self.place)
        self.static = self._static(where, there) if static is None else static
        self._beliefs: dict[int, BeliefPropagation] = {}
        self._belief_tensors: dict[tuple[int, torch.device], BeliefTensors] = {}

    def _static(self, where: tuple[np.ndarray, ...], there: np.ndarray) -> torch.Tensor:
        exists = np.zeros(self._full, dtype=np.float32)
        exists[where] = 1
        rate = np.zeros(self._full, dtype=np.float32)
        known = np.clip(self.lattice.detection_rate[there], 1e-6, 0.5)
        rate[where] = np.log(known) - _TYPICAL_LOG_RATE
        prior = np.full((*self.shape, EDGE_CHANNELS), NEVER, dtype=np.float32)
        prior.reshape(-1)[self.place] = np.maximum(self.edges.log_odds[self.predicted], NEVER)
        shared = np.zeros_like(prior)
        shared.reshape(-1)[self.place] = self.edges.shared[self.predicted]
        parts = [prior, shared, self._cells(exists), self._cells(rate)]
        return torch.from_numpy(np.concatenate(parts, axis=-1)).movedim(-1, 0)[None]

    def cut(self, start: int, end: int) -> CellGrid:
        """Layers [start, end) by themselves; edges that lead out are not told there.

        The network is told of these layers what it is told of them in the whole lattice.
        """
        layer = self.lattice.layer
        kept = np.flatnonzero((layer >= start) & (layer < end))
        static = self.static[:, :, start:end]
        known = Known(self.edges.among(kept), self.factors.among(kept), static)
        return CellGrid(self.lattice.cut(start, end), known)

    def _places(self, shift: int) -> tuple[np.ndarray, np.ndarray]:
        """``told`` and ``place``."""
        lattice = self.lattice
        first, second = self.edges.ends.T
        site = np.stack([lattice.layer, lattice.row, lattice.col + shift])
        step = (site[:, second] - site[:, first]).T
        kind = np.where(second < 0, len(STEPS), -1)
        for k, known in enumerate(STEPS):
            kind[(second >= 0) & (step == known).all(axis=1)] = k
        told = np.flatnonzero(kind >= 0)
        t, row, col = site[:, first[told]]
        _, y, x = self.shape
        cell = (t * y + row // 2) * x + col // 2
        return told, cell * EDGE_CHANNELS + row % 2 * _KINDS + kind[told]

    def _cells(self, plane: np.ndarray) -> np.ndarray:
        """(T, 2Y, 2X) -> (T, Y, X, 4); channel = (row % 2, column % 2)."""
        t, y, x = self.shape
        return plane.reshape(t, y, 2, x, 2).transpose(0, 1, 3, 2, 4).reshape(t, y, x, 4)

    @functools.cached_property
    def valid(self) -> torch.Tensor:
        """bool (EDGE_CHANNELS, T, Y, X), where there is an edge."""
        found = torch.zeros(*self.shape, EDGE_CHANNELS, dtype=torch.bool)
        found.view(-1)[torch.from_numpy(self.place)] = True
        return found.movedim(-1, 0)

    @functools.cached_property
    def event_place(self) -> np.ndarray:
        """int64 (num_detectors,), where each stands in the flattened (T, Y, X, 4); -1: nowhere."""
        detector = self._detector.numpy()
        place = np.full(self.lattice.num_detectors + 1, -1)
        place[detector] = np.arange(len(detector))
        return place[:-1]

    def pack_events(self, detectors: torch.Tensor) -> torch.Tensor:
        """(B, num_detectors) of any dtype -> the same (B, 4, T, Y, X), channels last in memory."""
        padded = torch.nn.functional.pad(detectors, (0, 1))
        if detectors.device.type == "cpu" and detectors.dtype == torch.uint8:  # four times faster
            cells = torch.from_numpy(padded.numpy().take(self._detector.numpy(), axis=1))
        else:
            cells = padded.index_select(1, self._detector.to(detectors.device))
        shots = detectors.shape[0]  # not len(): torch.export would take it for a constant
        return cells.view(shots, *self.shape, EVENT_CHANNELS).permute(0, 4, 1, 2, 3)

    def pack(self, detectors: torch.Tensor, iterations: int, dtype: torch.dtype) -> torch.Tensor:
        """What a network sees of shots: their events, and beliefs after some iterations, if any.

        Args:
            detectors: (B, num_detectors) of any dtype, 0 or 1.
            iterations: of belief propagation; 0: events alone.
            dtype: of what is returned.

        Returns:
            (B, 4 or 4 + EDGE_CHANNELS, T, Y, X), channels last in memory.
        """
        events = self.pack_events(detectors).to(dtype)
        if not iterations:
            return events
        beliefs = self.pack_beliefs(detectors, iterations).to(dtype)
        both = torch.cat([part.movedim(1, -1) for part in (events, beliefs)], dim=-1)
        return both.movedim(-1, 1)

    def pack_beliefs(self, detectors: torch.Tensor, iterations: int) -> torch.Tensor:
        """What belief propagation says of each edge.

        Args:
            detectors: (B, num_detectors) of any dtype.
            iterations: of belief propagation.

        Returns:
            float32 (B, EDGE_CHANNELS, T, Y, X), as of ``BeliefPropagation``; 0 where is no edge.
        """
        if detectors.device.type == "cpu" and not torch.compiler.is_compiling():
            events = detectors.to(torch.uint8).numpy()
            found = torch.from_numpy(self.beliefs(iterations)(events))
        else:
            found = self.belief_tensors(iterations, detectors.device)(detectors)
        shots = detectors.shape[0]
        cells = found.new_zeros(shots, math.prod(self.shape) * EDGE_CHANNELS)
        cells = cells.index_copy(1, self._told_place.to(found.device), found)
        return cells.view(shots, *self.shape, EDGE_CHANNELS).permute(0, 4, 1, 2, 3)

    def beliefs(self, iterations: int) -> BeliefPropagation:
        """Belief propagation with so many iterations, for the edges of ``told``; made once."""
        if iterations not in self._beliefs:
            self._beliefs[iterations] = BeliefPropagation(
                self.factors, self.edges, self.predicted, self.lattice.num_detectors, iterations
            )
        return self._beliefs[iterations]

    def belief_tensors(self, iterations: int, device: torch.device) -> BeliefTensors:
        """The same on a device; a trace must find it made before."""
        key = iterations, device
        if key not in self._belief_tensors:
            self._belief_tensors[key] = BeliefTensors.of(self.beliefs(iterations), device)
        return self._belief_tensors[key]

    def pack_edges(self, fired: np.ndarray) -> torch.Tensor:
        """uint8 (B, E) -> the same (B, EDGE_CHANNELS, T, Y, X), channels last in memory."""
        cells = np.zeros((len(fired), int(np.prod(self.shape)) * EDGE_CHANNELS), dtype=np.uint8)
        cells[:, self.place] = fired[:, self.predicted]
        found = torch.from_numpy(cells).view(len(fired), *self.shape, EDGE_CHANNELS)
        return found.permute(0, 4, 1, 2, 3)
