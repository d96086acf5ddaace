"""What committed edges leave: the residual syndrome, and the logical flip.

Worked example: three edges join detectors 0 and 1, 1 and 2, and 2 and the boundary; the last one
flips the observable.  There are events at 0 and 2.  The network gives the edges log-odds of 3, 1
and -3.  The threshold 0.9 is log-odds of ln 9 = 2.2, so that only the first edge is committed.  It
flips detectors 0 and 1: matching gets events at 1 and 2, and no logical flip is committed.  With
log-odds of 3 for the second edge, too, detector 1 is flipped twice and no event is left.  With -3,
-3 and 3 the event at 2 is gone and the one at 0 left, and the observable counts as flipped.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from qec.predecoder.sparse_kernels import left_after, left_after_terms
from qec.predecoder.sparse_network import Terms
from qec.predecoder.unit_cells import EDGE_CHANNELS, CellGrid


class Residual:
    """The residual on one grid.

    Args:
        grid: whose edges are committed.
        core: layers [start, end); only edges that begin there are committed.
        device: where its tensors are.
    """

    def __init__(
        self, grid: CellGrid, device: torch.device, core: tuple[int, int] | None = None
    ) -> None:
        layer = grid.lattice.layer[grid.edges.ends[grid.predicted, 0]]
        start, end = core or (0, grid.shape[0])
        kept = (layer >= start) & (layer < end)
        edge = grid.predicted[kept]
        self.place = grid.place[kept]
        self._shape = grid.shape
        self._detectors = grid.lattice.num_detectors
        # A detector too many stands for the boundary.
        ends = grid.edges.ends[edge]
        self.ends = np.where(ends < 0, self._detectors, ends)
        self.flips = grid.edges.flips[edge].astype(np.uint8)
        tables = (self.place, self.ends, self.flips)
        self._on_device = [torch.from_numpy(table).to(device) for table in tables]

    def __call__(
        self, detectors: torch.Tensor, log_odds: torch.Tensor, cut: float, margin: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Detection events that committed edges leave, and the logical flips that they make.

        Args:
            detectors: uint8 (B, num_detectors).
            log_odds: (B, EDGE_CHANNELS, T, Y, X) of any dtype.
            cut: committed are the edges above it.
            margin: how far from the cut an edge is close to it.

        Returns:
            uint8 (B, num_detectors), uint8 (B,), bool (B,): whether any edge is close to the cut.
        """
        told = log_odds.movedim(1, -1).flatten(1)
        if detectors.device.type == "cpu":
            told = (told.float() if told.dtype == torch.bfloat16 else told).contiguous()
            tables = self.place, self.ends, self.flips
            left, flips, close = left_after(
                detectors.contiguous().numpy(), told.numpy(), cut, margin, *tables
            )
            return torch.from_numpy(left), torch.from_numpy(flips), torch.from_numpy(close)
        return self.by_tensors(detectors, told, cut, margin)

    def readers(self, tap: np.ndarray, channel: np.ndarray, size: int) -> np.ndarray:
        """Which edge each term of a cell is for, int64 (cells, m); -1: for none.

        Args:
            tap, channel: int64 (m,), as ``qec.predecoder.sparse_network.SparseNetwork.readers``.
            size: k, of the kernel.
        """
        volume = self._shape
        edge = np.full(math.prod(volume) * EDGE_CHANNELS, -1)
        edge[self.place] = np.arange(len(self.place))
        cell = np.stack(np.unravel_index(np.arange(math.prod(volume)), volume), axis=-1)
        offset = np.stack(np.unravel_index(tap, (size,) * 3), axis=-1) - size // 2
        own = cell[:, None] - offset  # the cell that an edge belongs to
        inside = ((own >= 0) & (own < volume)).all(axis=-1)
        number = np.ravel_multi_index(tuple(np.moveaxis(own, -1, 0)), volume, mode="clip")
        return np.where(inside, edge[number * EDGE_CHANNELS + channel], -1)

    def of_terms(
        self,
        detectors: torch.Tensor,
        found: Terms,
        readers: np.ndarray,
        before: np.ndarray,
        cut: float,
        margin: float = 0.0,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As a call, where log-odds are still to be added up: edges near no event stay as they are.

        Args:
            detectors: uint8 (B, num_detectors), on the CPU.
            found: the terms of the shots.
            readers: int64 (cells, m), as the method of that name returns.
            cut, margin: as in a call.
            before: float32 (n,), log-odds of the edges without any terms.

        Returns:
            uint8 (B, num_detectors), uint8 (B,), bool (B,), as a call does.
        """
        tables = readers, before, cut, margin, self.ends, self.flips
        left, flips, close = left_after_terms(detectors.numpy(), *found, *tables)
        return torch.from_numpy(left), torch.from_numpy(flips), torch.from_numpy(close)

    def by_tensors(
        self, detectors: torch.Tensor, told: torch.Tensor, cut: float, margin: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The same on any device, of log-odds (B, T Y X EDGE_CHANNELS)."""
        place, ends, flips = self._on_device
        shots, width = len(detectors), self._detectors + 1
        told = told.index_select(1, place)
        shot, edge = (told > cut).nonzero().unbind(1)
        flipped = (ends[edge] + (width * shot)[:, None]).flatten()
        events = torch.bincount(flipped, minlength=shots * width).view(shots, width)
        explained = (events[:, : self._detectors] & 1).to(torch.uint8)
        logical = torch.bincount(shot, flips[edge].double(), shots).to(torch.uint8) & 1
        close = ((told - cut).abs() < margin).any(dim=1)
        return detectors ^ explained, logical, close
