"""The edges of the matching graph among the memory checks, which alone decide the observable.

What the network tells: the probability of each of them, given the detection events of a shot.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.matching_edges import MatchingEdges

_LIKELIEST = 0.499  # probability: log-odds stay finite


@dataclasses.dataclass(frozen=True, eq=False)
class MemoryEdges:
    """The E memory edges of an error model, and the mechanisms that flip them.

    Attributes:
        ends: int64 (E, 2), detectors, the first one earlier in the order of (layer, row, column);
            -1 for the second where an edge ends on a boundary.
        flips: bool (E,), whether it flips observable 0.
        mechanism, edge: int64 (k,), which mechanism flips which edge.
        probability: float64 (E,), that an odd number of its mechanisms happen.
        shared: float64 (E,) in [0, 1], the part of its mechanisms' ln(1 - 2 p) that flips other
            edges, too: of the memory checks or of the others, whose events then tell about it.

    Worked example: ``error(0.1) D0 D1 ^ D5``, ``error(0.1) D0 D1`` and ``error(0.2) D1 L0``, where
    D5 is no memory check, are two edges.  The first has ends (0, 1), the probability
    0.1 * 0.9 + 0.9 * 0.1 = 0.18 and shared = 1/2; the second ends (1, -1) and flips the observable.
    """

    ends: np.ndarray
    flips: np.ndarray
    mechanism: np.ndarray
    edge: np.ndarray
    probability: np.ndarray
    shared: np.ndarray

    @classmethod
    def of(cls, lattice: SpaceTimeLattice, pieces: MatchingEdges | None = None) -> MemoryEdges:
        """Of a lattice with its error model.

        Args:
            pieces: of the lattice, where they are at hand.

        Raises:
            QecError: as ``qec.matching.matcher.basis_split``.
        """
        pieces = pieces or MatchingEdges.of(lattice)
        memory = pieces.of_memory
        ends, rank = pieces.ends[memory], _rank(lattice)
        swap = (ends[:, 1] >= 0) & (rank[ends[:, 1]] < rank[ends[:, 0]])
        ends[swap] = ends[swap, ::-1]
        # Where mechanisms differ about the observable, that of the likeliest, as in matching.
        ends, first, edge = np.unique(ends, axis=0, return_index=True, return_inverse=True)
        edge, mechanism = edge.ravel(), pieces.mechanism[memory]
        # ln(1 - 2 p) adds up, in however many lines Stim writes a mechanism down.
        even = np.log1p(-2 * np.minimum(pieces.probability[mechanism], _LIKELIEST))
        log = np.bincount(edge, even, len(ends))
        alone = np.bincount(pieces.mechanism, minlength=len(pieces.probability)) == 1
        apart = np.bincount(edge, even * alone[mechanism], len(ends))
        shared = 1 - apart / np.minimum(log, -1e-300)
        flips = pieces.flips[memory][first]
        return cls(ends, flips, mechanism, edge, -np.expm1(log) / 2, shared)

    @property
    def log_odds(self) -> np.ndarray:
        """float64 (E,), ln(p / (1 - p)): less what matching weighs them."""
        p = np.clip(self.probability, 1e-30, _LIKELIEST)
        return np.log(p) - np.log1p(-p)

    def among(self, detectors: np.ndarray) -> MemoryEdges:
        """Those whose ends are some detectors, and boundaries, with detectors numbered anew.

        Args:
            detectors: int64, ascending.
        """
        number = np.full(int(self.ends.max(initial=0)) + 2, -2)
        detectors = detectors[detectors < len(number) - 1]
        number[detectors], number[-1] = np.arange(len(detectors)), -1
        ends = number[self.ends]
        kept = (ends > -2).all(axis=1)
        place = np.cumsum(kept) - 1
        flipped = kept[self.edge]
        return MemoryEdges(
            ends[kept],
            self.flips[kept],
            self.mechanism[flipped],
            place[self.edge[flipped]],
            self.probability[kept],
            self.shared[kept],
        )


def _rank(lattice: SpaceTimeLattice) -> np.ndarray:
    """int64 (num_detectors,), the place of each in the order of (layer, row, column)."""
    rank = np.empty(lattice.num_detectors, dtype=np.int64)
    by_place = np.lexsort((lattice.col, lattice.row, lattice.layer))
    rank[by_place] = np.arange(lattice.num_detectors)
    return rank
