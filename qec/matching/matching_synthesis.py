"""The best of several corrections, put together from their parts, and how likely either class is.

Two corrections of one syndrome differ by closed paths.  Each can be exchanged by itself, so the
better half of either gives a correction better than both: with a few proposals for a large code,
each the best somewhere, the sum is close to the likeliest error (matching synthesis: C. Jones,
arXiv:2408.12135).

What is not exchanged still counts.  A part by which a proposal is only a little heavier is another
way in which the same events may have come about.  Each part can be chosen or not, so one that adds
w nats makes the logical class 1 + exp(-w) times as likely.  The likelier class is predicted, and
the logarithm of the odds is the confidence.

Worked example: detectors a, b and c stand in a row between two boundaries, joined by edges of 2
nats, and all edges at the far boundary flip the observable.  There are events at a and b.  One
proposal joins them by the edge between (2 nats).  Another matches both to the boundaries: a to the
near one, b by c to the far one (2 + 4 nats).  They differ in one part, which closes a path through
both boundaries, flips the observable and adds 4 nats: that is the logarithm of the odds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qec.matching.joint_weight import EdgeModel, Weights
from qec.support.compiled_loops import compiled

_LIGHTER = 1e-6  # nats by which a correction has to be lighter, for rounding
_ROUNDS = 2  # of exchanges between what is best and each proposal


class Combined(NamedTuple):
    """What proposals for B shots amount to; [c] stands for the logical class c.

    Attributes:
        best: bool (2, B, E), the lightest correction found; all False where there is none.
        weight: float64 (2, B), its joint weight in nats; infinite where there is none.
        log_likelihood: float64 (2, B), of the class, with the same constant for both; -infinite
            where there is none.
    """

    best: np.ndarray
    weight: np.ndarray
    log_likelihood: np.ndarray

    @property
    def flips(self) -> np.ndarray:
        """uint8 (B,), predicted flips of observable 0."""
        return (self.log_likelihood[1] > self.log_likelihood[0]).astype(np.uint8)

    @property
    def confidence(self) -> np.ndarray:
        """float64 (B,), logarithm of the odds of the prediction; infinite without another class."""
        return np.abs(self.log_likelihood[1] - self.log_likelihood[0])

    def odds(self, flips: np.ndarray) -> np.ndarray:
        """float64 (B,), logarithm of the odds of predictions; 0 if the other class is likelier."""
        zero, one = self.log_likelihood
        return np.maximum(np.where(flips, one - zero, zero - one), 0)


def combine(model: EdgeModel, proposals: np.ndarray) -> Combined:
    """Puts the best corrections together.

    Args:
        model: whose E edges they consist of.
        proposals: bool (K, B, E), K corrections of the same events for each shot.
    """
    rng = np.random.default_rng(0)
    label = rng.integers(1, 2**63 - 1, len(model.flips))
    found = _combine(proposals.view(np.uint8), model.ends, model.flips, model.weights, label)
    return Combined(found[0].view(np.bool_), found[1], found[2])


class _Corrections(NamedTuple):
    """Corrections of one shot: rows of edges, of which each has the first ``count``.

    Attributes:
        edge: int64 (rows, longest).
        share: float64, each edge's part of the joint weight.
        other: int64, the edge that one mechanism flips with it; -1: none.
        count: int64 (rows,).
    """

    edge: np.ndarray
    share: np.ndarray
    other: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # also a method of tuples, which nobody calls


class _Space(NamedTuple):
    """Room that is given back as it was found.

    Attributes:
        place: int64 (E,), -1; where an edge stands.
        met: int64 (n,), -1; which edge ends at a detector.
    """

    place: np.ndarray
    met: np.ndarray


class _Parts(NamedTuple):
    """In what two corrections differ: parts that have a weight of their own.

    No path in which the two differ, and no pair that one mechanism flips, leads out of a part.

    Attributes:
        edge: int64 (nodes,), edges of either correction.
        differs: bool (nodes,), whether only one of them has it.
        root: int64 (nodes,), the node that stands for its part.
        heavier: float64 (nodes,), at roots: nats that exchanging the part adds.
        crosses: bool (nodes,), at roots: whether exchanging it flips the observable.
    """

    edge: np.ndarray
    differs: np.ndarray
    root: np.ndarray
    heavier: np.ndarray
    crosses: np.ndarray


@compiled
def _combine(
    proposals: np.ndarray, ends: np.ndarray, flips: np.ndarray, weights: Weights, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The fields of ``Combined``, shot by shot; ``label`` are random numbers of the edges."""
    _, shots, edges = proposals.shape
    best = np.zeros((2, shots, edges), np.uint8)
    weight = np.full((2, shots), np.inf)
    log_likelihood = np.full((2, shots), -np.inf)
    space = _Space(np.full(edges, -1, np.int64), np.full(ends.max() + 1, -1, np.int64))
    for b in range(shots):
        found, distinct = _distinct(proposals[:, b], label)
        # The last two rows but one are the best of either class, the last is for trying.
        total = np.full(distinct + 3, np.inf)
        for row in range(distinct):
            total[row] = _weigh(found, row, weights, space)
            c = distinct + _crossing(found, row, flips)
            if total[row] < total[c]:
                total[c] = total[row]
                _copy(found, row, c)
        for _ in range(_ROUNDS):
            lighter = False
            for row in range(distinct):
                for c in range(2):
                    if np.isfinite(total[distinct + c]):
                        lighter |= _exchange(
                            found, row, c, distinct, total, ends, flips, weights, space
                        )
            if not lighter:
                break
        for c in range(2):
            weight[c, b] = total[distinct + c]
            if np.isfinite(total[distinct + c]):
                for k in range(found.count[distinct + c]):
                    best[c, b, found.edge[distinct + c, k]] = 1
                log_likelihood[c, b] = (
                    _entropy(found, distinct, distinct + c, ends, flips, space, label)
                    - total[distinct + c]
                )
    return best, weight, log_likelihood


@compiled
def _distinct(proposals: np.ndarray, label: np.ndarray) -> tuple[_Corrections, int]:
    """Those of uint8 (K, E) that differ, and how many; with room for three more, of any length."""
    rows, edges = proposals.shape
    count, name = np.zeros(rows + 3, np.int64), np.zeros(rows, np.int64)
    longest = 0
    for k in range(rows):
        size = 0
        for e in range(edges):
            if proposals[k, e]:
                size += 1
                name[k] ^= label[e]
        longest = max(longest, size)
    longest = min(2 * longest * max(rows, 1), edges)
    edge = np.empty((rows + 3, longest), np.int64)
    distinct = 0
    for k in range(rows):
        known = False
        for j in range(k):
            known |= name[j] == name[k]
        if known:
            continue
        for e in range(edges):
            if proposals[k, e]:
                edge[distinct, count[distinct]] = e
                count[distinct] += 1
        distinct += 1
    share, other = np.empty(edge.shape), np.empty(edge.shape, np.int64)
    return _Corrections(edge, share, other, count), distinct


@compiled
def _copy(found: _Corrections, source: int, target: int) -> None:
    size = found.count[source]
    found.count[target] = size
    found.edge[target, :size] = found.edge[source, :size]
    found.share[target, :size] = found.share[source, :size]
    found.other[target, :size] = found.other[source, :size]


@compiled
def _crossing(found: _Corrections, row: int, flips: np.ndarray) -> int:
    """The logical class of a row."""
    flip = 0
    for k in range(found.count[row]):
        flip ^= flips[found.edge[row, k]]
    return flip


@compiled
def _weigh(found: _Corrections, row: int, weights: Weights, space: _Space) -> float:
    """The joint weight of a row (``JointWeights``), whose shares and pairs it fills in."""
    size = found.count[row]
    edge, share, other = found.edge[row], found.share[row], found.other[row]
    saved = np.zeros(size)
    for k in range(size):
        space.place[edge[k]] = k
    for k in range(size):
        other[k] = -1
        for q in range(weights.start[edge[k]], weights.start[edge[k] + 1]):
            if weights.saved[q] > saved[k] and space.place[weights.partner[q]] >= 0:
                saved[k], other[k] = weights.saved[q], weights.partner[q]
    total = 0.0
    for k in range(size):
        share[k] = weights.alone[edge[k]]
        if other[k] >= 0:
            mate = space.place[other[k]]
            # A pair is one if both of its edges save the most by it.
            if saved[mate] == saved[k]:
                share[k] -= saved[k] / 2
        total += share[k]
    for k in range(size):
        if other[k] >= 0 and saved[space.place[other[k]]] != saved[k]:
            other[k] = -1
    for k in range(size):
        space.place[edge[k]] = -1
    return total


@compiled
def _root(parent: np.ndarray, k: int) -> int:
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@compiled
def _parts(
    found: _Corrections,
    kept: int,
    proposal: int,
    ends: np.ndarray,
    flips: np.ndarray,
    space: _Space,
) -> _Parts:
    """In what the row ``proposal`` differs from the row ``kept``."""
    most = found.count[kept] + found.count[proposal]
    edge, differs = np.empty(most, np.int64), np.zeros(most, np.bool_)
    change, parent = np.zeros(most), np.arange(most)
    nodes = 0
    for row, sign in ((kept, -1), (proposal, 1)):
        for k in range(found.count[row]):
            e = found.edge[row, k]
            if space.place[e] < 0:
                space.place[e] = nodes
                edge[nodes] = e
                nodes += 1
            differs[space.place[e]] ^= True
            change[space.place[e]] += sign * found.share[row, k]
    for row in (kept, proposal):
        for k in range(found.count[row]):
            if found.other[row, k] >= 0:
                here = _root(parent, space.place[found.edge[row, k]])
                parent[here] = _root(parent, space.place[found.other[row, k]])
    last = len(space.met) - 1  # the boundary
    for k in range(nodes):
        for side in range(2):
            detector = ends[edge[k], side]
            if differs[k] and detector < last:
                if space.met[detector] < 0:
                    space.met[detector] = k
                else:
                    parent[_root(parent, k)] = _root(parent, space.met[detector])
    heavier, crosses = np.zeros(nodes), np.zeros(nodes, np.bool_)
    root = np.empty(nodes, np.int64)
    for k in range(nodes):
        root[k] = _root(parent, k)
        heavier[root[k]] += change[k]
        if differs[k] and flips[edge[k]]:
            crosses[root[k]] ^= True
        space.place[edge[k]] = -1
        for side in range(2):
            space.met[ends[edge[k], side]] = -1
    return _Parts(edge[:nodes], differs[:nodes], root, heavier, crosses)


@compiled
def _exchange(
    found: _Corrections,
    proposal: int,
    c: int,
    distinct: int,
    total: np.ndarray,
    ends: np.ndarray,
    flips: np.ndarray,
    weights: Weights,
    space: _Space,
) -> bool:
    """Takes over into the best of class ``c`` the parts of a proposal that are lighter.

    Two parts that flip the observable are taken together if that is lighter; one of them, for the
    best of the other class.  Returns whether anything has become lighter.
    """
    parts = _parts(found, distinct + c, proposal, ends, flips, space)
    first, second = -1, -1  # the lightest parts that flip the observable
    any_lighter = False
    for k in range(len(parts.root)):
        if parts.root[k] == k:
            if not parts.crosses[k]:
                any_lighter |= parts.heavier[k] < -_LIGHTER
            elif first < 0 or parts.heavier[k] < parts.heavier[first]:
                first, second = k, first
            elif second < 0 or parts.heavier[k] < parts.heavier[second]:
                second = k
    result = False
    if second >= 0 and parts.heavier[first] + parts.heavier[second] < -_LIGHTER:
        result |= _offer(found, parts, first, second, c, c, distinct, total, weights, space)
    elif any_lighter:
        result |= _offer(found, parts, -1, -1, c, c, distinct, total, weights, space)
    if first >= 0:
        result |= _offer(found, parts, first, -1, c, 1 - c, distinct, total, weights, space)
    return result


@compiled
def _offer(
    found: _Corrections,
    parts: _Parts,
    first: int,
    second: int,
    c: int,
    to: int,
    distinct: int,
    total: np.ndarray,
    weights: Weights,
    space: _Space,
) -> bool:
    """Makes of the best of class ``c`` the best of class ``to``, if it is lighter.

    Lighter parts are exchanged, and those of the roots ``first`` and ``second``.
    """
    trial, size = distinct + 2, 0
    kept = distinct + c
    for k in range(found.count[kept]):
        space.place[found.edge[kept, k]] = k
    for k in range(len(parts.edge)):
        root = parts.root[k]
        taken = root in (first, second)
        taken |= not parts.crosses[root] and parts.heavier[root] < -_LIGHTER
        here = space.place[parts.edge[k]] >= 0
        if here != (parts.differs[k] and taken):
            found.edge[trial, size] = parts.edge[k]
            size += 1
    for k in range(found.count[kept]):
        space.place[found.edge[kept, k]] = -1
    found.count[trial] = size
    weight = _weigh(found, trial, weights, space)
    if weight >= total[distinct + to] - _LIGHTER:
        return False
    total[distinct + to] = weight
    _copy(found, trial, distinct + to)
    return True


@compiled
def _entropy(
    found: _Corrections,
    distinct: int,
    kept: int,
    ends: np.ndarray,
    flips: np.ndarray,
    space: _Space,
    label: np.ndarray,
) -> float:
    """The logarithm of how much likelier a class is by the parts that can be exchanged in it."""
    total, known = 0.0, set()
    known.add(label[0] * 0)
    for proposal in range(distinct):
        parts = _parts(found, kept, proposal, ends, flips, space)
        name = np.zeros(len(parts.root), np.int64)
        for k in range(len(parts.root)):
            if parts.differs[k]:
                name[parts.root[k]] ^= label[parts.edge[k]]
        for k in range(len(parts.root)):
            if parts.root[k] == k and not parts.crosses[k] and name[k] not in known:
                known.add(name[k])
                total += np.log1p(np.exp(-parts.heavier[k]))
    return total
