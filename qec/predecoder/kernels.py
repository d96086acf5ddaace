"""Loops over detection events, compiled: what has no fast form in arrays.

Shapes as in ``qec.predecoder.sparse``.  Places are in the flattened volume with a margin.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_compiled = njit(cache=True, nogil=True)


@_compiled
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


@_compiled
def pairs(
    number: np.ndarray, place: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbours with features of each cell, itself left out.

    Args:
        number: int32, flattened, as ``active_cells`` fills it.
        place: int64 (n,), as it returns it.
        step: int64 (k^3,), how far each tap leads.

    Returns:
        int64 (P,) the cells that are read, int64 (P,) by which tap, both in order of the cells that
        read, and int64 (n + 1,) where those of each begin.
    """
    n, middle = len(place), len(step) // 2
    start = np.empty(n + 1, np.int64)
    source = np.empty(n * (len(step) - 1) + 1, np.int64)
    tap = np.empty_like(source)
    found = 0
    for i in range(n):
        start[i] = found
        for k in range(len(step)):
            j = number[place[i] + step[k]]
            source[found] = j  # overwritten unless there is such a cell: faster than a branch
            tap[found] = k
            found += j >= 0 and k != middle
    start[n] = found
    return source[:found].copy(), tap[:found].copy(), start


@_compiled
def stem_inputs(
    seen: np.ndarray, cell: np.ndarray, place: np.ndarray, step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the first convolution adds up in each cell: by event around it, and by where it is.

    Args:
        seen: uint8, flattened, as ``active_cells`` fills it.
        cell, place, step: as for ``pairs``.

    Returns:
        int64 (m,), in order of the cells: tap * 4 + channel of each event, and k^3 * 4 + cell; and
        int64 (n,), where those of each begin.
    """
    n = len(place)
    start = np.empty(n, np.int64)
    found = np.empty(n * (len(step) * 4 + 1) + 1, np.int32)
    m = 0
    for i in range(n):
        start[i] = m
        for k in range(len(step)):
            bits = seen[place[i] + step[k]]
            if bits:
                for c in range(4):
                    found[m] = 4 * k + c  # overwritten unless there is such an event
                    m += (bits >> c) & 1
        found[m] = 4 * len(step) + cell[i]
        m += 1
    return found[:m].astype(np.int64), start


@_compiled
def channel_by_channel(
    x: np.ndarray,
    source: np.ndarray,
    tap: np.ndarray,
    start: np.ndarray,
    taps: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:
    """float32 (n, channels): a depthwise convolution over ``pairs``, and of each with itself.

    Args:
        x: float32 (n, channels).
        source, tap, start: as from ``pairs``.
        taps: float32 (k^3, channels).
        bias: float32 (channels,).
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


@_compiled
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


@_compiled
def rows(row: np.ndarray, count: int) -> np.ndarray:
    """float32 (count, channels), each the ``row``; numpy takes five times as long."""
    out = np.empty((count, len(row)), np.float32)
    for i in range(count):
        for c in range(len(row)):
            out[i, c] = row[c]
    return out


@_compiled
def scatter(
    terms: np.ndarray, place: np.ndarray, step: np.ndarray, channels: np.ndarray, out: np.ndarray
) -> None:
    """Adds what each cell tells those from which a tap leads to it.

    Args:
        terms: float32 (n, k^3, outputs).
        place, step: as for ``pairs``.
        channels: int64 (outputs,), where each goes.
        out: float32 (places, channels in all), to which it is added.
    """
    n, taps, outputs = terms.shape
    for i in range(n):
        for k in range(taps):
            at = place[i] - step[k]
            for c in range(outputs):
                out[at, channels[c]] += terms[i, k, c]


@_compiled
def left_after(
    detectors: np.ndarray, committed: np.ndarray, flips: np.ndarray, logical: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The residual, as ``qec.predecoder.residual.Residual`` tells it.

    Args:
        detectors: uint8 (B, num_detectors).
        committed: bool (B, bits).
        flips: int64 (bits, k), the detectors that each bit flips; num_detectors stands for none.
        logical: uint8 (bits,).

    Returns:
        uint8 (B, num_detectors), uint8 (B,).
    """
    shots, width = detectors.shape
    left = detectors.copy()
    flipped = np.zeros(shots, np.uint8)
    for b in range(shots):
        for bit in range(committed.shape[1]):
            if committed[b, bit]:
                flipped[b] ^= logical[bit]
                for k in range(flips.shape[1]):
                    detector = flips[bit, k]
                    if detector < width:
                        left[b, detector] ^= 1
    return left, flipped
