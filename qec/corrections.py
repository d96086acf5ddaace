"""Corrections as sets of edges of the matching graph, and what they weigh in both bases together.

Matching weighs each basis by itself.  But a Y error, say, flips an edge of the memory checks and
one of the others, and is far likelier than two errors that do so apart.  So the *joint weight* of
a correction is the weight of its edges, each flipped alone, less what is saved by pairs of them
that one mechanism flips together: the most that disjoint pairs save, found greedily.  It is, up to
that and to edges that several mechanisms flip, -ln of the probability of the likeliest error.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import stim

from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher
from qec.pieces import Pieces
from qec.runs import place_in_run

_RARE = 1e-3  # part of an edge's probability that it has alone, where no mechanism flips it alone
_HIGHEST = 0.49  # for perturbed ones: PyMatching's correlations refuse probabilities above 1/2


class Weighed(NamedTuple):
    """Corrections of B shots, edge by edge.

    Attributes:
        place: int64 (k,), rising: shot * E + edge, of all their edges.
        share: float64 (k,), each edge's part of the joint weight, in nats.
        pairs: int64 (2, m), places of edges that one mechanism flips together.
        total: float64 (B,), the joint weights.
    """

    place: np.ndarray
    share: np.ndarray
    pairs: np.ndarray
    total: np.ndarray


class EdgeModel:
    """The E edges of a basis-split error model, and pairs of them that one mechanism flips.

    Mechanisms that flip more than two edges (no CSS circuit has them) count as edges flipped alone.

    Attributes:
        num_detectors: n.
        num_mechanisms: of the error model.
        ends: int64 (E, 2), ascending detectors; n is the boundary.
        flips: uint8 (E,), whether an edge flips observable 0.

    Raises:
        QecError: as ``qec.matching.basis_split``.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        pieces = Pieces.of(lattice)
        self.num_detectors, self.num_mechanisms = lattice.num_detectors, len(pieces.probability)
        self._silent = lattice.silent
        self._probability, self._mechanism = pieces.probability, pieces.mechanism
        ends = np.where(pieces.ends < 0, self.num_detectors, pieces.ends)
        self.ends, edge = np.unique(np.sort(ends, axis=1), axis=0, return_inverse=True)
        self._edge = edge.ravel()
        # Where mechanisms differ about it, that of the first: ``basis_split`` has it the likeliest.
        first = np.unique(self._edge, return_index=True)[1]
        self.flips = pieces.flips[first].astype(np.uint8)
        self._set_weights()
        self._text = self._lines()

    def _set_weights(self) -> None:
        """What an edge weighs, and a table, edge by edge, of what its pairs save."""
        num = len(self.ends)
        # Mechanisms are independent: their x = -ln(1 - 2 p) / 2 add up.
        x = -np.log1p(-2 * np.clip(self._probability, 1e-30, _HIGHEST))[self._mechanism] / 2
        size = np.bincount(self._mechanism, minlength=self.num_mechanisms)[self._mechanism]
        alone = np.bincount(self._edge[size != 2], x[size != 2], num)
        alone = np.where(alone > 0, alone, _RARE * np.bincount(self._edge, x, num))
        self._weight = _log_odds(alone)
        first = np.flatnonzero(size == 2)[::2]
        both = np.sort(self._edge[[first, first + 1]], axis=0)
        pair, which = np.unique(both, axis=1, return_inverse=True)
        saved = self._weight[pair].sum(axis=0)
        saved -= _log_odds(np.bincount(which.ravel(), x[first], pair.shape[1]))
        saved -= 1e-9 * np.arange(len(saved))  # no two alike: an edge has one best partner
        pair, saved = pair[:, saved > 0], saved[saved > 0]
        here, there = np.concatenate([pair, pair[::-1]], axis=1)
        order = np.argsort(here, kind="stable")
        self._partner, self._saved = there[order], np.tile(saved, 2)[order]
        self._degree = np.bincount(here, minlength=num)
        self._start = np.cumsum(self._degree) - self._degree

    def _lines(self) -> list[str]:
        """What stands behind each probability in the model's text; each edge is an observable."""
        pieces = [
            f"D{a} L{k}" if b == self.num_detectors else f"D{a} D{b} L{k}"
            for k, (a, b) in enumerate(self.ends.tolist())
        ]
        lines: list[list[str]] = [[] for _ in range(self.num_mechanisms)]
        for mechanism, edge in zip(self._mechanism.tolist(), self._edge.tolist(), strict=True):
            lines[mechanism].append(pieces[edge])
        return [" ^ ".join(line) for line in lines]

    def matcher(self, factor: np.ndarray | float = 1.0) -> Matcher:
        """Correlated matching that tells which edges it chose: ``decode_all`` gives uint8 (B, E).

        Args:
            factor: float64 (num_mechanisms,) or a number, on the probabilities.
        """
        probability = np.minimum(self._probability * factor, _HIGHEST).tolist()
        text = "".join(
            f"error({p!r}) {line}\n"
            for p, line in zip(probability, self._text, strict=True)
            if line
        )
        text += f"detector D{self.num_detectors - 1}\nlogical_observable L{len(self.ends) - 1}"
        return Matcher(stim.DetectorErrorModel(text), correlated=True, silent=self._silent)

    def weigh(self, corrections: np.ndarray) -> Weighed:
        """bool (B, E), the edges of B corrections -> what they weigh."""
        shots, num = corrections.shape
        place = np.flatnonzero(corrections)
        shot, edge = np.divmod(place, num)
        # Each edge with each of its possible partners, of which those are kept that are there.
        here = np.repeat(np.arange(len(place)), self._degree[edge])
        entry = self._start[edge[here]] + place_in_run(self._degree[edge])
        other = place[here] - edge[here] + self._partner[entry]
        there = corrections.ravel()[other]
        here, other, saved = here[there], other[there], self._saved[entry[there]]
        best = np.zeros(len(place))
        np.maximum.at(best, here, saved)
        mutual = (saved == best[here]) & (saved == best[np.searchsorted(place, other)])
        here, other, saved = here[mutual], other[mutual], saved[mutual]
        share = self._weight[edge]
        share[here] -= saved / 2
        pairs = np.stack([place[here], other])
        return Weighed(place, share, pairs, np.bincount(shot, share, shots))


def _log_odds(x: np.ndarray) -> np.ndarray:
    """ln((1 - p) / p) of p = (1 - exp(-2 x)) / 2."""
    return -np.log(np.tanh(x))
