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
import torch

from qec.compiled import compiled
from qec.pieces import Pieces
from qec.runs import place_in_run

_LANES = 32  # shots that are computed together
_LIKELIEST = 0.499  # probability
_DAMPING = np.float32(0.3)  # share of the message before: without it messages swing on short loops
_LEAST, _MOST = np.float32(1e-7), np.float32(1e7)  # odds
_NONE = np.float32(1e-5)  # least difference of probabilities that is divided by


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
    def of(cls, pieces: Pieces) -> FactorGraph:
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
        edges: int64 (E, k), the mechanisms that flip each edge; -1 fills up.
        prior: float64 (E,), probability of each edge.
        num_detectors: how many there are.
        iterations: from events to edges; messages go one detector further in each.
    """

    def __init__(
        self,
        factors: FactorGraph,
        edges: np.ndarray,
        prior: np.ndarray,
        num_detectors: int,
        iterations: int,
    ) -> None:
        self.iterations = iterations
        there, mechanism = np.unique(factors.mechanism, return_inverse=True)
        count = len(there)
        self._odds = _odds(factors.probability[there])
        self._edge_odds = _odds(prior)
        by_detector = np.argsort(factors.detector, kind="stable")
        unsigned = np.uint64  # numba would look for negative indices
        self._mechanism_start = _starts(mechanism, count).astype(unsigned)
        self._detector_start = _starts(factors.detector[by_detector], num_detectors)
        self._detector_start = self._detector_start.astype(unsigned)
        self._message = by_detector.astype(unsigned)
        # A mechanism too many never happens.
        self._edges = np.where(edges < 0, count, np.searchsorted(there, edges))
        self._mechanism, self._detector = mechanism, factors.detector
        self._tables: dict[torch.device, _Tables] = {}

    def __call__(self, detectors: torch.Tensor) -> torch.Tensor:
        """Belief in each edge, of which 4 times the inverse hyperbolic tangent adds to log-odds.

        Args:
            detectors: (B, num_detectors) of any dtype, 0 or 1.

        Returns:
            float32 (B, E) between -2 and 2: 2 tanh(x / 8), where the events change the log-odds of
            an edge by x.
        """
        if detectors.device.type == "cpu" and not torch.compiler.is_compiling():
            return torch.from_numpy(self._by_loops(detectors.to(torch.uint8).numpy()))
        return self.by_tensors(detectors)

    def _by_loops(self, detectors: np.ndarray) -> np.ndarray:
        shots, lanes = len(detectors), min(_LANES, max(len(detectors), 1))
        found = np.empty((shots, len(self._edges)), dtype=np.float32)
        messages = np.empty((2, len(self._message), lanes), dtype=np.float32)
        odds = np.zeros((len(self._odds) + 1, lanes), dtype=np.float32)
        belief = np.empty((len(self._edges), lanes), dtype=np.float32)
        sign = np.ones((detectors.shape[1], lanes), dtype=np.float32)
        graph = self._odds, self._mechanism_start, self._detector_start, self._message
        for start in range(0, shots, lanes):
            part = detectors[start : start + lanes]
            sign[:, : len(part)] = 1 - 2 * part.T.astype(np.float32)
            _propagate(sign, *graph, self.iterations, _DAMPING, *messages, odds)
            _of_edges(odds, self._edges, self._edge_odds, belief)
            found[start : start + lanes] = belief[:, : len(part)].T
        return found

    def tables(self, device: torch.device) -> _Tables:
        """What ``by_tensors`` reads there, made once; before a trace, which must not make it."""
        if device not in self._tables:
            self._tables[device] = _Tables.of(self, device)
        return self._tables[device]

    def by_tensors(self, detectors: torch.Tensor) -> torch.Tensor:
        """The same on any device, up to rounding."""
        of = self.tables(detectors.device)
        sign = 1 - 2 * detectors.float()
        told = of.difference.expand(detectors.shape[0], -1)  # not len(): as in CellGrid.pack_events
        damped = None
        for _ in range(self.iterations):
            rest = (sign * _product(told, of.at_detector)).index_select(1, of.detector)
            heard = ((told - rest) / (told + rest)).abs().clamp(float(_LEAST), float(_MOST))
            damped = heard if damped is None else torch.lerp(heard, damped, float(_DAMPING))
            odds = of.odds * _product(damped, of.at_mechanism)
            rest = odds.index_select(1, of.mechanism)
            told = (damped - rest) / (damped + rest)
            told = torch.where(told.abs() < _NONE, float(_NONE), told)
        odds = torch.nn.functional.pad(odds.clamp(max=float(_MOST)), (0, 1))
        edge = torch.zeros_like(of.edge_odds)
        for one in of.edges:  # an odd number of two: p (1 - q) + q (1 - p)
            more = odds.index_select(1, one)
            edge = (edge + more) / (1 + edge * more)
        root = (edge.clamp(float(_LEAST), float(_MOST)) / of.edge_odds).sqrt().sqrt()
        return 2 * (root - 1) / (root + 1)


@dataclasses.dataclass(frozen=True, eq=False)
class _Tables:
    """What ``BeliefPropagation.by_tensors`` needs, on a device; names as there."""

    odds: torch.Tensor  # (M,)
    difference: torch.Tensor  # (K,)
    mechanism: torch.Tensor  # (K,)
    detector: torch.Tensor  # (K,)
    at_mechanism: torch.Tensor  # (M, k), pairs; K fills up
    at_detector: torch.Tensor  # (num_detectors, k)
    edges: list[torch.Tensor]  # k times (E,)
    edge_odds: torch.Tensor  # (E,)

    @classmethod
    def of(cls, of: BeliefPropagation, device: torch.device) -> _Tables:
        odds = of._odds[of._mechanism]
        arrays = (
            *(of._odds, (1 - odds) / (1 + odds), of._mechanism, of._detector),
            _padded(of._mechanism_start, np.arange(len(of._message))),
            _padded(of._detector_start, of._message),
        )
        edges = [torch.from_numpy(column.copy()).to(device) for column in of._edges.T]
        tensors = (torch.from_numpy(array).to(device) for array in arrays)
        return cls(*tensors, edges, torch.from_numpy(of._edge_odds).to(device))


def _product(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """(B, K), int64 (n, k) -> (B, n), the products of what the rows name; K is 1."""
    padded = torch.nn.functional.pad(values, (0, 1), value=1.0)
    return padded.index_select(1, rows.flatten()).unflatten(1, rows.shape).prod(dim=2)


def _padded(start: np.ndarray, value: np.ndarray) -> np.ndarray:
    """int64 (n, k), the values from each start to the next; their number fills up."""
    count = np.diff(start.astype(np.int64))
    table = np.full((len(count), max(int(count.max(initial=0)), 1)), len(value))
    table[np.repeat(np.arange(len(count)), count), place_in_run(count)] = value
    return table


def _starts(owner: np.ndarray, count: int) -> np.ndarray:
    """int64 (count + 1,), where those of each owner begin; ``owner`` ascends."""
    return np.searchsorted(owner, np.arange(count + 1))


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
                    ratio = ratio if ratio > _LEAST else _LEAST
                    ratio = ratio if ratio < _MOST else _MOST
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
                of[i] = rest[i] if rest[i] < _MOST else _MOST
            for k in range(mechanism_start[m], mechanism_start[m + 1]):
                to, back = told[k], heard[k]
                for i in range(lanes):
                    # The others' odds o = rest / back; the difference (1 - o) / (1 + o).
                    difference = (back[i] - rest[i]) / (back[i] + rest[i])
                    to[i] = _NONE if abs(difference) < _NONE else difference


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
            ratio = out[i] if out[i] > _LEAST else _LEAST
            ratio = ratio if ratio < _MOST else _MOST
            root = np.sqrt(np.sqrt(ratio / prior[e]))
            out[i] = np.float32(2) * (root - one) / (root + one)
