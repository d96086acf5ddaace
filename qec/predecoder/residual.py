"""What committed chain bits leave: the residual syndrome, and the logical flip.

Few bits are committed.  So what each one flips is looked up in a table, which is made from the
boundary map and the logical parity of ``qec.chain``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from qec import chain as chains
from qec.patch import PADDING
from qec.predecoder.grid import CHAIN_CHANNELS, CellGrid
from qec.predecoder.kernels import left_after
from qec.runs import place_in_run


class Incidence(NamedTuple):
    """The residual and the logical flip as sums, modulo 2, of chain bits.

    Bits are numbered as in the flattened (12, T, Y, X).

    Attributes:
        detector: int64 (num_detectors, k), the bits that flip each detector; where there are fewer
            than k, the rest is ``num_bits``.
        observable: int64 (m,), the bits that flip observable 0.
        num_bits: 12 T Y X.
    """

    detector: np.ndarray
    observable: np.ndarray
    num_bits: int

    def channels_last(self, bit: np.ndarray) -> np.ndarray:
        """Where bits stand in the flattened (T, Y, X, 12)."""
        cells = self.num_bits // CHAIN_CHANNELS
        return bit % cells * CHAIN_CHANNELS + bit // cells


def incidence(grid: CellGrid) -> Incidence:
    """Which valid bits of a grid flip each detector, and the observable."""
    lattice = grid.lattice
    shape = (CHAIN_CHANNELS, *grid.shape)
    num_bits = int(np.prod(shape))
    # The boundary map XORs.  Each bit holds its number, from 1 on, in one of six shots, such that
    # no two bits of one shot meet in a detector: then it finds numbers there as they are.
    numbers = grid.unpack_chain(torch.arange(1, num_bits + 1).view(1, *shape))
    q, t = (torch.zeros(*part.shape[:-1], 6, dtype=part.dtype) for part in numbers)
    for row in (0, 1):
        for col in (0, 1):
            where = (slice(None), slice(None), slice(row, None, 2), slice(col, None, 2))
            q[(*where, 2 * row + col)] = numbers.q[where][..., 0]
    for layer in (0, 1):
        t[layer::2, ..., 4 + layer] = numbers.t[layer::2, ..., 0]
    found = chains.boundary(chains.Chain(q, t), lattice)[lattice.layer, lattice.row, lattice.col]
    found[lattice.sector == PADDING] = 0
    found = found.sort(dim=1, descending=True).values.numpy()
    found = found[:, : max(int((found > 0).sum(axis=1).max()), 1)]
    seen = chains.logical_bits(numbers, lattice).flatten().numpy()
    return Incidence(np.where(found > 0, found - 1, num_bits), seen[seen > 0] - 1, num_bits)


class Residual:
    """The residual on one grid.

    Args:
        table: what each bit of the grid flips; bits that are not ``valid`` flip nothing.
        device: where its tensors are.
    """

    def __init__(self, table: Incidence, device: torch.device) -> None:
        self._detectors = len(table.detector)
        detector, column = np.nonzero(table.detector < table.num_bits)
        place = table.channels_last(table.detector[detector, column])
        order = np.argsort(place, kind="stable")
        place, detector = place[order], detector[order]
        count = np.bincount(place, minlength=table.num_bits)
        # A detector too many stands for none.
        flips = np.full((table.num_bits, max(count.max(), 1)), self._detectors)
        flips[place, place_in_run(count)] = detector
        logical = np.zeros(table.num_bits, dtype=np.uint8)
        logical[table.channels_last(table.observable)] = 1
        self._tables = flips, logical
        self._flips = torch.from_numpy(flips).to(device)
        self._logical = torch.from_numpy(logical).to(device)

    def __call__(
        self, detectors: torch.Tensor, bits: torch.Tensor, cuts: Sequence[float] = (0.0,)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Detection events that committed bits leave, and the logical flips that they make.

        Args:
            detectors: uint8 (B, num_detectors).
            bits: (B, 12, T, Y, X) of any dtype.
            cuts: n of them; those bits are committed that are above.

        Returns:
            uint8 (n, B, num_detectors), uint8 (n, B).
        """
        left, flipped, _ = self.with_close(detectors, bits, cuts, 0.0)
        return left, flipped

    def with_close(
        self, detectors: torch.Tensor, bits: torch.Tensor, cuts: Sequence[float], margin: float
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As a call, and bool (B,): whether any bit is within ``margin`` of a cut (on the CPU)."""
        bits = bits.movedim(1, -1).flatten(1)
        if detectors.device.type != "cpu":
            found = (self.by_tensors(detectors, bits > cut) for cut in cuts)
            left, flipped = zip(*found, strict=True)
            nowhere = torch.zeros(len(detectors), dtype=torch.bool, device=detectors.device)
            return torch.stack(left), torch.stack(flipped), nowhere
        if bits.dtype == torch.bfloat16:
            bits = bits.float()
        arrays = detectors.contiguous().numpy(), bits.contiguous().numpy(), np.array(cuts, float)
        left, flipped, close = left_after(*arrays, margin, *self._tables)
        return torch.from_numpy(left), torch.from_numpy(flipped), torch.from_numpy(close)

    def by_tensors(
        self, detectors: torch.Tensor, bits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same on any device, once, of bits (B, T Y X 12) that are committed or not."""
        shots = len(detectors)
        shot, place = bits.nonzero().unbind(1)
        width = self._detectors + 1
        flipped = (self._flips[place] + (width * shot)[:, None]).flatten()
        events = torch.bincount(flipped, minlength=shots * width).view(shots, width)
        explained = (events[:, : self._detectors] & 1).to(torch.uint8)
        flips = torch.bincount(shot[self._logical[place] == 1], minlength=shots) & 1
        return detectors ^ explained, flips.to(torch.uint8)
