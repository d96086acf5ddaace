"""Belief matching in windows: beliefs from events of both bases, seams of the memory checks.

The edges and the seam are those of the window's model for correlated matching
(``qec.windows.window_error_model``, with ``memory_seam``), so that either decides the same windows.
"""

from __future__ import annotations

import functools

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import MEMORY
from qec.matching.belief_matching import BeliefMatcher
from qec.matching.belief_propagation import FactorGraph
from qec.matching.matching_edges import MatchingEdges
from qec.matching.memory_edges import MemoryEdges
from qec.windows.template import Window
from qec.windows.window_error_model import WindowModel


class WindowBeliefs:
    """Makes the matchers of windows.

    Args:
        lattice: of the reference, with its error model.
        pieces: of the lattice.
    """

    def __init__(self, lattice: SpaceTimeLattice, pieces: MatchingEdges) -> None:
        self._lattice, self._pieces = lattice, pieces

    @functools.cached_property
    def _edges(self) -> MemoryEdges:
        return MemoryEdges.of(self._lattice, self._pieces)

    @functools.cached_property
    def _factors(self) -> FactorGraph:
        return FactorGraph.of(self._pieces)

    def matcher(self, window: Window, done: np.ndarray, model: WindowModel) -> BeliefMatcher:
        """Matches the memory checks of a window.

        Observable 0 is that of the experiment, as far as committed; 1 + k a flip of
        ``model.seam[k]``.

        Args:
            window: of the reference.
            done: bool (layers,), what earlier stages have committed.
            model: of the window, with ``memory_seam``.
        """
        layer, count = self._lattice.layer, len(model.detectors)
        number = np.full(len(layer) + 1, -1)
        number[model.detectors] = np.arange(count)
        edges, factors = self._edges, self._factors
        exists = edges.ends >= 0
        of_end = np.where(exists, layer[edges.ends], -1)
        ends = np.where(exists, number[edges.ends], -1)
        taken = (exists & done[of_end]).any(axis=1)
        kept = np.flatnonzero((ends >= 0).any(axis=1) & ~taken)
        core = exists & (of_end >= window.core_start) & (of_end < window.core_end)
        committed = np.any(core, axis=1)
        observables = np.zeros((len(ends), 1 + len(model.seam)), dtype=np.bool_)
        observables[:, 0] = committed & edges.flips
        edge, which = np.nonzero(exists & ~core & committed[:, None])
        beyond = np.searchsorted(model.seam, edges.ends[edge, which])
        crosses = np.isin(edges.ends[edge, which], model.seam)
        observables[edge[crosses], 1 + beyond[crosses]] = True

        ends = ends[kept]
        ends[ends[:, 0] < 0] = ends[ends[:, 0] < 0][:, ::-1]  # a boundary comes second
        place = np.full(len(exists), -1)
        place[kept] = np.arange(len(kept))
        of_kept = place[edges.edge] >= 0
        own = MemoryEdges(
            ends=ends,
            flips=edges.flips[kept],
            mechanism=edges.mechanism[of_kept],
            edge=place[edges.edge[of_kept]],
            probability=edges.probability[kept],
            shared=edges.shared[kept],
        )
        # What flips memory checks on both sides of a seam is decided; its other flips are not.
        settled = np.unique(edges.mechanism[taken[edges.edge]])
        memory = self._lattice.sector[factors.detector] == MEMORY
        there = (number[factors.detector] >= 0) & ~(memory & np.isin(factors.mechanism, settled))
        around = FactorGraph(
            factors.probability, factors.mechanism[there], number[factors.detector[there]]
        )
        return BeliefMatcher(own, around, count, observables[kept])
