"""Which detectors are how near to which, in nats along the edges of a matching graph."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse import csgraph

from qec.support.compiled_loops import compiled


class Neighbourhoods(NamedTuple):
    """For each detector those around it, nearest first: whose, and how many nats away."""

    start: np.ndarray  # int64 (n + 1,)
    who: np.ndarray  # int32
    away: np.ndarray  # float32


def balls_of(
    n: int, u: np.ndarray, v: np.ndarray, weight: np.ndarray, reach: float
) -> Neighbourhoods:
    """The balls of radius ``reach`` around n detectors.

    Args:
        n: number of detectors.
        u, v: int64, the ends of each edge; v = -1 is a boundary, which ends paths.
        weight: float64, of each edge, in nats, not negative.
        reach: nats.
    """
    inner = v >= 0
    ends = np.stack([u, v])[:, inner]
    ends = np.concatenate([ends, ends[::-1]], axis=1)
    joined = scipy.sparse.coo_array((np.tile(weight[inner], 2), tuple(ends)), shape=(n, n)).tocsr()
    csr = joined.indptr.astype(np.int64), joined.indices.astype(np.int64)
    return Neighbourhoods(*_balls(*csr, joined.data.astype(np.float32), np.float32(reach)))


def to_boundary(
    n: int, u: np.ndarray, v: np.ndarray, weight: np.ndarray, kept: np.ndarray
) -> np.ndarray:
    """float64 (n,), nats to the boundary by the edges that are kept."""
    ends = u[kept], np.where(v < 0, n, v)[kept]
    # Zero weights would count as no edges.
    data = np.maximum(weight[kept], 1e-9)
    graph = scipy.sparse.coo_array((data, ends), shape=(n + 1, n + 1)).tocsr()
    return csgraph.dijkstra(graph, directed=False, indices=n)[:n]


@compiled
def push(heap_key: np.ndarray, heap_node: np.ndarray, size: int, key: np.float32, node: int) -> int:
    """Puts a node on a binary heap of ``size``; returns its new size.

    Keys are float32 (room,) and nodes int64 (room,), of which the first ``size`` are used.
    """
    k = size
    while k > 0 and heap_key[(k - 1) >> 1] > key:
        heap_key[k], heap_node[k] = heap_key[(k - 1) >> 1], heap_node[(k - 1) >> 1]
        k = (k - 1) >> 1
    heap_key[k], heap_node[k] = key, node
    return size + 1


@compiled
def pop(heap_key: np.ndarray, heap_node: np.ndarray, size: int) -> int:
    """Takes the first node off a heap, of which the caller has noted it; returns the new size.

    Arrays are as of ``push``.
    """
    size -= 1
    key, node = heap_key[size], heap_node[size]
    k = 0
    while True:
        child = 2 * k + 1
        if child >= size:
            break
        if child + 1 < size and heap_key[child + 1] < heap_key[child]:
            child += 1
        if heap_key[child] >= key:
            break
        heap_key[k], heap_node[k] = heap_key[child], heap_node[child]
        k = child
    heap_key[k], heap_node[k] = key, node
    return size


@compiled
def _balls(
    indptr: np.ndarray, neighbour: np.ndarray, weight: np.ndarray, reach: np.float32
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each detector those less than ``reach`` nats away, nearest first.

    Returns:
        int64 (n + 1,), where in the next two those of each detector begin; int32, detectors;
        float32, nats to them.
    """
    n = len(indptr) - 1
    start = np.zeros(n + 1, np.int64)
    who, away = np.empty(64 * n, np.int32), np.empty(64 * n, np.float32)
    distance = np.full(n, np.float32(np.inf))
    touched = np.empty(n, np.int64)
    size = len(weight) + n + 1
    key, node = np.empty(size, np.float32), np.empty(size, np.int64)
    filled = 0
    for source in range(n):
        if filled + n > len(who):
            who, away = np.append(who, who), np.append(away, away)
        distance[source] = 0
        touched[0], count = source, 1
        size = push(key, node, 0, np.float32(0), source)
        while size > 0:
            here, u = key[0], node[0]
            size = pop(key, node, size)
            if here > distance[u]:
                continue
            if u != source:
                who[filled], away[filled] = u, here
                filled += 1
            for q in range(indptr[u], indptr[u + 1]):
                v, there = neighbour[q], here + weight[q]
                if there < reach and there < distance[v]:
                    if distance[v] == np.inf:
                        touched[count] = v
                        count += 1
                    distance[v] = there
                    size = push(key, node, size, there, v)
        for k in range(count):
            distance[touched[k]] = np.inf
        start[source + 1] = filled
    return start, who[:filled].copy(), away[:filled].copy()
