"""Which shots cannot have a small logical gap, from a lower bound that is nearly always tight.

The best correction of the other logical class differs from a matching by an alternating path from
the near boundary to the far one: it leaves out the matched pairs that it runs through and joins
what it frees.  The bound is the lightest *walk* of that kind, which differs from a path in that it
may run through a pair twice, though not back and forth.  Distances between events are bounded in
turn by how far both are from landmarks (Goldberg and Harrelson, SODA 2005), which in a lattice is
exact or nearly so.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from qec.runs import place_in_run

_SHOTS_PER_PASS = 128  # bounds the memory for distances between all events of a shot
_ROUNDING = 0.01  # nats: PyMatching rounds weights


class GapBound:
    """Tells the shots whose logical gap cannot be below a cap.

    Shapes: B shots; m = 2 k ends for at most k matched pairs in a shot.  Ends 2 j and 2 j + 1
    belong to a pair; an event that is matched to a boundary has the first of them.

    Args:
        n: number of detectors.
        u, v: int64, the ends of each edge; v = -1 is a boundary.
        weight: of each edge, in nats, not negative.
        far: bool, the edges that end on the far boundary.
        landmarks: int64, some detectors, the farther out the better.
    """

    def __init__(
        self,
        n: int,
        u: np.ndarray,
        v: np.ndarray,
        weight: np.ndarray,
        far: np.ndarray,
        landmarks: np.ndarray,
    ) -> None:
        inner = v >= 0

        def distances(sources: np.ndarray, kept: np.ndarray) -> np.ndarray:
            ends = u[kept], np.where(inner, v, n)[kept]
            graph = scipy.sparse.coo_matrix((weight[kept], ends), shape=(n + 1, n + 1)).tocsr()
            return csgraph.dijkstra(graph, directed=False, indices=sources)[:, :n]

        boundary = np.array([n])
        (self._near,) = near = distances(boundary, inner | ~far)
        (self._far,) = far_off = distances(boundary, inner | far)
        marks = np.concatenate([near, far_off, distances(landmarks, inner)]).astype(np.float32)
        self._marks = np.where(np.isfinite(marks), marks, 0)  # 0: of what no path leads to
        self._logical_weight = (self._near[u] + weight)[far].min()

    def may_be_below(self, cap: float, pairs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
        """Which shots may have a gap below ``cap`` nats.

        Args:
            cap: at most the weight of the lightest logical operator.
            pairs: for each shot, int64 (pairs, 2), the detectors that are matched; -1 is a
                boundary.
            weights: float64 (B,), of the matchings.

        Returns:
            bool (B,); where it is False, the gap is ``cap`` at least.
        """
        found = np.zeros(len(pairs), dtype=np.bool_)
        for start in range(0, len(pairs), _SHOTS_PER_PASS):
            part = slice(start, start + _SHOTS_PER_PASS)
            found[part] = self._one_pass(cap + _ROUNDING, pairs[part], weights[part])
        return found

    def _one_pass(self, cap: float, pairs: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
        event = _slots(pairs)
        there, own = event >= 0, np.arange(event.shape[1])
        paired = there[:, 1::2].repeat(2, axis=1)
        near = np.where(there, self._near[event], np.inf).astype(np.float32)
        far = np.where(there, self._far[event], np.inf).astype(np.float32)
        between = np.zeros((*event.shape, event.shape[1]), dtype=np.float32)
        for mark in self._marks:
            seen = mark[event]
            np.maximum(between, np.abs(seen[:, :, None] - seen[:, None, :]), out=between)
        cost = np.where(paired, between[:, own, own ^ 1], np.where(there, np.minimum(near, far), 0))
        # A pair may weigh more than its bound; all of them together, by so much:
        slack = weights - np.where(paired, cost / 2, cost).sum(axis=1)
        limit = (cap + np.maximum(slack, 0)).astype(np.float32)
        # A walk that leaves an event does not come back to it at once, nor to its mate.
        between[:, own, own] = between[:, own, own ^ 1] = np.inf
        from_near = np.where(there & ~paired & (near <= far), -cost, np.inf)
        to_far = np.where(there & ~paired & (near > far), -cost, np.inf)

        below = np.full(len(event), self._logical_weight) < limit
        left = np.flatnonzero(~below)
        arrive = near[left]
        for _ in range(event.shape[1] // 2 + 1):  # no path runs through more pairs than there are
            if not len(left):
                break
            # Having arrived at an event, a walk leaves its mate; or it starts where one is matched
            # to the near boundary, and ends where one is matched to the far one.
            leave = np.where(paired[left], arrive[:, own ^ 1] - cost[left], from_near[left])
            walk = np.minimum(leave + far[left], arrive + to_far[left]).min(axis=1, initial=np.inf)
            step = (leave[:, :, None] + between[left]).min(axis=1, initial=np.inf)
            closer = np.minimum(arrive, step)
            below[left] = walk < limit[left]
            going = ~below[left] & (closer < arrive).any(axis=1)
            arrive, left = closer[going], left[going]
        return below


def _slots(pairs: list[np.ndarray]) -> np.ndarray:
    """int64 (B, m), the detectors that are matched; -1 where there is none."""
    count = np.array([len(matched) for matched in pairs])
    matched = np.concatenate(pairs)
    matched = np.where(matched[:, :1] < 0, matched[:, ::-1], matched)
    shot = np.repeat(np.arange(len(pairs)), count)
    slots = np.full((len(pairs), count.max(), 2), -1)
    slots[shot, place_in_run(count)] = matched
    return slots.reshape(len(pairs), -1)
