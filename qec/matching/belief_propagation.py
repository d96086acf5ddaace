"""Belief propagation: what the error model alone says about each edge, given a shot's events.

It passes messages between the mechanisms of an error model and the detectors that they flip, those
of both bases (sum-product: Pearl, Probabilistic Reasoning in Intelligent Systems, 1988; as a first
stage before matching: Higgott et al., arXiv:2203.04948).  It needs no training and is right about
any error model that has few short loops.  A network that sees its result has the rest to learn.

Messages are odds and differences of probabilities, so that only the four basic operations and a
square root are needed: IEEE 754 fixes their results, which are the same on every CPU.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.matching.matching_edges import MatchingEdges
from qec.matching.memory_edges import MemoryEdges
from qec.support.compiled_loops import compiled
from qec.support.ragged_arrays import padded_rows, rows

_LANES = 32  # shots that are computed together
_LIKELIEST = 0.499  # probability
DAMPING = np.float32(0.3)  # share of the message before: without it messages swing on short loops
LEAST, MOST = np.float32(1e-7), np.float32(1e7)  # odds
SUREST = 0.99  # half a belief: 21 nats
NONE = np.float32(1e-5)  # least difference of probabilities that is divided by


@dataclasses.dataclass(frozen=True, eq=False)
class FactorGraph:
    """Which mechanisms flip which detectors: K pairs, in order of the mechanisms.

    Attributes:
        probability: float64 (M,), of each mechanism.
        mechanism, detector: int64 (K,).
    """

    probability: np.ndarray
    mechanism: np.ndarray
    detector: np.ndarray

    @classmethod
    def of(cls, pieces: MatchingEdges) -> FactorGraph:
        """Of all pieces; a detector that a mechanism flips twice is not flipped."""
        there = pieces.ends >= 0
        owner = np.broadcast_to(pieces.mechanism[:, None], there.shape)[there]
        pairs = np.stack([owner, pieces.ends[there]])
        pairs, count = np.unique(pairs, axis=1, return_counts=True)
        return cls(pieces.probability, *pairs[:, count % 2 == 1])

    def among(self, detectors: np.ndarray) -> FactorGraph:
        """What is left where there are some detectors only, which are numbered anew.

        Args:
            detectors: int64, ascending.
        """
        kept = np.isin(self.detector, detectors)
        number = np.searchsorted(detectors, self.detector[kept])
        return FactorGraph(self.probability, self.mechanism[kept], number)


class BeliefPropagation:
    """Detection events -> how much likelier, or less likely, they make each edge.

    Args:
        factors: mechanisms and detectors.
        edges: made of these mechanisms.
        chosen: int64 (E,), those of them that are asked for; None: all.
        num_detectors: how many there are.
        iterations: from events to edges; messages go one detector further in each.

    Attributes:
        odds, edge_odds: float32 (M,) and (E,), of mechanisms that flip a detector, and of edges.
        mechanism, detector: int64 (K,), the pairs that exchange messages, in order of the former.
        mechanism_start: uint64 (M + 1,), where the messages of each mechanism begin.
        detector_start, message: uint64, likewise of each detector, and which messages.
        edges: int64 (E, k), the mechanisms that flip each edge; M fills up.
    """

    def __init__(
        self,
        factors: FactorGraph,
        edges: MemoryEdges,
        chosen: np.ndarray | None,
        num_detectors: int,
        iterations: int,
    ) -> None:
        self.iterations = iterations
        chosen = np.arange(len(edges.ends)) if chosen is None else chosen
        there, mechanism = np.unique(factors.mechanism, return_inverse=True)
        count = len(there)
        self.odds = _odds(factors.probability[there])
        self.edge_odds = _odds(edges.probability[chosen])
        each = np.arange(len(mechanism), dtype=np.uint64)  # numba would look for negative indices
        self.mechanism_start = rows(mechanism, each, count)[0].astype(np.uint64)
        start, self.message = rows(factors.detector, each, num_detectors)
        self.detector_start = start.astype(np.uint64)
        self.mechanism, self.detector = mechanism, factors.detector
        number = np.full(len(edges.ends), -1)
        number[chosen] = np.arange(len(chosen))
        edge = number[edges.edge]
        kept = edge >= 0
        flipping = np.searchsorted(there, edges.mechanism[kept])
        # A mechanism too many, which never happens, fills up.
        self.edges = padded_rows(edge[kept], flipping, len(chosen), count)

    def __call__(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> belief in each edge, float32 (B, E), between -2 and 2.

        It is 2 tanh(x / 8), where the events change the log-odds of an edge by x nats.
        """
        shots, lanes = len(detectors), min(_LANES, max(len(detectors), 1))
        found = np.empty((shots, len(self.edges)), dtype=np.float32)
        messages = np.empty((2, len(self.message), lanes), dtype=np.float32)
        odds = np.zeros((len(self.odds) + 1, lanes), dtype=np.float32)
        belief = np.empty((len(self.edges), lanes), dtype=np.float32)
        sign = np.ones((detectors.shape[1], lanes), dtype=np.float32)
        graph = self.odds, self.mechanism_start, self.detector_start, self.message
        for start in range(0, shots, lanes):
            part = detectors[start : start + lanes]
            sign[:, : len(part)] = 1 - 2 * part.T.astype(np.float32)
            _propagate(sign, *graph, self.iterations, DAMPING, *messages, odds)
            _of_edges(odds, self.edges, self.edge_odds, belief)
            found[start : start + lanes] = belief[:, : len(part)].T
        return found


def _odds(probability: np.ndarray) -> np.ndarray:
    p = np.clip(probability, 1e-12, _LIKELIEST)
    return (p / (1 - p)).astype(np.float32)


@compiled
def _propagate(
    sign: np.ndarray,
    prior: np.ndarray,
    mechanism_start: np.ndarray,
    detector_start: np.ndarray,
    message: np.ndarray,
    iterations: int,
    damping: np.float32,
    told: np.ndarray,
    heard: np.ndarray,
    odds: np.ndarray,
) -> None:
    """All iterations; loops over lanes, which are shots, become vector instructions.

    Args:
        sign: (num_detectors, lanes), -1 where there is an event, else 1.
        prior: (M,), odds of each mechanism.
        mechanism_start: (M + 1,), where the messages of each begin.
        detector_start, message: likewise of each detector, and which messages.
        told, heard: (K, lanes), messages to detectors and from them.
        odds: (M or more, lanes), gets those of each mechanism.

    Worked example: mechanism a (p = 0.1) flips D0 and D1, b (p = 0.1) flips D1 and D2; D0 and D1
    fire.  Each mechanism tells its detectors 1 - 2 p = 0.8.  D0 knows no other cause of its event:
    rest = -0.8, the odds ratio (0.8 + 0.8) / (0.8 - 0.8) for a is infinite, which is cut off.  D1
    tells each that the other may be its cause: rest = -0.64, ratio 9.  D2 is silent: rest = 0.8,
    ratio 0 for b.  From then on a tells D1 -1, so that D1 needs no b: all odds are settled.
    """
    lanes = told.shape[1]
    one = np.float32(1)
    rest = np.empty(lanes, np.float32)
    for m in range(len(prior)):
        for k in range(mechanism_start[m], mechanism_start[m + 1]):
            to = told[k]
            for i in range(lanes):
                to[i] = (one - prior[m]) / (one + prior[m])
    for iteration in range(iterations):
        old = damping if iteration else np.float32(0)
        for c in range(len(sign)):
            seen = sign[c]
            for i in range(lanes):
                rest[i] = seen[i]
            for j in range(detector_start[c], detector_start[c + 1]):
                to = told[message[j]]
                for i in range(lanes):
                    rest[i] *= to[i]
            for j in range(detector_start[c], detector_start[c + 1]):
                to, back = told[message[j]], heard[message[j]]
                for i in range(lanes):
                    # The others' product e = rest / to; the odds ratio (1 - e) / (1 + e), or
                    # infinity, of which only the sign depends on how zero came about.
                    ratio = abs((to[i] - rest[i]) / (to[i] + rest[i]))
                    ratio = ratio if ratio > LEAST else LEAST
                    ratio = ratio if ratio < MOST else MOST
                    back[i] = ratio + old * (back[i] - ratio) if iteration else ratio
        for m in range(len(prior)):
            of = odds[m]
            for i in range(lanes):
                rest[i] = prior[m]
            for k in range(mechanism_start[m], mechanism_start[m + 1]):
                back = heard[k]
                for i in range(lanes):
                    rest[i] *= back[i]
            for i in range(lanes):
                of[i] = rest[i] if rest[i] < MOST else MOST
            for k in range(mechanism_start[m], mechanism_start[m + 1]):
                to, back = told[k], heard[k]
                for i in range(lanes):
                    # The others' odds o = rest / back; the difference (1 - o) / (1 + o).
                    difference = (back[i] - rest[i]) / (back[i] + rest[i])
                    to[i] = NONE if abs(difference) < NONE else difference


@compiled
def _of_edges(odds: np.ndarray, edges: np.ndarray, prior: np.ndarray, belief: np.ndarray) -> None:
    """What the odds of mechanisms say about edges, (E, lanes), as ``BeliefPropagation``."""
    lanes = odds.shape[1]
    one = np.float32(1)
    for e in range(len(edges)):
        out = belief[e]
        for i in range(lanes):
            out[i] = 0
        for k in range(edges.shape[1]):
            more = odds[edges[e, k]]
            for i in range(lanes):  # an odd number of two: p (1 - q) + q (1 - p)
                out[i] = (out[i] + more[i]) / (one + out[i] * more[i])
        for i in range(lanes):
            ratio = out[i] if out[i] > LEAST else LEAST
            ratio = ratio if ratio < MOST else MOST
            root = np.sqrt(np.sqrt(ratio / prior[e]))
            out[i] = np.float32(2) * (root - one) / (root + one)


def change_of_log_odds(belief: np.ndarray) -> np.ndarray:
    """float32 beliefs -> the x nats that they stand for, of the same shape; 21 at most."""
    return 8 * np.arctanh(np.clip(belief / 2, -SUREST, SUREST))
