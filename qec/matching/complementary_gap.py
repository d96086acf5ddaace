"""The logical gap: by how much the best correction beats the best one of the other logical class.

Both are minimum-weight matchings, so their difference in weight, in nats, says how sure matching is
of its prediction: a small gap marks the shots worth decoding better ("complementary gap": Gidney,
Newman, Brooks and Jones, arXiv:2312.04522; Hutter, Wootton and Loss, arXiv:1312.4454).

The observable flips with the parity of the errors that end on one of the two boundaries that the
memory sector has.  So that boundary becomes a detector, which then chooses the logical class.

Worked example: detectors a, b and c stand in a row between two boundaries, joined by four edges of
2 nats, and the edge from a to b flips the observable.  Multiplied with the checks b and c, the
observable is flipped by the last edge instead, from c to the far boundary.  There is an event at a.
Matched to the near boundary it weighs 2 nats and flips nothing.  With an event at the far boundary,
too, matching has to go there, by 6 nats and the edge that flips.  So the gap is 6 - 2 = 4 nats.
"""

from __future__ import annotations

import numpy as np
import pymatching
import scipy.sparse
from scipy.sparse import csgraph

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.gap_search import GapSearch
from qec.matching.matcher import decode, graph_of, memory_edges, set_up
from qec.support.errors import QecError

_MARGIN = 1.0  # nats: PyMatching rounds weights, and a gap at the cap must not come out below it
_SEARCHED = 25.0  # nats: for larger gaps a second matching costs less than a table and a search


class GapMatcher:
    """Uncorrelated matching of the memory sector, which alone decides the observable, with gaps.

    Args:
        graph: matching graph of a basis-split model.
        lattice: its lattice.
        largest: gaps are found up to this fraction of ``logical_weight``; more takes more time.
        nats: and up to so many.
        searched: whether to look for large gaps without a second matching, which takes a table.

    Attributes:
        logical_weight: of the lightest logical operator, in nats; the largest gap there is.
        cap: ``largest * logical_weight``, at most ``nats``.

    Raises:
        QecError: the observable is not the parity of errors that end on one boundary.
    """

    def __init__(
        self,
        graph: pymatching.Matching,
        lattice: SpaceTimeLattice,
        largest: float = 1.0,
        nats: float = np.inf,
        searched: bool = True,
    ) -> None:
        self._detectors = lattice.memory_detectors
        u, v, weight, flip = memory_edges(graph, lattice)
        n = len(self._detectors)
        self._side, far = boundaries(n, u, v, flip)
        # One node of the far boundary per layer, joined at no cost: a single one would have so many
        # neighbours that PyMatching slows down.
        layer = lattice.layer[self._detectors]
        self._either = graph_of(u, v, weight, flip)
        self._one = graph_of(u, np.where(far, n + layer[u], v), weight, flip)
        for k in range(lattice.rounds):
            self._one.add_edge(n + k, n + k + 1, weight=0)
        self._nodes = n + lattice.rounds + 1
        ends = np.zeros(self._nodes, dtype=np.uint8)
        ends[n] = 1
        self.logical_weight = float(self._one.decode(ends, return_weight=True)[1])
        self.cap = max(min(largest * self.logical_weight, nats), 0.0)
        set_up(self._either)
        self._median = float(np.median(weight))
        self._search = None
        if self.cap == 0:  # nobody asks for gaps: what follows takes seconds at d = 31
            return
        if searched and weight.min() >= 0:  # as the search needs it
            most = min(self.cap, _SEARCHED)
            self._search = GapSearch(n, u, v, weight, far, self._side, most)
        # A way out that keeps PyMatching from searching farther than the cap.
        self._one.add_boundary_edge(n, weight=self.cap + _MARGIN)
        set_up(self._one)

    def decide(self, detectors: np.ndarray, nats: float) -> tuple[np.ndarray, np.ndarray]:
        """Predictions, and which are sure, for little more than matching costs.

        Args:
            detectors: uint8 (B, num_detectors).
            nats: no shot has a gap of more than ``logical_weight``.

        Returns:
            uint8 (B,) predicted flips of observable 0, bool (B,), whether the gap is ``nats`` for
            certain.  Of those that are not, nearly all have a smaller one.
        """
        if self._search is None or nats > min(_SEARCHED, self.cap):
            flips, gaps = self.decode_batch(detectors, nats)
            return flips, gaps >= nats
        events = detectors.take(self._detectors, axis=1)
        flips, sure = np.zeros(len(events), np.uint8), np.zeros(len(events), np.bool_)
        # Half as many edges as events, or a few more, make up a matching.
        light = self._median * events.sum(axis=1) < self.logical_weight - nats
        if light.any():
            found, weights = decode(self._either, events[light], return_weights=True)
            flips[light], sure[light] = found[:, 0], self.logical_weight - 2 * weights > nats
        if not sure.all():
            flips[~sure], sure[~sure] = self._search.decode_batch(events[~sure], nats)
        return flips, sure

    def decode_batch(
        self, detectors: np.ndarray, largest: float = np.inf
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions and how sure they are.

        Args:
            detectors: uint8 (B, num_detectors).
            largest: nats, up to which gaps are of interest; larger ones may be told as ``cap``.

        Returns:
            uint8 (B,) predicted flips of observable 0, float64 (B,) gaps in nats, at most ``cap``.
        """
        cap = min(largest, self.cap)
        events = detectors.take(self._detectors, axis=1)  # four times faster than by an index
        n = events.shape[1]
        gaps = np.full(len(events), self.cap)
        if cap <= 0:
            return decode(self._either, events)[:, 0], gaps
        predictions, weights = decode(self._either, events, return_weights=True)
        flips = predictions[:, 0]
        close = self._close(events, weights, cap)
        if len(close):
            other = np.zeros((len(close), self._nodes), dtype=np.uint8)
            other[:, :n] = events[close]
            other[:, n] = flips[close] ^ (other[:, :n][:, self._side].sum(axis=1) & 1) ^ 1
            _, heavier = self._one.decode_batch(other, return_weights=True)
            gaps[close] = np.clip(heavier - weights[close], 0, self.cap)
        return flips, gaps

    def _close(self, events: np.ndarray, weights: np.ndarray, cap: float) -> np.ndarray:
        """int64, the shots whose gap may be below a cap; the others need no second matching."""
        # The two corrections differ by a logical operator, so their weights add up to its weight
        # at least.
        close = np.flatnonzero(self.logical_weight - 2 * weights < cap)
        if self._search is None or cap > _SEARCHED:
            return close
        return close[~self._search.decode_batch(events[close], cap)[1]]


_UNDEFINED = (
    "observable 0 is not the parity of the errors that end on one boundary of the memory sector: "
    "the logical gap, which cascades and ensembles need, is not defined. Decode without them."
)


def boundaries(
    n: int, u: np.ndarray, v: np.ndarray, flip: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Moves the observable onto one of the two boundaries, by multiplying it with checks.

    Args:
        n: number of detectors.
        u, v: int64, the ends of each edge; v = -1 is a boundary.
        flip: bool, the edges that flip the observable.

    Returns:
        bool (n,), the detectors to multiply it with; bool, the edges that end on that boundary.

    Raises:
        QecError: the observable is not the parity of the errors that end on one of two boundaries.
    """
    inner = v >= 0
    # Two copies of each detector, joined crosswise by the edges that flip the observable, fall
    # apart into two halves if it can be moved.
    u_in, v_in, flip_in = u[inner], v[inner], flip[inner]
    heads = np.concatenate([u_in, u_in + n])
    tails = np.concatenate([v_in + n * flip_in, v_in + n * ~flip_in])
    joined = scipy.sparse.coo_matrix((np.ones(len(heads)), (heads, tails)), shape=(2 * n, 2 * n))
    _, half = csgraph.connected_components(joined, directed=False)
    side = half[:n] > half[n:]
    far = ~inner & (flip ^ side[u])
    if (half[:n] == half[n:]).any() or not far.any() or not (~inner & ~far).any():
        raise QecError(_UNDEFINED)
    return side, far
