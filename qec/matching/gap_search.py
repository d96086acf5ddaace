"""Tells at the price of a matching which shots may have a small logical gap.

``qec.matching.alternating_paths`` says how, with a worked example.
"""

from __future__ import annotations

import numpy as np

from qec.matching.alternating_paths import certain_of_gap
from qec.matching.matcher import graph_of, matched_pairs, set_up
from qec.matching.neighbourhoods import balls_of, to_boundary
from qec.support.compiled_loops import compiled
from qec.support.errors import QecError

_ROUNDING = 0.02  # nats: PyMatching rounds weights, and so does float32
_LARGEST = 1.2  # radius, in median edge weights: a larger one takes more time, a smaller one lacks
_ROOM = 20.0  # nats that the pairs of a shot may lack, or it counts as doubtful
# A call of PyMatching costs as much as matching some hundred detectors: so shots stand side by
# side in one graph of about so many.
_SIDE_BY_SIDE = 1500


class GapSearch:
    """Matches the memory checks, and tells which shots have a logical gap of some nats for certain.

    Args:
        n: number of detectors.
        u, v: int64, the ends of each edge; v = -1 is a boundary.
        weight: float64, of each edge, in nats, not negative.
        far: bool, the edges that end on the far boundary.
        side: bool (n,), the detectors whose events flip the observable
        (``qec.matching.complementary_gap.boundaries``).
        nats: the largest gap that will be asked for, at most the weight of the lightest logical
            operator.

    Raises:
        QecError: a negative weight.
    """

    def __init__(
        self,
        n: int,
        u: np.ndarray,
        v: np.ndarray,
        weight: np.ndarray,
        far: np.ndarray,
        side: np.ndarray,
        nats: float,
    ) -> None:
        if weight.min(initial=0) < 0:
            raise QecError("a negative edge weight: a logical gap cannot be searched for.")
        inner = v >= 0
        self._n, self._side = n, side
        self._largest = np.float32(_LARGEST * np.median(weight))
        self._near, self._far = (
            to_boundary(n, u, v, weight, kept).astype(np.float32)
            for kept in (inner | ~far, inner | far)
        )
        self._reach = np.float32(nats + 2 * self._largest + _ROOM)
        self._balls = balls_of(n, u, v, weight, float(self._reach))
        self._copies = max(1, _SIDE_BY_SIDE // n)
        shift = np.repeat(np.arange(self._copies) * n, len(u))
        u, v = np.tile(u, self._copies) + shift, np.tile(v, self._copies)
        no_flip = np.zeros(len(u), dtype=np.bool_)
        weight = np.tile(weight, self._copies)
        self._graph = graph_of(u, np.where(v < 0, -1, v + shift), weight, no_flip)
        set_up(self._graph)

    def decode_batch(self, events: np.ndarray, nats: float) -> tuple[np.ndarray, np.ndarray]:
        """Predictions, and of which it is certain that their logical gap is ``nats`` at least.

        Args:
            events: uint8 (B, n).
            nats: at most as many as in the constructor.

        Returns:
            uint8 (B,) predicted flips of observable 0, bool (B,).  Where matchings of both classes
            weigh the same, the prediction depends on the other shots; no such shot is certain.

        Raises:
            Unexplained: no set of mechanisms explains the events of a shot.
        """
        ends, start = self._pairs(events)
        values = self._near, self._far, self._side, self._largest
        return certain_of_gap(
            ends, start, self._balls, *values, np.float32(nats + _ROUNDING), self._reach
        )

    def _pairs(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 (pairs, 2), who is matched with whom; int64 (B + 1,), where each shot begins."""
        shots = len(events)
        room = np.zeros((-(-shots // self._copies), self._copies * self._n), dtype=np.uint8)
        room.reshape(-1)[: events.size] = events.reshape(-1)
        found = [matched_pairs(self._graph, line) for line in room]
        size = np.array([len(pairs) for pairs in found], dtype=np.int64)
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
        return _by_shot(pairs, size, self._copies, self._n, shots)


@compiled
def _by_shot(
    pairs: np.ndarray, size: np.ndarray, copies: int, n: int, shots: int
) -> tuple[np.ndarray, np.ndarray]:
    """Puts pairs of shots side by side in order, as ``GapSearch._pairs`` returns them.

    Args:
        pairs: int64 (pairs, 2), those of one graph after the other, numbered in the graph.
        size: int64, how many of each.
        copies, n: shots in a graph, detectors of each.
        shots: in all.
    """
    start = np.zeros(shots + 1, np.int64)
    shot = np.empty(len(pairs), np.int64)
    k = 0
    for line in range(len(size)):
        for _ in range(size[line]):
            shot[k] = line * copies + max(pairs[k, 0], pairs[k, 1]) // n
            start[shot[k] + 1] += 1
            k += 1
    for b in range(shots):
        start[b + 1] += start[b]
    ends, filled = np.empty((len(pairs), 2), np.int64), start[:-1].copy()
    for k in range(len(pairs)):
        # The larger one of a pair is a detector; the other may be the boundary, -1.
        other = min(pairs[k, 0], pairs[k, 1])
        place = filled[shot[k]]
        ends[place, 0] = max(pairs[k, 0], pairs[k, 1]) % n
        ends[place, 1] = other % n if other >= 0 else -1
        filled[shot[k]] += 1
    return ends, start
