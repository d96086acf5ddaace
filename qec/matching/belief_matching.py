"""Belief matching: each edge weighs what belief propagation says about this shot.

What a shot's events of both bases say about an edge enters its weight, as far as messages come in a
few iterations; matching then decides as ever (Higgott et al., arXiv:2203.04948; Criger and Ashraf,
Quantum 2, 102, 2018).  It needs no training, knows any error model, and is more accurate than
correlated matching (docs/experiments.md).

PyMatching has no weights per shot, and building its graph takes many times a matching.  So the
lattice is left to loops: edges that are likelier than not are committed first, which leaves few
events and no negative weights.  Around these events grow regions, all at the same speed, and where
two meet, or one meets a boundary, is a way to match them.  PyMatching decides between these ways,
of many shots side by side.  Of events whose regions do not meet, it sees only ways by others: that
changes one prediction in some hundred to a thousand, and the logical error rate not.
"""

from __future__ import annotations

import numpy as np
import pymatching
import scipy.sparse

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.belief_propagation import BeliefPropagation, FactorGraph, change_of_log_odds
from qec.matching.matcher import Unexplained
from qec.matching.matching_edges import MatchingEdges
from qec.matching.memory_edges import MemoryEdges
from qec.matching.neighbourhoods import pop, push
from qec.support.compiled_loops import compiled
from qec.support.ragged_arrays import rows

ITERATIONS = 6  # with more, weights count the events twice (docs/experiments.md)

_SHOTS_PER_PASS = 256  # bounds the memory for weights
# PyMatching takes whole numbers as they are; others it scales by the largest one, so that a shot
# would depend on its batch.
_PER_NAT = 1024
_MOST = 1000.0  # nats


class BeliefMatcher:
    """Minimum-weight matching of the memory checks on beliefs, which differ from shot to shot.

    Args:
        edges: of the memory checks.
        factors: the mechanisms that flip them, and other checks.
        num_detectors: of all checks.
        observables: bool (E, observables), which of them each edge flips.
        iterations: of belief propagation.
    """

    correlated = True  # in its confidence: it sees both bases, as correlated matching does

    def __init__(
        self,
        edges: MemoryEdges,
        factors: FactorGraph,
        num_detectors: int,
        observables: np.ndarray,
        iterations: int = ITERATIONS,
    ) -> None:
        self._beliefs = BeliefPropagation(factors, edges, None, num_detectors, iterations)
        self._prior = edges.log_odds.astype(np.float32)
        # Events of detectors that no mechanism flips mean nothing.
        self._detectors = np.unique(edges.ends[edges.ends >= 0])
        n = len(self._detectors)
        number = np.full(num_detectors + 1, -1)
        number[self._detectors] = np.arange(n)
        self._ends = number[edges.ends]
        self._observables, self._flips = observables.shape[1], _as_words(observables)
        # Each edge stands with both its ends; a boundary is no detector.
        end = self._ends.T.ravel()
        self._start, order = rows(end, np.arange(len(end)), n)
        self._edge = order % len(self._ends)
        self._other = self._ends[:, ::-1].T.ravel()[order]

    @classmethod
    def of(cls, lattice: SpaceTimeLattice, iterations: int = ITERATIONS) -> BeliefMatcher:
        """Of a lattice with its error model, and observable 0.

        Raises:
            QecError: as ``qec.matching.matcher.basis_split``.
        """
        pieces = MatchingEdges.of(lattice)
        edges, factors = MemoryEdges.of(lattice, pieces), FactorGraph.of(pieces)
        return cls(edges, factors, lattice.num_detectors, edges.flips[:, None], iterations)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0.

        Raises:
            Unexplained: no set of edges explains the events of a shot.
        """
        return self.decode_all(detectors)[:, 0]

    def decode_all(self, detectors: np.ndarray) -> np.ndarray:
        """The same, uint8 (B, observables), of all observables."""
        flips = np.empty((len(detectors), self._observables), dtype=np.uint8)
        for start in range(0, len(detectors), _SHOTS_PER_PASS):
            part = slice(start, start + _SHOTS_PER_PASS)
            flips[part] = self.match(detectors[part], self.log_odds(detectors[part]))
        return flips

    def log_odds(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> float32 (B, E), that each memory edge has fired."""
        return self._prior + change_of_log_odds(self._beliefs(detectors))

    def match(self, detectors: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
        """As ``decode_all``, with log-odds, float32 (B, E), of any other source."""
        events = detectors.take(self._detectors, axis=1)
        tables = self._ends, self._flips, self._start, self._edge, self._other
        committed, ends, nats, flipped, shot, count = _ways(log_odds, events, *tables)
        flips = self._as_flips(committed)
        if not count:
            return flips
        way, which = np.nonzero(ends >= 0)
        checks = (np.ones(len(way), np.uint8), (ends[way, which], way))
        flipping, observable = np.nonzero(self._as_flips(flipped))
        fault = shot[flipping] * self._observables + observable
        graph = pymatching.Matching.from_check_matrix(
            scipy.sparse.csc_matrix(checks, (count, len(ends))),
            weights=np.rint(np.minimum(nats, _MOST) * _PER_NAT),
            faults_matrix=scipy.sparse.csc_matrix(
                (np.ones(len(fault), np.uint8), (fault, flipping)), (flips.size, len(ends))
            ),
            use_virtual_boundary_node=True,
        )
        try:
            return flips ^ graph.decode(np.ones(count, dtype=np.uint8)).reshape(flips.shape)
        except ValueError as error:
            raise Unexplained from error

    def _as_flips(self, words: np.ndarray) -> np.ndarray:
        """uint64 (m, words) -> uint8 (m, observables)."""
        return np.unpackbits(
            words.astype("<u8").view(np.uint8), axis=1, count=self._observables, bitorder="little"
        )


def _as_words(bits: np.ndarray) -> np.ndarray:
    """bool (m, n) -> uint64 (m, words of 64 bits)."""
    packed = np.packbits(bits, axis=1, bitorder="little")
    words = np.zeros((len(bits), 8 * max(-(-bits.shape[1] // 64), 1)), dtype=np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view("<u8").astype(np.uint64)


@compiled
def _ways(
    log_odds: np.ndarray,
    events: np.ndarray,
    ends: np.ndarray,
    flips: np.ndarray,
    start: np.ndarray,
    edge: np.ndarray,
    other: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Commits what is likelier than not, and finds the ways to match what is left.

    Args:
        log_odds: float32 (B, E).
        events: uint8 (B, n).
        ends, flips: of the edges, (E, 2) with -1 for a boundary, and the observables that each
            flips, bits of uint64 (E, words).
        start, edge, other: int64, the edges at each detector and what they lead to.

    Returns:
        uint64 (B, words), flips that are committed; int64 (m, 2), float32 (m,), uint64 (m, words)
        and int64 (m,): the events that each way joins, numbered through all shots, -1 for a
        boundary, nats, the observables that it flips, its shot; how many events there are.
    """
    shots, n = events.shape
    words = flips.shape[1]
    committed = np.zeros((shots, words), np.uint64)
    joined, nats = np.empty((64 * shots, 2), np.int64), np.empty(64 * shots, np.float32)
    flipped, of_shot = np.empty((64 * shots, words), np.uint64), np.empty(64 * shots, np.int64)
    count, before = 0, 0
    weight, left = np.empty(len(ends), np.float32), np.empty(n, np.uint8)
    for b in range(shots):
        left[:] = events[b]
        for e in range(len(ends)):
            weight[e] = abs(log_odds[b, e])
            if log_odds[b, e] > 0:
                for w in range(words):
                    committed[b, w] ^= flips[e, w]
                for end in ends[e]:
                    if end >= 0:
                        left[end] ^= 1
        source = np.flatnonzero(left)
        least, flip = _meetings(source, weight, flips, start, edge, other)
        r = len(source)
        if count + r * (r + 1) > len(nats):
            more = len(nats) + r * (r + 1)
            joined = np.concatenate((joined, np.empty((more, 2), np.int64)))
            nats = np.concatenate((nats, np.empty(more, np.float32)))
            flipped = np.concatenate((flipped, np.empty((more, words), np.uint64)))
            of_shot = np.concatenate((of_shot, np.empty(more, np.int64)))
        for i in range(r):
            for j in range(i + 1, r + 1):  # the last one is the boundary
                way = least[i, j]
                if way < np.inf and (j == r or way < least[i, r] + least[j, r]):
                    joined[count] = before + i, before + j if j < r else -1
                    nats[count], of_shot[count] = way, b
                    for w in range(words):
                        flipped[count, w] = flip[i, j, w]
                    count += 1
        before += r
    return committed, joined[:count], nats[:count], flipped[:count], of_shot[:count], before


@compiled
def _meetings(
    source: np.ndarray,
    weight: np.ndarray,
    flips: np.ndarray,
    start: np.ndarray,
    edge: np.ndarray,
    other: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Where regions around r events meet: Dijkstra's algorithm from all of them at once.

    Returns:
        float32 (r, r + 1), nats between events whose regions meet, upper half, and to the boundary;
        uint64 (r, r + 1, words), the observables that this way flips.

    Worked example: the boundary, D0, D1 and D2 stand in a line, with 3, 1 and 4 nats between them;
    D0 and D2 are events.  D1 falls to D0.  The regions meet on the edge from D1 to D2, 1 + 4 = 5
    nats; D0 meets the boundary after 3, D2 does not: what is behind D0 is no longer its own.
    """
    n, r = len(start) - 1, len(source)
    least = np.full((r, r + 1), np.float32(np.inf))
    words = flips.shape[1]
    flip = np.zeros((r, r + 1, words), np.uint64)
    nats, owner = np.full(n, np.float32(np.inf)), np.full(n, -1, np.int64)
    flipped, settled = np.zeros((n, words), np.uint64), np.zeros(n, np.bool_)
    key, node = np.empty(len(edge) + r + 1, np.float32), np.empty(len(edge) + r + 1, np.int64)
    size = 0
    for i in range(r):
        nats[source[i]], owner[source[i]] = 0, i
        size = push(key, node, size, np.float32(0), source[i])
    while size:
        u = node[0]
        size = pop(key, node, size)
        if settled[u]:
            continue
        settled[u] = True
        i = owner[u]
        for q in range(start[u], start[u + 1]):
            v, e = other[q], edge[q]
            there = nats[u] + weight[e]
            if v < 0:
                if there < least[i, r]:
                    least[i, r] = there
                    for w in range(words):
                        flip[i, r, w] = flipped[u, w] ^ flips[e, w]
            elif not settled[v]:
                if there < nats[v]:
                    nats[v], owner[v] = there, i
                    for w in range(words):
                        flipped[v, w] = flipped[u, w] ^ flips[e, w]
                    size = push(key, node, size, there, v)
            elif owner[v] != i:
                first, second = min(i, owner[v]), max(i, owner[v])
                if there + nats[v] < least[first, second]:
                    least[first, second] = there + nats[v]
                    for w in range(words):
                        flip[first, second, w] = flipped[u, w] ^ flips[e, w] ^ flipped[v, w]
    return least, flip
