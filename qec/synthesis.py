"""The best of several corrections, put together from their parts.

Two corrections of one syndrome differ by closed paths.  Each can be exchanged by itself, so the
better half of either gives a correction better than both: with a few proposals for a large code,
each the best somewhere, the sum is close to the likeliest error (matching synthesis: C. Jones,
arXiv:2408.12135).  The best of each logical class is kept, and the lighter one predicts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from qec.corrections import EdgeModel

_LIGHTER = 1e-6  # nats by which a correction has to be lighter, for rounding


class Synthesis:
    """The lightest corrections found for B shots, one for each logical class.

    Attributes:
        best: bool (2, B, E), of each class that has one.
        total: float64 (2, B), their joint weights, in nats; infinite where there is none.
    """

    def __init__(self, model: EdgeModel, shots: int) -> None:
        self._model = model
        self.best = np.zeros((2, shots, len(model.flips)), dtype=np.bool_)
        self.total = np.full((2, shots), np.inf)

    @property
    def flips(self) -> np.ndarray:
        """uint8 (B,), predicted flips of observable 0."""
        return (self.total[1] < self.total[0]).astype(np.uint8)

    def add(self, proposal: np.ndarray) -> None:
        """Takes what is better in other corrections of the same syndromes, bool (B, E)."""
        flips = (proposal @ self._model.flips) & 1
        missing = np.isinf(self.total)
        for logical in (0, 1):
            first = np.flatnonzero(missing[logical] & (flips == logical))
            self._offer(logical, first, proposal[first])
        for logical in (0, 1):
            differs = (self.best[logical] != proposal).any(axis=1)
            shots = np.flatnonzero(differs & np.isfinite(self.total[logical]))
            found = exchange(self._model, self.best[logical, shots], proposal[shots])
            lighter = found.saved > _LIGHTER
            crossing = self.total[logical, shots] + found.added < self.total[1 - logical, shots]
            self._offer(logical, shots[lighter], found.same[lighter])
            self._offer(1 - logical, shots[crossing], found.other[crossing])

    def _offer(self, logical: int, shots: np.ndarray, corrections: np.ndarray) -> None:
        total = self._model.weigh(corrections).total
        lighter = total < self.total[logical, shots] - _LIGHTER
        self.best[logical, shots[lighter]] = corrections[lighter]
        self.total[logical, shots[lighter]] = total[lighter]


class Exchanged(NamedTuple):
    """Corrections of B shots, made of those that were kept and of what is lighter in others.

    The weights are those of the parts; rarely, pairs of edges of different parts change the sum.

    Attributes:
        same: bool (B, E), the lightest that flip the observable as the kept ones do.
        saved: float64 (B,), nats by which they are lighter than those.
        other: bool (B, E), the lightest that flip it otherwise; where no part does, they do not.
        added: float64 (B,), nats by which these are heavier; infinite where no part does.
    """

    same: np.ndarray
    saved: np.ndarray
    other: np.ndarray
    added: np.ndarray


def exchange(model: EdgeModel, kept: np.ndarray, proposal: np.ndarray) -> Exchanged:
    """Exchanges the parts of corrections that are lighter in others.

    A part is a set of edges such that no path in which the two differ, and no pair that one
    mechanism flips, leads out of it: so each has a weight of its own.  Parts that flip the
    observable are exchanged one at most, or two.

    Args:
        kept: bool (B, E).
        proposal: bool (B, E), with the same detection events.
    """
    shots, num = kept.shape
    node = np.flatnonzero(kept | proposal)
    shot, edge = np.divmod(node, num)
    differs = (kept != proposal).ravel()[node]
    change = np.zeros(len(node))
    links = [_at_shared_detectors(model, np.flatnonzero(differs), shot, edge)]
    for corrections, sign in ((proposal, 1), (kept, -1)):
        weighed = model.weigh(corrections)
        change[np.searchsorted(node, weighed.place)] += sign * weighed.share
        links.append(np.searchsorted(node, weighed.pairs))
    part = _connected(len(node), np.concatenate(links, axis=1))
    heavier = np.bincount(part, change)
    crosses = np.bincount(part, model.flips[edge] & differs).astype(np.int64) & 1 == 1
    owner = np.zeros(len(heavier), dtype=np.int64)
    owner[part] = shot

    def exchanged(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        result = kept.copy()
        result.reshape(-1)[node[differs & parts[part]]] ^= True
        return result, np.bincount(owner[parts], heavier[parts], shots)

    lighter = ~crosses & (heavier < -_LIGHTER)
    first, second = _two_lightest(np.flatnonzero(crosses), owner, heavier)
    once, twice = lighter.copy(), lighter.copy()
    once[first] = True
    paying = (first != second) & (heavier[first] + heavier[second] < -_LIGHTER)
    twice[first[paying]] = twice[second[paying]] = True
    other, added = exchanged(once)
    same, saved = exchanged(twice)
    crossed = np.zeros(shots, dtype=np.bool_)
    crossed[owner[first]] = True
    return Exchanged(same, -saved, other, np.where(crossed, added, np.inf))


def _two_lightest(
    parts: np.ndarray, owner: np.ndarray, heavier: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Of the parts of each shot the lightest and the next, or the same where it is the only one."""
    parts = parts[np.lexsort((heavier[parts], owner[parts]))]
    _, first, count = np.unique(owner[parts], return_index=True, return_counts=True)
    return parts[first], parts[first + (count > 1)]


def _at_shared_detectors(
    model: EdgeModel, nodes: np.ndarray, shot: np.ndarray, edge: np.ndarray
) -> np.ndarray:
    """int64 (2, m), links between nodes whose edges meet in a detector of one shot."""
    ends = model.ends[edge[nodes]]
    inner = ends < model.num_detectors
    meeting = (shot[nodes, None] * model.num_detectors + ends)[inner]
    node = np.broadcast_to(nodes[:, None], ends.shape)[inner]
    order = np.argsort(meeting, kind="stable")
    meeting, node = meeting[order], node[order]
    together = meeting[1:] == meeting[:-1]
    return np.stack([node[:-1][together], node[1:][together]])


def _connected(nodes: int, links: np.ndarray) -> np.ndarray:
    """int64 (nodes,), the number of the connected component of each."""
    ones = np.ones(links.shape[1], dtype=np.int8)
    graph = scipy.sparse.coo_matrix((ones, tuple(links)), shape=(nodes, nodes))
    return csgraph.connected_components(graph, directed=False)[1]
