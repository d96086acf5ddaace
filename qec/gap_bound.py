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

from qec.compiled import compiled

_ROUNDING = 0.01  # nats: PyMatching rounds weights


class GapBound:
    """Tells the shots whose logical gap cannot be below a cap.

    Of a shot's ends 2 j and 2 j + 1 belong to a matched pair; an event that is matched to a
    boundary has the first of them.

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
        marks = np.where(np.isfinite(marks), marks, 0)  # 0: of what no path leads to
        self._marks = np.ascontiguousarray(marks.T)  # (n, landmarks)
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
        if not len(pairs):
            return np.zeros(0, dtype=np.bool_)
        start = np.cumsum([0, *map(len, pairs)])
        marks = self._near, self._far, self._marks, self._logical_weight
        return _may_be_below(np.concatenate(pairs), start, weights, cap + _ROUNDING, *marks)


@compiled
def _may_be_below(
    ends: np.ndarray,
    start: np.ndarray,
    weights: np.ndarray,
    cap: float,
    near: np.ndarray,
    far: np.ndarray,
    marks: np.ndarray,
    logical_weight: float,
) -> np.ndarray:
    """Shot by shot; ``start`` tells where in ``ends`` its pairs begin."""
    most = 2 * max(np.max(start[1:] - start[:-1]), 1)
    event = np.empty(most, np.int64)
    between = np.empty((most, most), np.float32)
    cost, arrive, closer, leave = np.empty((4, most), np.float32)
    below = np.zeros(len(weights), np.bool_)
    for b in range(len(weights)):
        m = 2 * (start[b + 1] - start[b])
        for k in range(0, m, 2):
            u, v = ends[start[b] + k // 2]
            event[k], event[k + 1] = max(u, v), min(u, v)
        for k in range(m):
            for j in range(k):
                apart = np.float32(np.inf)
                if event[k] >= 0 and event[j] >= 0:
                    apart = np.float32(0)
                    for mark in range(marks.shape[1]):
                        apart = max(apart, abs(marks[event[k], mark] - marks[event[j], mark]))
                between[k, j] = between[j, k] = apart
        slack = weights[b]
        for k in range(0, m, 2):
            paired = event[k + 1] >= 0
            own = between[k, k + 1] if paired else min(near[event[k]], far[event[k]])
            cost[k] = cost[k + 1] = own
            slack -= own
        # A pair may weigh more than its bound; all of them together, by so much.
        limit = cap + max(slack, 0.0)
        below[b] = logical_weight < limit
        for k in range(m):
            arrive[k] = near[event[k]] if event[k] >= 0 else np.inf
        # No path runs through more pairs than there are.
        for _ in range(m // 2 + 1):
            if below[b]:
                break
            # Having arrived at an event, a walk leaves its mate; or it starts where one is matched
            # to the near boundary, and ends where one is matched to the far one.
            for k in range(m):
                leave[k] = np.inf
                if event[k] < 0:
                    continue
                if event[k ^ 1] >= 0:
                    leave[k] = arrive[k ^ 1] - cost[k]
                elif near[event[k]] <= far[event[k]]:
                    leave[k] = -cost[k]
                else:
                    below[b] |= arrive[k] - cost[k] < limit
                below[b] |= leave[k] + far[event[k]] < limit
            going = False
            for k in range(m):
                closer[k] = arrive[k]
                for j in range(m):
                    # A walk that leaves an event does not come back to it at once, nor to its mate.
                    if j != k and j != k ^ 1:
                        closer[k] = min(closer[k], leave[j] + between[j, k])
                going |= closer[k] < arrive[k]
            arrive[:m] = closer[:m]
            if not going:
                break
    return below
