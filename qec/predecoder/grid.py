"""Packing of the space-time lattice into unit cells: the tensors that the network sees.

A rotated surface code repeats every two sites, not every one.  So 2 x 2 plaquettes (and the data
qubits south-east of them) form one cell, and their four positions become channels.  The columns
are shifted by one where needed, so that the memory checks always take the same two positions.
"""

from __future__ import annotations

import numpy as np
import torch

from qec.chain import Chain
from qec.lattice import SpaceTimeLattice
from qec.patch import MEMORY, OTHER, PADDING

EVENT_CHANNELS = 4
STATIC_CHANNELS = 8
CHAIN_CHANNELS = 12
MEMORY_EVENTS = slice(1, 3)  # the channels of memory checks
MEMORY_BITS = [0, 1, 2, 3, 9, 10]  # of the chain bits that memory checks see
_TYPICAL_LOG_RATE = -3.0  # log detection rate in the middle of the useful range of noise


def bit_ends(bit: int) -> list[tuple[int, int, int]]:
    """The cells of the checks that see a chain bit: (t, y, x) from its own.

    Args:
        bit: one of the ``CHAIN_CHANNELS``.
    """
    plane, row, col = bit // 4, bit % 4 // 2, bit % 2
    if plane == 2:
        return [(0, 0, 0), (1, 0, 0)]  # of a measurement: the check's own events around it
    corners = [(row + i, col + j) for i in (0, 1) for j in (0, 1)]
    cells = {(0, y // 2, x // 2) for y, x in corners if (y + x) % 2 == (plane == MEMORY)}
    return sorted(cells)


class CellGrid:
    """Index arithmetic between detectors, chains and cell tensors of one lattice.

    Attributes:
        shape: (T, Y, X): R+1 layers and the rows and columns of cells.
        static: float32 (1, 8, T, Y, X): which detectors exist, and their log detection rates as
            far as the model knows them (this is how the network learns the noise level).
        valid: bool (12, T, Y, X): chain bits that some detector can see.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        self.lattice = lattice
        d, r = lattice.distance, lattice.rounds
        self._shift = 1 - lattice.parity
        self.shape = (r + 1, (d + 1) // 2, (d + 2 + self._shift) // 2)
        layers, rows, cols = self._full = (r + 1, 2 * self.shape[1], 2 * self.shape[2])

        there = np.flatnonzero(lattice.sector != PADDING)
        where = (lattice.layer[there], lattice.row[there], lattice.col[there] + self._shift)
        detector = np.full(self._full, lattice.num_detectors)
        detector[where] = there
        # (T, Y, X, 4), channels last; the extra detector is an always silent one.
        self._detector = torch.from_numpy(
            self._cells(detector[None]).transpose(1, 2, 3, 0).reshape(-1).copy()
        )
        exists = np.zeros(self._full, dtype=np.float32)
        exists[where] = 1
        rate = np.zeros(self._full, dtype=np.float32)
        rate[where] = np.log(np.clip(lattice.detection_rate[there], 1e-6, 0.5)) - _TYPICAL_LOG_RATE
        static = np.concatenate([self._cells(exists[None]), self._cells(rate[None])])
        self.static = torch.from_numpy(static[None].copy())

        valid = np.zeros((3, layers, rows, cols), dtype=bool)
        for sector in (MEMORY, OTHER):
            valid[sector, lattice.data_exists[sector], :d, self._shift : self._shift + d] = True
        valid[2, :r, : d + 1, self._shift : self._shift + d + 1] = lattice.time_exists
        self.valid = torch.from_numpy(self._cells(valid).copy())

    def _cells(self, planes: np.ndarray) -> np.ndarray:
        """(n, T, 2Y, 2X, ...) -> (4n, T, Y, X, ...); channel = (plane, row % 2, column % 2)."""
        n, rest = len(planes), planes.shape[4:]
        t, y, x = self.shape
        split = planes.reshape(n, t, y, 2, x, 2, *rest)
        return np.moveaxis(split, (3, 5), (1, 2)).reshape(4 * n, t, y, x, *rest)

    def pack_events(self, detectors: torch.Tensor) -> torch.Tensor:
        """(B, num_detectors) of any dtype -> the same (B, 4, T, Y, X), channels last in memory."""
        padded = torch.nn.functional.pad(detectors, (0, 1))
        if detectors.device.type == "cpu" and detectors.dtype == torch.uint8:  # four times faster
            cells = torch.from_numpy(padded.numpy().take(self._detector.numpy(), axis=1))
        else:
            cells = padded.index_select(1, self._detector.to(detectors.device))
        shots = detectors.shape[0]  # not len(): torch.export would take it for a constant
        return cells.view(shots, *self.shape, EVENT_CHANNELS).permute(0, 4, 1, 2, 3)

    def pack_chain(self, chain: Chain) -> torch.Tensor:
        """Chain of uint64 words -> uint8 (64 W, 12, T, Y, X)."""
        d, r, s = self.lattice.distance, self.lattice.rounds, self._shift
        planes = np.zeros((3, *self._full, chain.t.shape[-1]), dtype=np.uint64)
        planes[:2, :, :d, s : s + d] = chain.q
        planes[2, :r, : d + 1, s : s + d + 1] = chain.t
        cells = np.unpackbits(
            np.ascontiguousarray(self._cells(planes)).view(np.uint8), axis=-1, bitorder="little"
        )
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(cells, -1, 0)))

    def unpack_chain(self, bits: torch.Tensor) -> Chain:
        """Integers (B, 12, T, Y, X) -> chain of tensors of the same dtype, shots last."""
        d, r, s = self.lattice.distance, self.lattice.rounds, self._shift
        t, y, x = self.shape
        # Shots last and contiguous: the residual then works on long runs.
        bits = (bits * self.valid.to(bits.device)).permute(1, 2, 3, 4, 0).contiguous()
        planes = bits.view(3, 2, 2, t, y, x, -1).permute(0, 3, 4, 1, 5, 2, 6)
        planes = planes.reshape(3, t, 2 * y, 2 * x, -1)
        return Chain(planes[:2, :, :d, s : s + d], planes[2, :r, : d + 1, s : s + d + 1])
