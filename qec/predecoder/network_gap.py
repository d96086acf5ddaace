"""The network's logical gap: how unsure it is of the bits that some logical operator consists of.

Where the network gives a chain bit even odds, the opposite choice is about as likely.  If such bits
join the two boundaries of the memory sector, so is the other logical class, whether or not the
residual shows it: bits that were committed wrongly leave no event.  So each bit costs its absolute
logit, and the gap is the cheapest path from boundary to boundary.  It sees wrong commits that the
gap of the residual (``qec.gap``) does not, above all at small distances.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from qec.gap import boundaries
from qec.lattice import SpaceTimeLattice
from qec.predecoder.residual import Incidence
from qec.runs import place_in_run

_SURE = 4.0  # nats: bits beyond are not doubted; more changes nothing (data/experiments.md)


class NetworkGap:
    """The network's logical gap on one grid.

    Args:
        lattice: of the grid.
        table: what each bit of the grid flips; its valid bits may be doubted.
        device: where the logits are.

    Raises:
        QecError: the logical gap is not defined, as for ``qec.gap.GapMatcher``.
    """

    def __init__(self, lattice: SpaceTimeLattice, table: Incidence, device: torch.device) -> None:
        memory = lattice.memory_detectors
        u, v, bit = _edges(table.detector[memory], table.num_bits)
        _, far = boundaries(len(memory), u, v, np.isin(bit, table.observable))
        bit = table.channels_last(bit)
        # The places of the search: the memory detectors, then the far boundary, then a spare one.
        self._far = len(memory)
        first, inner = (v < 0) & ~far, v >= 0
        # What each place leads to, by which bit; the rest of a row leads to the spare place.
        here = np.concatenate([u[~first], v[inner]])
        there = np.concatenate([np.where(far, self._far, v)[~first], u[inner]])
        order = np.argsort(here, kind="stable")
        count = np.bincount(here, minlength=self._far + 1)
        nth = place_in_run(count)
        leads = np.full((self._far + 1, count.max()), self._far + 1)
        by = np.zeros_like(leads)
        here = here[order]
        leads[here, nth] = there[order]
        by[here, nth] = np.concatenate([bit[~first], bit[inner]])[order]
        self._leads, self._by, self._first_bit, self._first = (
            torch.from_numpy(part).to(device) for part in (leads, by, bit[first], u[first])
        )

    def __call__(self, logits: torch.Tensor) -> np.ndarray:
        """Logits (B, 12, T, Y, X) -> float32 (B,), the gaps in nats; infinite where bits are sure.

        All shots at once, from the near boundary on, one bit a step; doubted bits mostly end soon.
        """
        bits = logits.movedim(1, -1).flatten(1)
        width = self._far + 2
        shot = torch.arange(len(bits), device=bits.device)[:, None]
        cost = bits[:, self._first_bit].abs().float()
        target = self._first + shot * width
        found = cost < _SURE
        target, cost = target[found], cost[found]
        cheapest = torch.full((len(bits) * width,), math.inf, device=bits.device)
        while len(target):
            cheapest.scatter_reduce_(0, target, cost, "amin")
            reached = target.unique()
            shot, place = reached // width, reached % width
            step = bits[shot[:, None], self._by[place]].abs().float()
            cost = cheapest[reached, None] + step
            there = self._leads[place]
            target = there + (shot * width)[:, None]
            better = (step < _SURE) & (there <= self._far) & (cost < cheapest[target])
            target, cost = target[better], cost[better]
        return cheapest.view(-1, width)[:, self._far].cpu().numpy()


def _edges(flipped_by: np.ndarray, num_bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bits as edges, int64: their ends among the detectors (-1 for the second: a boundary).

    Args:
        flipped_by: int64 (n, k), as ``Incidence.detector``.
        num_bits: what stands for no bit.
    """
    detector, column = np.nonzero(flipped_by < num_bits)
    bit = flipped_by[detector, column]
    order = np.argsort(bit, kind="stable")
    detector = detector[order]
    bit, first, count = np.unique(bit[order], return_index=True, return_counts=True)
    return detector[first], np.where(count > 1, detector[first + count - 1], -1), bit
