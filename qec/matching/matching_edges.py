"""The edges of the matching graph that the mechanisms of a basis-split model consist of."""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.circuits.error_model import Mechanisms
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY
from qec.matching.matcher import basis_split


@dataclasses.dataclass(frozen=True, eq=False)
class MatchingEdges:
    """The edges that the mechanisms of a basis-split model consist of.

    Attributes:
        layer: int64 (num_detectors,); -1 for detectors that are left out.
        sector: int64 (num_detectors,), as in ``qec.circuits.lattice.SpaceTimeLattice``.
        probability: float64 (mechanisms,).
        mechanism: int64 (pieces,), ascending.
        ends: int64 (pieces, 2), detectors; -1 where a piece ends on the boundary.
        flips: bool (pieces,), whether it flips the observable.
    """

    layer: np.ndarray
    sector: np.ndarray
    probability: np.ndarray
    mechanism: np.ndarray
    ends: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, lattice: SpaceTimeLattice) -> MatchingEdges:
        """The edges of a lattice's error model, split by basis."""
        table = Mechanisms.from_dem(basis_split(lattice))
        mechanism = table.mechanism.astype(np.int64)
        key = mechanism * (int(table.component.max()) + 1) + table.component
        _, first, piece = np.unique(key, return_index=True, return_inverse=True)
        ends = np.full((len(first), 2), -1)
        order = np.argsort(piece, kind="stable")
        piece, detector = piece[order], table.detector[order]
        second = np.concatenate([[False], piece[1:] == piece[:-1]])
        ends[piece[~second], 0] = detector[~second]
        ends[piece[second], 1] = detector[second]
        owner = mechanism[first]
        # The observable goes with the first memory piece of its mechanism, as in basis_split.
        memory = lattice.sector[ends[:, 0]] == MEMORY
        flips = np.zeros(len(first), dtype=bool)
        lead = np.unique(owner[memory], return_index=True)[1]
        flips[np.flatnonzero(memory)[lead]] = table.flips_observable[owner[memory][lead]]
        return cls(lattice.layer, lattice.sector, table.probability, owner, ends, flips)

    @property
    def of_memory(self) -> np.ndarray:
        """bool (pieces,), those among the memory checks."""
        return self.sector[self.ends[:, 0]] == MEMORY

    def memory_only(self) -> MatchingEdges:
        """Those among the memory checks, without the other detectors."""
        kept = self.of_memory
        return dataclasses.replace(
            self,
            layer=np.where(self.sector == MEMORY, self.layer, -1),
            mechanism=self.mechanism[kept],
            ends=self.ends[kept],
            flips=self.flips[kept],
        )
