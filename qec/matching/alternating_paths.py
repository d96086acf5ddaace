"""Alternating paths of a matched shot: which of them could make up a correction of the other class.

The best correction of the other logical class differs from a minimum-weight matching by an
alternating path from the near boundary to the far one.  Such a path leaves out the matched pairs
that it runs through and joins what it frees.  The logical gap is what it adds to the weight.

Radii price the paths.  The radii of two events never add up to more than their distance, nor is one
larger than the distance to a boundary: they are a dual solution of matching.  So a path adds what
its links are longer than the radii at their ends, less what its pairs *lack*: by how much the radii
of a matched pair fall short of its distance.  Most pairs lack nothing.  In an odd cycle of events
some do (a blossom: J. Edmonds, J. Res. NBS 69B, 125, 1965), and each is credited once to a path.

Worked example: the near boundary, events a and b matched to each other, and the far boundary stand
in a line, with 3, 4 and 5 nats between them.  Radii of 2 and 2 lack nothing.  The one path goes
from the near boundary to a, leaves b and ends at the far one: it adds (3 - 2) + (5 - 2) = 4 nats,
the gap.  A third event c, 1 nat from the far boundary and matched to it, 4 nats from b, has radius
1.  The path may now join b and c and end there: (3 - 2) + (4 - 2 - 1) = 2 nats.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qec.matching.neighbourhoods import Neighbourhoods, pop, push
from qec.support.compiled_loops import compiled

_LABELS = 4096  # paths that are weighed against each other in a shot, or it counts as doubtful
_NEGLIGIBLE = np.float32(1e-3)  # nats


class _Shot(NamedTuple):
    """A matched shot.  Ends 2 j and 2 j + 1 are a pair; what is matched to a boundary is the first.

    Nats to the two boundaries are of no meaning where the end is a boundary.
    """

    event: np.ndarray  # int64 (m,), detectors; -1 is a boundary
    to_near: np.ndarray  # float32 (m,)
    to_far: np.ndarray  # float32 (m,)
    end_at: np.ndarray  # int32 (n,), the end at each detector; -1: no event


class _Links(NamedTuple):
    """Distances between events of different pairs; those of end k are first[k] to last[k]."""

    first: np.ndarray  # int64 (m,)
    last: np.ndarray  # int64 (m,)
    to: np.ndarray  # int32
    length: np.ndarray  # float32


class _Paths(NamedTuple):
    """The paths of a shot, by the ends that they arrive at.

    Attributes:
        begin: float32 (m,), what a path adds that comes from the near boundary.
        end: float32 (m,), what it adds from there if it frees the mate and ends.
        before: float32 (m,), the least that any path adds until there.
        order: int64, the ends in rising order of it, up to some limit.
        start: int64, where the edges of each of these begin.
        to, cost: int64, float32, the edges: where a path may arrive next, and what that adds.
    """

    begin: np.ndarray
    end: np.ndarray
    before: np.ndarray
    order: np.ndarray
    start: np.ndarray
    to: np.ndarray
    cost: np.ndarray


class _Labels(NamedTuple):
    """See ``_none_saves_enough``; the labels of one end are a list, from the latest on."""

    at: np.ndarray  # int64
    ran: np.ndarray  # int64, a bit for each pair that lacks something
    adds: np.ndarray  # float32
    saves: np.ndarray  # float32
    older: np.ndarray  # int64, the next of the same end; -1: none
    latest: np.ndarray  # int64 (m,)


@compiled
def certain_of_gap(
    ends: np.ndarray,
    start: np.ndarray,
    balls: Neighbourhoods,
    near: np.ndarray,
    far: np.ndarray,
    side: np.ndarray,
    largest: np.float32,
    nats: np.float32,
    reach: np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions, and which shots have a gap of ``nats`` at least for certain.

    Args:
        ends: int64 (pairs, 2), the matched pairs of all shots: a detector, and a detector or -1.
        start: int64 (B + 1,), where those of each shot begin.
        balls: around the detectors.
        near, far: float32 (n,), nats from a detector to the boundaries.
        side: bool (n,), the detectors whose events flip the observable.
        largest: radius, in nats.
        nats: the gap in question.
        reach: of the balls, in nats.

    Returns:
        uint8 (B,), bool (B,).
    """
    shots = len(start) - 1
    flips, certain = np.zeros(shots, np.uint8), np.ones(shots, np.bool_)
    end_at = np.full(len(near), -1, np.int32)
    for b in range(shots):
        m = 2 * (start[b + 1] - start[b])
        event = np.empty(m, np.int64)
        to_near, to_far = np.empty(m, np.float32), np.empty(m, np.float32)
        for k in range(m):
            detector = ends[start[b] + (k >> 1), k & 1]
            event[k] = detector
            if detector >= 0:
                end_at[detector] = k
                to_near[k], to_far[k] = near[detector], far[detector]
                flips[b] ^= side[detector]
            else:
                flips[b] ^= to_far[k - 1] < to_near[k - 1]
        if m:
            shot = _Shot(event, to_near, to_far, end_at)
            certain[b] = _is_certain(shot, balls, largest, nats, reach)
        for k in range(m):
            if event[k] >= 0:
                end_at[event[k]] = -1
    return flips, certain


@compiled
def _is_certain(
    shot: _Shot, balls: Neighbourhoods, largest: np.float32, nats: np.float32, reach: np.float32
) -> bool:
    """Whether all paths of a shot add ``nats`` at least."""
    links, apart = _links(shot, balls, 2 * largest)
    if np.isinf(apart).any():
        return False
    radius = _radii(shot, links, apart, largest)
    lack = apart - radius[::2] - radius[1::2]
    lack = np.where(lack < _NEGLIGIBLE, np.float32(0), lack)
    limit = nats + lack.sum()
    if limit + 2 * largest > reach:
        return False
    paths = _paths(shot, balls, radius, largest, nats, limit)
    lightest = (paths.before + paths.end).min()
    if lightest < nats or lightest >= limit:
        return lightest >= limit
    return _none_saves_enough(paths, lack, nats, limit)


@compiled
def _links(shot: _Shot, balls: Neighbourhoods, longest: np.float32) -> tuple[_Links, np.ndarray]:
    """The links that are shorter than ``longest``, and what the pairs are apart.

    A pair that is farther apart than the balls reach is infinitely far.
    """
    event, end_at = shot.event, shot.end_at
    m = len(event)
    apart = np.full(m >> 1, np.float32(np.inf))
    first, last = np.empty(m, np.int64), np.empty(m, np.int64)
    to, length = np.empty(16 * m, np.int32), np.empty(16 * m, np.float32)
    count = 0
    for k in range(m):
        first[k] = last[k] = count
        if event[k] < 0:
            continue
        found = k & 1 == 1  # the first end of a pair finds the other
        if event[k ^ 1] < 0:
            apart[k >> 1] = min(shot.to_near[k], shot.to_far[k])
            found = True
        if count + m > len(to):
            to, length = np.append(to, to), np.append(length, length)
        for q in range(balls.start[event[k]], balls.start[event[k] + 1]):
            away = balls.away[q]
            if found and away >= longest:
                break
            j = end_at[balls.who[q]]
            if j < 0:
                continue
            if j == k ^ 1:
                apart[k >> 1] = away
                found = True
            elif away < longest:
                to[count], length[count] = j, away
                count += 1
        last[k] = count
    return _Links(first, last, to, length), apart


@compiled
def _radii(shot: _Shot, links: _Links, apart: np.ndarray, largest: np.float32) -> np.ndarray:
    """float32 (m,), the radii of the events; 0 where an end is a boundary.

    ``arrive`` is the least that a path from any boundary adds until it arrives at an end, ``leave``
    until it leaves one, having arrived at its mate.  Half their difference is the radius.  A path
    that came back as it went would add ``arrive + leave``, which must not be negative: that is
    where pairs come to lack something.
    """
    m = len(shot.event)
    arrive, radius = np.zeros(m, np.float32), np.zeros(m, np.float32)
    queue, queued = np.empty(m, np.int64), np.zeros(m, np.bool_)
    head, count = 0, 0
    for k in range(m):
        if shot.event[k] >= 0:
            arrive[k] = min(largest, shot.to_near[k], shot.to_far[k])
            queue[count], queued[k] = k, True
            count += 1
    while count > 0:
        k = queue[head]
        queued[k] = False
        head, count = head + 1 if head + 1 < m else 0, count - 1
        leave = max(arrive[k ^ 1] - apart[k >> 1], -arrive[k])
        for q in range(links.first[k], links.last[k]):
            j = links.to[q]
            if leave + links.length[q] < arrive[j] - _NEGLIGIBLE / 10:
                arrive[j] = leave + links.length[q]
                mate = j ^ 1  # it leaves, so for less
                if shot.event[mate] >= 0 and not queued[mate]:
                    tail = head + count
                    queue[tail if tail < m else tail - m] = mate
                    queued[mate] = True
                    count += 1
    for k in range(m):
        if shot.event[k] >= 0:
            radius[k] = (arrive[k] - max(arrive[k ^ 1] - apart[k >> 1], -arrive[k])) / 2
    return radius


@compiled
def _ends_of_paths(shot: _Shot, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``begin`` and ``end`` of ``_Paths``.

    A path can also begin or end by freeing an event of its match to a boundary.
    """
    m = len(radius)
    begin, end = np.full(m, np.float32(np.inf)), np.full(m, np.float32(np.inf))
    for k in range(m):
        mate = k ^ 1
        if shot.event[k] >= 0:
            begin[k] = shot.to_near[k] - radius[k]
        elif shot.to_near[mate] <= shot.to_far[mate]:
            begin[k] = 0
        if shot.event[mate] >= 0:
            end[k] = shot.to_far[mate] - radius[mate]
        elif shot.to_far[k] < shot.to_near[k]:
            end[k] = 0
    return begin, end


@compiled
def _paths(
    shot: _Shot,
    balls: Neighbourhoods,
    radius: np.ndarray,
    largest: np.float32,
    nats: np.float32,
    limit: np.float32,
) -> _Paths:
    """All paths that add less than ``limit``; stops at one that adds less than ``nats``.

    Dijkstra's algorithm by what links are longer than the radii.  The balls have to reach
    ``limit + 2 * largest``.
    """
    event, end_at = shot.event, shot.end_at
    m = len(event)
    begin, end = _ends_of_paths(shot, radius)
    before = begin.copy()
    key, node = np.empty(4 * m, np.float32), np.empty(4 * m, np.int64)
    size = 0
    for k in range(m):
        if before[k] < limit:
            size = push(key, node, size, before[k], k)
    settled, order, count = np.zeros(m, np.bool_), np.empty(m, np.int64), 0
    start = np.zeros(m + 1, np.int64)
    to, cost, edges = np.empty(4 * m, np.int64), np.empty(4 * m, np.float32), 0
    while size > 0:
        k = node[0]
        size = pop(key, node, size)
        if settled[k]:
            continue
        settled[k] = True
        order[count] = k
        count += 1
        start[count] = edges
        if before[k] + end[k] < nats:
            break
        mate = k ^ 1
        if event[mate] < 0:
            continue
        if edges + m > len(to):
            to, cost = np.append(to, to), np.append(cost, cost)
        for q in range(balls.start[event[mate]], balls.start[event[mate] + 1]):
            if balls.away[q] >= limit - before[k] + radius[mate] + largest:
                break
            j = end_at[balls.who[q]]
            if j < 0 or j == k:
                continue
            adds = max(balls.away[q] - radius[mate] - radius[j], np.float32(0))
            if before[k] + adds >= limit:
                continue
            to[edges], cost[edges] = j, adds
            edges += 1
            if before[k] + adds < before[j]:
                before[j] = before[k] + adds
                if size == len(key):
                    key, node = np.append(key, key), np.append(node, node)
                size = push(key, node, size, before[j], j)
        start[count] = edges
    return _Paths(begin, end, before, order[:count], start, to, cost)


@compiled
def _none_saves_enough(
    paths: _Paths, lack: np.ndarray, nats: np.float32, limit: np.float32
) -> bool:
    """Whether no path adds less than ``nats``, what its pairs lack taken off, each pair once.

    Paths are followed as *labels*: where one arrives, what it adds, the pairs that it has run
    through and what these lack.  One is dropped if another at the same end is as good whatever
    comes after.
    """
    after = _least_after(paths)
    through = paths.before + after
    bit, lacks = _numbered(through, lack, nats, limit)
    if len(lacks) > 62:
        return False
    place = np.full(len(through), -1, np.int64)
    place[paths.order] = np.arange(len(paths.order))
    labels = _Labels(
        np.empty(_LABELS, np.int64),
        np.empty(_LABELS, np.int64),
        np.empty(_LABELS, np.float32),
        np.empty(_LABELS, np.float32),
        np.empty(_LABELS, np.int64),
        np.full(len(through), -1, np.int64),
    )
    limit = nats + lacks.sum()
    count = 0
    for source in range(-1, _LABELS):
        if source >= count:
            return True
        begins = source < 0
        here = 0 if begins else place[labels.at[source]]
        low = 0 if begins else paths.start[here]
        high = len(paths.order) if begins else paths.start[here + 1]
        for q in range(low, high):
            k = paths.order[q] if begins else paths.to[q]
            adds = paths.begin[k] if begins else labels.adds[source] + paths.cost[q]
            if adds + after[k] >= limit:
                continue
            ran = 0 if begins else labels.ran[source]
            saves = np.float32(0) if begins else labels.saves[source]
            if bit[k >> 1] & ~ran:
                ran |= bit[k >> 1]
                saves += lack[k >> 1]
            if adds - saves + paths.end[k] < nats:
                return False
            if _is_new(labels, k, ran, adds - saves, lacks):
                if count == _LABELS:
                    return False
                labels.at[count], labels.ran[count] = k, ran
                labels.adds[count], labels.saves[count] = adds, saves
                labels.older[count], labels.latest[k] = labels.latest[k], count
                count += 1
    return False


@compiled
def _least_after(paths: _Paths) -> np.ndarray:
    """float32 (m,), the least that paths add from an end on."""
    after = paths.end.copy()
    going = True
    while going:
        going = False
        for o in range(len(paths.order) - 1, -1, -1):
            k = paths.order[o]
            for q in range(paths.start[o], paths.start[o + 1]):
                there = paths.cost[q] + after[paths.to[q]]
                if there < after[k] - _NEGLIGIBLE / 10:
                    after[k] = there
                    going = True
    return after


@compiled
def _numbered(
    through: np.ndarray, lack: np.ndarray, nats: np.float32, limit: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """A bit for each pair that lacks something and that a light path can run through.

    Fewer such pairs make a lower limit, which may leave fewer of them.

    Returns:
        int64 (pairs,), 0 where there is none; float32, what the pairs with a bit lack.
    """
    least = np.minimum(through[::2], through[1::2])
    counts = (lack > 0) & (least < limit)
    while nats + lack[counts].sum() < limit - _NEGLIGIBLE:
        limit = nats + lack[counts].sum()
        counts &= least < limit
    bit = np.zeros(len(lack), np.int64)
    for number, pair in enumerate(np.flatnonzero(counts)):
        bit[pair] = 1 << min(number, 62)
    return bit, lack[counts]


@compiled
def _is_new(labels: _Labels, k: int, ran: int, net: np.float32, lacks: np.ndarray) -> bool:
    """Whether no label at end ``k`` is as good, whichever pairs come after."""
    other = labels.latest[k]
    while other >= 0:
        ahead = net - labels.adds[other] + labels.saves[other]
        missed, which = labels.ran[other] & ~ran, 0
        while missed and ahead >= 0:
            if missed & 1:
                ahead -= lacks[which]
            missed >>= 1
            which += 1
        if ahead >= 0:
            return False
        other = labels.older[other]
    return True
