"""Matching on the network's weights: each edge weighs what the network says about this shot."""

from __future__ import annotations

import numpy as np
import pymatching
import scipy.sparse

from qec.matching import Unexplained
from qec.predecoder.correction import BoundPredecoder

_SHOTS_PER_PASS = 256  # bounds the memory for weights


class WeightedMatcher:
    """Minimum-weight matching of the memory checks with weights of their own for every shot.

    Where the network's log-odds are right, the matching is the likeliest set of edges, given the
    events of both bases.  PyMatching has no weights per shot, so each shot gets a graph of its own.

    Args:
        bound: a pre-decoder on its lattice.
    """

    correlated = True  # in its confidence: the network sees both bases, as correlated matching does

    def __init__(self, bound: BoundPredecoder) -> None:
        self.bound = bound
        self._detectors = bound.lattice.memory_detectors
        ends, flips = bound.grid.edges.ends, bound.grid.edges.flips
        number = np.full(bound.lattice.num_detectors, -1)
        number[self._detectors] = np.arange(len(self._detectors))
        edge, which = np.nonzero(ends >= 0)
        shape = (len(self._detectors), len(ends))
        rows = number[ends[edge, which]]
        self._checks = scipy.sparse.csc_matrix((np.ones(len(edge), np.uint8), (rows, edge)), shape)
        self._flips = scipy.sparse.csc_matrix(flips[None].astype(np.uint8))

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        flips = np.empty(len(detectors), dtype=np.uint8)
        for start in range(0, len(detectors), _SHOTS_PER_PASS):
            part = detectors[start : start + _SHOTS_PER_PASS]
            weights = -self.bound.log_odds(part).astype(np.float64)
            for k, (shot, weight) in enumerate(zip(part, weights, strict=True), start):
                flips[k] = self._decode(shot, weight)
        return flips

    def _decode(self, shot: np.ndarray, weights: np.ndarray) -> int:
        graph = pymatching.Matching.from_check_matrix(
            self._checks,
            weights=weights,
            faults_matrix=self._flips,
            use_virtual_boundary_node=True,
        )
        try:
            return int(graph.decode(shot[self._detectors])[0])
        except ValueError as error:
            raise Unexplained from error
