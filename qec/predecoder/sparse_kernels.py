"""Loops over detection events, compiled: what has no fast form in arrays.

Shapes as in ``qec.predecoder.sparse_network``.  Places are in the flattened volume with a margin.
"""

from __future__ import annotations

import numpy as np

from qec.support.compiled_loops import compiled


@compiled
def active_cells(
    events: np.ndarray, features: np.ndarray, margin: int, seen: np.ndarray, number: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cells that have features: which cell of its shot each is, int64 (n,), and its place.

    Args:
        events: uint8 (B, T, Y, X, 4).
        features: bool (4,), the channels whose events give a cell features.
        margin: on each side of T, Y and X.
        seen: uint8 (B, T + 2 margin, Y + ..., X + ...), zeros; gets the events as bits.
        number: int32 of that shape, -1; gets the number of each cell with features.
    """
    shots, layers, rows, columns, channels = events.shape
    cell = np.empty(shots * layers * rows * columns, np.int64)
    place = np.empty_like(cell)
    n = 0
    for b in range(shots):
        for t in range(layers):
            for y in range(rows):
                for x in range(columns):
                    bits = 0
                    active = False
                    for c in range(channels):
                        if events[b, t, y, x, c]:
                            bits |= 1 << c
                            active |= features[c]
                    at = (b, t + margin, y + margin, x + margin)
                    seen[at] = bits
                    if active:
                        number[at] = n
                        cell[n] = (t * rows + y) * columns + x
                        place[n] = (
                            (b * seen.shape[1] + at[1]) * seen.shape[2] + at[2]
                        ) * seen.shape[3] + at[3]
                        n += 1
    return cell[:n].copy(), place[:n].copy()


@compiled
def neighbours(
    seen: np.ndarray, number: np.ndarray, cell: np.ndarray, place: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What each cell with features reads: events around it, and other such cells around it.

    Args:
        seen, number: flattened, as ``active_cells`` fills them.
        cell, place: int64 (n,), as it returns them.
        step: int64 (k^3,), how far each tap leads.

    Returns:
        int32 (m,), in order of the cells: 16 tap + events for each cell around it that holds some,
        itself included, and 16 k^3 + cell for where it is; int32 (n,), where those of each begin;
        int64 (P,) the cells with features that are read, int64 (P,) by which tap, both in order of
        the cells that read; int64 (n + 1,), where those of each begin.
    """
    n, taps = len(place), len(step)
    begin, start = np.empty(n, np.int32), np.empty(n + 1, np.int64)
    found = np.empty(n * (taps + 1) + 1, np.int32)
    source = np.empty(n * taps + 1, np.int64)
    tap = np.empty_like(source)
    m = pairs = 0
    for i in range(n):
        begin[i], start[i] = m, pairs
        for k in range(taps):
            events = seen[place[i] + step[k]]
            found[m] = 16 * k + events  # overwritten unless there are some: faster than a branch
            m += events > 0
        for other in range(begin[i], m):
            k = found[other] // 16
            j = number[place[i] + step[k]]
            source[pairs], tap[pairs] = j, k
            pairs += (j >= 0) & (k != taps // 2)
        found[m] = 16 * taps + cell[i]
        m += 1
    start[n] = pairs
    return found[:m].copy(), begin, source[:pairs].copy(), tap[:pairs].copy(), start


@compiled
def channel_by_channel(
    x: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    start: np.ndarray,
    taps: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """(n, channels): a depthwise convolution over neighbours, and of each with itself.

    Args:
        x: float32 or float64 (n, channels); taps and bias likewise.
        source, tap, start: as from ``neighbours``.
        taps: (k^3, channels).
        bias: (channels,).
    """
    n, channels = x.shape
    middle = len(taps) // 2
    out = np.empty_like(x)
    for i in range(n):
        for c in range(channels):
            out[i, c] = bias[c] + x[i, c] * taps[middle, c]
        for pair in range(start[i], start[i + 1]):
            j, k = source[pair], tap[pair]
            for c in range(channels):
                out[i, c] += x[j, c] * taps[k, c]
    return out


@compiled
def tap_gradients(
    x: np.ndarray,
    grad: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    start: np.ndarray,
    taps: int,
) -> np.ndarray:
    """float32 (k^3, channels), of ``channel_by_channel``; grad: float32 (n, channels)."""
    n, channels = x.shape
    out = np.zeros((taps, channels), np.float32)
    for i in range(n):
        for c in range(channels):
            out[taps // 2, c] += x[i, c] * grad[i, c]
        for pair in range(start[i], start[i + 1]):
            j, k = source[pair], tap[pair]
            for c in range(channels):
                out[k, c] += x[j, c] * grad[i, c]
    return out


@compiled
def rows(row: np.ndarray, count: int) -> np.ndarray:
    """(count, channels), each the ``row``; numpy takes five times as long."""
    out = np.empty((count, len(row)), row.dtype)
    for i in range(count):
        for c in range(len(row)):
            out[i, c] = row[c]
    return out


@compiled
def scatter(
    terms: np.ndarray, place: np.ndarray, step: np.ndarray, channel: np.ndarray, out: np.ndarray
) -> None:
    """Adds what each cell tells those from which a tap leads to it.

    Args:
        terms: float32 or float64 (n, m).
        place: as for ``neighbours``.
        step: int64 (m,), how far the tap of each term leads.
        channel: int64 (m,), where each goes.
        out: (places, channels) of that dtype, to which it is added.
    """
    for i in range(len(terms)):
        for k in range(len(step)):
            out[place[i] - step[k], channel[k]] += terms[i, k]


@compiled
def gather(
    grad: np.ndarray, place: np.ndarray, step: np.ndarray, channel: np.ndarray
) -> np.ndarray:
    """float32 (n, m): the gradient of ``terms`` in ``scatter``, where ``grad`` is that of out."""
    terms = np.empty((len(place), len(step)), np.float32)
    for i in range(len(place)):
        for k in range(len(step)):
            terms[i, k] = grad[place[i] - step[k], channel[k]]
    return terms


@compiled
def _flip(shot: np.ndarray, ends: np.ndarray) -> None:
    """The events at both ends of an edge; one past the last detector is none."""
    for end in ends:
        if end < len(shot):
            shot[end] ^= 1


@compiled
def left_after(
    detectors: np.ndarray,
    told: np.ndarray,
    cut: float,
    margin: float,
    place: np.ndarray,
    ends: np.ndarray,
    flips: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Residuals, as ``qec.predecoder.residual.Residual`` tells them.

    Args:
        detectors: uint8 (B, num_detectors).
        told: (B, places), log-odds of any floating dtype.
        cut: committed are the edges above it.
        margin: how far from the cut an edge is close to it.
        place: int64 (n,), where the edges stand.
        ends: int64 (n, 2), the detectors that each flips; num_detectors stands for none.
        flips: uint8 (n,), whether it flips the observable.

    Returns:
        uint8 (B, num_detectors), uint8 (B,), bool (B,): whether any edge is close to the cut.
    """
    shots = len(detectors)
    left = detectors.copy()
    logical = np.zeros(shots, np.uint8)
    close = np.zeros(shots, np.bool_)
    for b in range(shots):
        for e in range(len(place)):
            above = told[b, place[e]] - cut
            if above > -margin:
                close[b] |= abs(above) < margin
                if above > 0:
                    logical[b] ^= flips[e]
                    _flip(left[b], ends[e])
    return left, logical, close


@compiled
def left_after_terms(
    detectors: np.ndarray,
    cell: np.ndarray,
    start: np.ndarray,
    terms: np.ndarray,
    readers: np.ndarray,
    before: np.ndarray,
    cut: float,
    margin: float,
    ends: np.ndarray,
    flips: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As ``left_after``, of log-odds that are still to be added up.

    Args:
        cell, start, terms: as of ``qec.predecoder.sparse_network.Terms``.
        readers: int64 (cells, m), the edge that each term of a cell is for; -1: none.
        before: (n,), log-odds of each edge without terms.
    """
    shots = len(detectors)
    left = detectors.copy()
    logical = np.zeros(shots, np.uint8)
    close = np.zeros(shots, np.bool_)
    always = np.flatnonzero(before - cut > -margin)
    told = before.copy()
    added = np.zeros(len(before), np.bool_)
    touched = np.empty(len(before), np.int64)
    for b in range(shots):
        count = 0
        for e in always:
            added[e] = True
            touched[count] = e
            count += 1
        for i in range(start[b], start[b + 1]):
            for k in range(terms.shape[1]):
                e = readers[cell[i], k]
                if e >= 0:
                    if not added[e]:
                        added[e] = True
                        touched[count] = e
                        count += 1
                    told[e] += terms[i, k]
        for t in range(count):
            e = touched[t]
            above = told[e] - cut
            close[b] |= abs(above) < margin
            if above > 0:
                logical[b] ^= flips[e]
                _flip(left[b], ends[e])
            told[e] = before[e]
            added[e] = False
    return left, logical, close
