"""Corrections as sets of edges of the matching graph, and what they weigh in both bases together.

Matching weighs each basis by itself.  But a Y error, say, flips an edge of the memory checks and
one of the others, and is far likelier than two errors that do so apart.  So the *joint weight* of
a correction is the weight of its edges, each flipped alone, less what is saved by pairs of them
that one mechanism flips together: the most that disjoint pairs save, found greedily.  It is, up to
that and to edges that several mechanisms flip, -ln of the probability of the likeliest error.

Worked example: an X error flips detectors a and b, a Z error flips detector c, and a Y error flips
all three; each has p = 0.01, or ln(0.99 / 0.01) = 4.6 nats.  The edges (a, b) and (c, boundary)
weigh 4.6 nats alone.  As a pair they save 4.6 + 4.6 - 4.6 = 4.6 nats.  So a correction with both
edges weighs 4.6 nats, as one Y error does, where matching of each basis by itself counts 9.2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import stim

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.complementary_gap import boundaries
from qec.matching.matcher import Matcher
from qec.matching.matching_edges import MatchingEdges

_RARE = 1e-3  # part of an edge's probability that it has alone, where no mechanism flips it alone
_HIGHEST = 0.49  # for perturbed ones: PyMatching's correlations refuse probabilities above 1/2


class Weights(NamedTuple):
    """What edges weigh, in nats, and what is saved where two of them are flipped together.

    Attributes:
        alone: float64 (E,).
        start: int64 (E + 1,), where the pairs of an edge begin in the next two.
        partner: int64, the other edge of a pair.
        saved: float64, more than 0; no two pairs save the same.
    """

    alone: np.ndarray
    start: np.ndarray
    partner: np.ndarray
    saved: np.ndarray


class EdgeModel:
    """The E edges of a basis-split error model, and pairs of them that one mechanism flips.

    Mechanisms that flip more than two edges (no CSS circuit has them) count as edges flipped alone.

    Attributes:
        lattice: of the error model.
        num_detectors: n.
        num_mechanisms: of the error model.
        ends: int64 (E, 2), ascending detectors; n is the boundary.
        flips: uint8 (E,), whether an edge flips observable 0.
        weights: of the edges and of pairs of them.

    Raises:
        QecError: as ``qec.matching.matcher.basis_split``.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        pieces = MatchingEdges.of(lattice)
        self.num_detectors, self.num_mechanisms = lattice.num_detectors, len(pieces.probability)
        self.lattice = lattice
        self._probability, self._mechanism = pieces.probability, pieces.mechanism
        ends = np.where(pieces.ends < 0, self.num_detectors, pieces.ends)
        self.ends, edge = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
        self._edge = edge.ravel()
        # Where mechanisms differ about it, that of the first: ``basis_split`` has it the likeliest.
        first = np.unique(self._edge, return_index=True)[1]
        self.flips = pieces.flips[first].astype(np.uint8)
        self.weights = self._weights()

    def _weights(self) -> Weights:
        """What an edge weighs, and a table, edge by edge, of what its pairs save."""
        num = len(self.ends)
        # Mechanisms are independent: their x = -ln(1 - 2 p) / 2 add up.
        x = -np.log1p(-2 * np.clip(self._probability, 1e-30, _HIGHEST))[self._mechanism] / 2
        size = np.bincount(self._mechanism, minlength=self.num_mechanisms)[self._mechanism]
        alone = np.bincount(self._edge[size != 2], x[size != 2], num)
        alone = np.where(alone > 0, alone, _RARE * np.bincount(self._edge, x, num))
        weight = _log_odds(alone)
        first = np.flatnonzero(size == 2)[::2]
        both = np.sort(self._edge[[first, first + 1]], axis=0)
        pair, which = np.unique(both, axis=1, return_inverse=True)
        saved = weight[pair].sum(axis=0)
        saved -= _log_odds(np.bincount(which.ravel(), x[first], pair.shape[1]))
        saved -= 1e-9 * np.arange(len(saved))  # no two alike: an edge has one best partner
        pair, saved = pair[:, saved > 0], saved[saved > 0]
        here, there = np.concatenate([pair, pair[::-1]], axis=1)
        order = np.argsort(here, kind="stable")
        start = np.searchsorted(here[order], np.arange(num + 1))
        return Weights(weight, start, there[order], np.tile(saved, 2)[order])

    def _model(self, factor: np.ndarray | float, second: np.ndarray) -> str:
        """The text of the model; each edge is an observable.

        Args:
            factor: float64 (num_mechanisms,) or a number, on the probabilities.
            second: int64 (E,), the other end of each edge, a detector; -1 is the boundary.
        """
        edges = [
            f"D{a} L{k}" if b < 0 else f"D{a} D{b} L{k}"
            for k, (a, b) in enumerate(zip(self.ends[:, 0].tolist(), second.tolist(), strict=True))
        ]
        lines: list[list[str]] = [[] for _ in range(self.num_mechanisms)]
        for mechanism, edge in zip(self._mechanism.tolist(), self._edge.tolist(), strict=True):
            lines[mechanism].append(edges[edge])
        probability = np.minimum(self._probability * factor, _HIGHEST).tolist()
        text = "".join(
            f"error({p!r}) {' ^ '.join(line)}\n"
            for p, line in zip(probability, lines, strict=True)
            if line
        )
        last = max(self.num_detectors - 1, int(second.max()))
        return f"{text}detector D{last}\nlogical_observable L{len(self.ends) - 1}\n"

    def matcher(self, factor: np.ndarray | float = 1.0) -> Matcher:
        """Correlated matching that tells which edges it chose: ``decode_all`` gives uint8 (B, E).

        Args:
            factor: float64 (num_mechanisms,) or a number, on the probabilities.
        """
        second = np.where(self.ends[:, 1] == self.num_detectors, -1, self.ends[:, 1])
        dem = stim.DetectorErrorModel(self._model(factor, second))
        return Matcher(dem, correlated=True, silent=self.lattice.silent)

    def matcher_of_classes(self) -> ClassMatcher:
        """Correlated matching of either logical class.

        Raises:
            QecError: as ``qec.matching.complementary_gap.boundaries``.
        """
        return ClassMatcher(self)


class ClassMatcher:
    """Correlated matching that has to flip the observable, or must not.

    As in ``qec.matching.complementary_gap``, one boundary of the memory sector becomes detectors.

    Args:
        model: its edges.
    """

    def __init__(self, model: EdgeModel) -> None:
        n, lattice = model.num_detectors, model.lattice
        first, second = model.ends.T
        place = np.full(n + 1, -1)
        place[lattice.memory_detectors] = np.arange(len(lattice.memory_detectors))
        memory = np.flatnonzero(place[first] >= 0)
        ends = place[first[memory]], place[second[memory]]
        flips = model.flips[memory].view(np.bool_)
        side, far = boundaries(len(lattice.memory_detectors), *ends, flips)
        self._side = lattice.memory_detectors[side]
        second = np.where(second == n, -1, second)
        second[memory[far]] = n + lattice.layer[first[memory[far]]]
        text = model._model(1.0, second)
        text += "".join(f"error(0.5) D{n + k} D{n + k + 1}\n" for k in range(lattice.rounds))
        dem = stim.DetectorErrorModel(text)
        self._matcher = Matcher(dem, correlated=True, silent=lattice.silent)
        self._width = n + lattice.rounds + 1

    def decode_all(self, detectors: np.ndarray, logical: int) -> np.ndarray:
        """uint8 (B, num_detectors), a logical class -> uint8 (B, E), the edges chosen."""
        shots, n = detectors.shape
        events = np.zeros((shots, self._width), dtype=np.uint8)
        events[:, :n] = detectors
        events[:, n] = (detectors[:, self._side].sum(axis=1) & 1) ^ logical
        return self._matcher.decode_all(events)

    def decode_both(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> bool (2, B, E), the edges chosen for either class."""
        return np.stack([self.decode_all(detectors, c) for c in (0, 1)]).view(np.bool_)


def _log_odds(x: np.ndarray) -> np.ndarray:
    """ln((1 - p) / p) of p = (1 - exp(-2 x)) / 2."""
    return -np.log(np.tanh(x))
