"""Teacher labels: correlated matching's correction, as a canonical chain.

The sampled error is a random function of the syndrome; a decoder's correction is a fixed one, so
the network that imitates it learns from far fewer shots.
"""

from __future__ import annotations

import numpy as np
import pymatching
import scipy.sparse
from scipy.sparse import csgraph

from qec import chain as chains
from qec.chain import Chain
from qec.errors import QecError, first_line
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split

_LONGEST_CHAIN = 8  # elementary errors behind one edge; three suffice for circuit noise


class MatchingTeacher:
    """Labels events with the correction of correlated matching on the basis-split model.

    Raises:
        QecError: errors more likely than 1/2, or so far-reaching that no short chain matches them.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        self.lattice = lattice
        model = basis_split(lattice)
        try:
            self._graph = Matcher(model, correlated=True).graph
        except QecError as error:
            raise QecError(
                f"labels=matching is impossible: {first_line(error)}; lower ps."
            ) from error
        self._edge_index, self._edge_bits = _edges_as_chains(self._graph, lattice)

    def label(self, detectors: np.ndarray) -> Chain:
        """uint8 (B, num_detectors), B a multiple of 64 -> canonical chain of uint64 words."""
        shots = len(detectors)
        decode, silent = self._graph.decode_to_edges_array, self.lattice.num_detectors
        pairs = [decode(shot, enable_correlations=True) for shot in detectors]
        owner = np.repeat(np.arange(shots), [len(p) for p in pairs])
        ends = np.concatenate(pairs)
        ends[ends < 0] = silent
        ends.sort(axis=1)
        edges = np.zeros(0, dtype=np.int64)  # no events: SciPy cannot look up no pairs
        if len(ends):
            edges = self._edge_index[ends[:, 0], ends[:, 1]].A1 - 1
        chosen = scipy.sparse.csr_matrix(
            (np.ones(len(edges), dtype=np.int32), (owner, edges)),
            shape=(shots, self._edge_bits.shape[0]),
        )
        bits = (chosen @ self._edge_bits).toarray().astype(np.uint8) & 1
        packed = np.packbits(bits.T, axis=1, bitorder="little")
        words = np.ascontiguousarray(packed).view(np.uint64)
        d, r = self.lattice.distance, self.lattice.rounds
        spacelike = 2 * (r + 1) * d * d
        chain = Chain(
            words[:spacelike].reshape(2, r + 1, d, d, -1),
            words[spacelike:].reshape(r, d + 1, d + 1, -1),
        )
        return chains.canonicalise(chain, self.lattice)


def _edges_as_chains(
    graph: pymatching.Matching, lattice: SpaceTimeLattice
) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
    """A shortest chain for each edge of the matching graph.

    Returns:
        (num_detectors + 1, num_detectors + 1) edge number + 1 of each pair of ends (the last node
        is the boundary), and (edges, chain bits) the bits of each edge's chain.
    """
    bits = _elementary_bits(lattice)
    boundary = lattice.num_detectors
    nodes = boundary + 1
    # Node (v, parity): paths also keep track of whether they flip the observable.
    u, v, flip, bit = bits.T
    heads = np.concatenate([u, u + nodes])
    tails = np.concatenate([v + flip * nodes, v + (1 - flip) * nodes])
    step_bit = {}
    for a, b, k in zip(heads.tolist(), tails.tolist(), np.tile(bit, 2).tolist(), strict=True):
        step_bit.setdefault((a, b), k)
        step_bit.setdefault((b, a), k)
    steps = scipy.sparse.csr_matrix((np.ones(len(heads)), (heads, tails)), shape=(2 * nodes,) * 2)
    edges = [
        (a, boundary if b is None else b, int(0 in data["fault_ids"]))
        for a, b, data in graph.edges()
    ]
    sources = np.unique([a for a, _, _ in edges])
    row_of = {int(a): k for k, a in enumerate(sources)}
    _, before = csgraph.dijkstra(
        steps,
        directed=False,
        indices=sources,
        unweighted=True,
        return_predecessors=True,
        limit=_LONGEST_CHAIN,
    )
    rows, cols = [], []
    for number, (a, b, parity) in enumerate(edges):
        node = b + parity * nodes
        while node != a:
            previous = int(before[row_of[a], node])
            if previous < 0:
                raise QecError(
                    f"labels=matching is impossible: one error joins detectors {a} and {b}, but no "
                    f"chain of {_LONGEST_CHAIN} does. Use labels=frames."
                )
            rows.append(number)
            cols.append(step_bit[previous, node])
            node = previous
    d, r = lattice.distance, lattice.rounds
    num_bits = 2 * (r + 1) * d * d + r * (d + 1) ** 2
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(rows), dtype=np.int32), (rows, cols)), shape=(len(edges), num_bits)
    )
    low = [min(a, b) for a, b, _ in edges]
    high = [max(a, b) for a, b, _ in edges]
    index = scipy.sparse.csr_matrix(
        (np.arange(1, len(edges) + 1), (low, high)), shape=(nodes, nodes)
    )
    return index, matrix


def _elementary_bits(lattice: SpaceTimeLattice) -> np.ndarray:
    """int64 (n, 4): two ends (the boundary is num_detectors), observable flip, bit number."""
    d, r = lattice.distance, lattice.rounds
    nothing = lattice.num_detectors
    at = np.full((r + 3, d + 1, d + 1), nothing)  # one empty layer before and after
    at[lattice.layer + 1, lattice.row, lattice.col] = np.arange(nothing)
    found = []
    for sector in (0, 1):
        for row in range(d):
            for col in range(d):
                checks = [
                    (row + dr, col + dc)
                    for dr in (0, 1)
                    for dc in (0, 1)
                    if lattice.check_sites[sector][row + dr, col + dc]
                ]
                flip = int(sector == 0 and lattice.logical_support[row, col])
                for k in np.flatnonzero(lattice.data_exists[sector]):
                    ends = [at[k + 1][site] for site in checks] + [nothing]
                    bit = ((sector * (r + 1) + k) * d + row) * d + col
                    found.append((*ends[:2], flip, bit))
    base = 2 * (r + 1) * d * d
    for k, row, col in np.argwhere(lattice.time_exists):
        ends = (at[k + 1, row, col], at[k + 2, row, col])
        found.append((*ends, 0, base + (k * (d + 1) + row) * (d + 1) + col))
    return np.array(found, dtype=np.int64)
