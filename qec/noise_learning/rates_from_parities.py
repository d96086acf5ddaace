"""From parities to an unbiased rate for every error mechanism, with its variance.

c(S), the x of all mechanisms that flip all of S, follows from the parities of the subsets of S (see
``parities``).  Going from the largest sets to the smallest, what contains a mechanism is taken off:
x_e = c(S_e) - sum of x_f over the mechanisms f that flip all of S_e and more.  Hyperedges are thus
estimated like edges, each from the coincidences of all its detectors.

Worked example: three mechanisms flip detector a (x = 0.03), a and b (0.02), and a, b and c (0.01).
A parity tells m_S = -ln E_S, the x of all mechanisms that flip S an odd number of times:

    m_a = 0.06   m_b = 0.03   m_c = 0.01   m_ab = 0.03   m_ac = 0.05   m_bc = 0.02   m_abc = 0.04

    c(abc) = (m_a + m_b + m_c - m_ab - m_ac - m_bc + m_abc) / 4 = 0.01, the x of the largest
    c(ab) = (m_a + m_b - m_ab) / 2 = 0.03, of which 0.01 is the largest's: x = 0.02
    c(a) = m_a = 0.06, of which 0.01 and 0.02 are the others': x = 0.03
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array, diags_array

from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.parities import ParityAccumulator, SubsetFamily

LARGEST_SET = 6
"""Mechanisms with more detectors have too many subsets, and events too rare, to be learned."""

_SMALLEST_PARITY = 0.02  # of a set of detectors; below, its logarithm is noise


class RatesFromParities:
    """The linear map from -ln E_S to the mechanisms' rates, for one structure.

    Attributes:
        structure: whose mechanisms it is about.
        family: the detector sets whose parities it needs.
        learnable: bool (m,), mechanisms of at most ``LARGEST_SET`` detectors.
    """

    def __init__(self, structure: ErrorStructure) -> None:
        self.structure = structure
        self.learnable = structure.size <= LARGEST_SET
        self._groups = list(self._by_size())
        self.family = SubsetFamily.closure([g for _, g in self._groups], structure.num_detectors)

    def _by_size(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """For each size the mechanisms, and their detectors (n, size), ascending."""
        sets = self.structure.sets
        for k in np.unique(self.structure.size[self.learnable]):
            which = np.flatnonzero(self.structure.size == k)
            members = sets.indices[sets.indptr[which][:, None] + np.arange(k)]
            yield which, np.sort(members, axis=1).astype(np.int64)

    def accumulator(self) -> ParityAccumulator:
        """An empty accumulator of the parities that ``rates`` needs."""
        return ParityAccumulator(self.family)

    @functools.cached_property
    def containment(self) -> csr_array:
        """A with c = A x: float64 (m, m), 1 where the column's mechanism flips all of the row's."""
        sets = self.structure.sets.astype(np.float64)
        common = (sets @ sets.T).tocoo()
        kept = common.data == self.structure.size[common.row]
        where = (common.row[kept], common.col[kept])
        return csr_array((np.ones(int(kept.sum())), where), shape=common.shape)

    @functools.cached_property
    def _without_supersets(self) -> csr_array:
        """The inverse of ``containment``: I - U + U^2 - ..., U being nilpotent."""
        m = self.structure.num_mechanisms
        strict = (self.containment - diags_array(np.ones(m))).tocsr()
        strict.eliminate_zeros()
        inverse = term = diags_array(np.ones(m)).tocsr()
        while term.nnz:
            term = -(strict @ term)
            term.eliminate_zeros()
            inverse = inverse + term
        return inverse.tocsr()

    @functools.cached_property
    def from_moments(self) -> csr_array:
        """L with x = L m, float64 (m, sets), m_S = -ln E_S; rows of what is not learnable are 0."""
        containment = self.family.containment([g for _, g in self._groups])
        order = np.concatenate([which for which, _ in self._groups])
        shape = (self.structure.num_mechanisms, len(order))
        place = csr_array((np.ones(len(order)), (order, np.arange(len(order)))), shape=shape)
        return (self._without_supersets @ place @ containment).tocsr()

    def rates(self, moments: ParityAccumulator) -> tuple[np.ndarray, np.ndarray]:
        """Unbiased x of every mechanism, which may be negative, and whether the data tell.

        Returns:
            float64 (m,) and bool (m,): False where a parity that the rate needs is not positive
            (a detector that fires half of the time or more).
        """
        parity = moments.parities()
        positive = parity > _SMALLEST_PARITY
        blocked = abs(self.from_moments) @ (~positive).astype(np.float64) > 0
        x = self.from_moments @ -np.log(np.maximum(parity, _SMALLEST_PARITY))
        return x, self.learnable & ~blocked

    def variance(self, x: np.ndarray, shots: float, deviations: np.ndarray | None) -> np.ndarray:
        """Variance of ``rates`` if the mechanisms have the rates ``x``; float64 (m,), positive.

        To leading order the estimates are independent Poisson counts, variance 2 x / N, to which
        accidental coincidences add 4 / N times the probability that several mechanisms together
        fire all of a set.  What that leaves out (correlations of the accidental coincidences) is
        calibrated: blocks of the shots give an empirical variance, and the mean ratio of the two
        over all mechanisms of a size corrects the formula.

        Args:
            x: float64 (m,).
            shots: effective number of shots.
            deviations: float64 (blocks, m), as from ``block_deviations``; None: too few shots.
        """
        formula = 4 / shots * (np.maximum(x, 0) / 2 + self.containment @ self._accidental(x))
        formula = np.maximum(formula, 1 / shots**2)
        if deviations is None:
            return formula
        empirical = (deviations**2).sum(axis=0)
        for size in np.unique(self.structure.size):
            same = (self.structure.size == size) & self.learnable
            if same.any():
                formula[same] *= np.clip(empirical[same].sum() / formula[same].sum(), 0.3, 3)
        return formula

    def _accidental(self, x: np.ndarray) -> np.ndarray:
        """Probability that two or more mechanisms fire all detectors of each mechanism's set."""
        cumulant = self._contained_in_sets @ np.maximum(x, 0) / 2
        probability = np.zeros(len(x))
        for which, members in self._groups:
            for blocks in _partitions(list(range(members.shape[1]))):
                if len(blocks) > 1:
                    found = [cumulant[self.family.find(members[:, block])] for block in blocks]
                    probability[which] += np.prod(found, axis=0)
        return probability

    @functools.cached_property
    def _contained_in_sets(self) -> csr_array:
        """float64 (sets, m), 1 where the mechanism flips all of the family's set."""
        sets = self.family.as_sparse()
        common = (sets @ self.structure.sets.astype(np.float64).T).tocoo()
        kept = common.data == np.diff(sets.indptr)[common.row]
        where = (common.row[kept], common.col[kept])
        return csr_array((np.ones(int(kept.sum())), where), shape=common.shape)

    def block_deviations(self, moments: ParityAccumulator) -> np.ndarray | None:
        """How far single blocks of shots pull the rates; None with too few blocks.

        Returns:
            float64 (blocks, m), scaled so that the sum over blocks of the square of a linear
            combination of the m columns estimates the variance of that combination of the rates.
        """
        weights, odd = moments.blocks()
        if len(weights) < 8:
            return None
        parity = np.maximum(moments.parities(), _SMALLEST_PARITY)
        # Linear in the parities of a block: logarithms of so few shots would be biased.
        pull = (moments.parities() - 1 + 2 * odd / weights[:, None]) / parity * weights[:, None]
        scale = np.sqrt(len(weights) / (len(weights) - 1)) / weights.sum()
        return scale * (self.from_moments @ pull.T).T


def _partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """All ways to part a list into non-empty blocks."""
    if len(items) < 2:
        yield [items]
        return
    first, rest = items[0], items[1:]
    for smaller in _partitions(rest):
        for k, block in enumerate(smaller):
            yield [*smaller[:k], [first, *block], *smaller[k + 1 :]]
        yield [[first], *smaller]
