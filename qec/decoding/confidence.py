"""How sure a decoder is of its predictions: the complementary gap, in nats.

Matching finds the likeliest correction.  By how much the best one of the other logical class is
less likely, -ln of the ratio, is the *complementary gap* or soft output: what post-selection,
concatenated codes and switching between decoders ask for (Gidney, Newman, Brooks and Jones,
arXiv:2312.04522; Meister, Pattison and Preskill, arXiv:2405.07433; arXiv:2510.25222).  As far as
the stage that made a prediction sees the error model, one with a gap of g nats is wrong in one of
1 + exp(g) shots.

Predictions do not change when confidence is asked for.  It costs:

- uncorrelated matching, of both decompositions: a second matching of the memory checks, 3 to 8
  times the first one's time;
- correlated matching: three more of it, that of edges and that of either class;
- pre-decoders ahead of uncorrelated matching: the first of these, of the whole syndrome.  Residuals
  do not count: a wrong commit leaves no event that tells of it;
- cascades, with a pre-decoder or without: the first, the second where that gives less than 12 nats,
  and for shots that the ensemble decides two matchings more.

Gaps promise too much, since each class is weighed by its likeliest errors and not by all of them:
the logarithm of the observed odds is about 0.8 of the gap after uncorrelated matching and 0.7 after
the others.  `qec calibrate` fits the factor for the error model at hand.
"""

from __future__ import annotations

import functools

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.complementary_gap import GapMatcher
from qec.matching.ensemble import CorrelatedConfidence
from qec.matching.matcher import basis_split, matching_graph


class Confidence:
    """Gaps of predictions that decoders without gaps have made.

    Args:
        lattice: of the error model.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        self._lattice = lattice

    @functools.cached_property
    def _uncorrelated(self) -> GapMatcher:
        graph = matching_graph(basis_split(self._lattice), silent=self._lattice.silent)
        return GapMatcher(graph, self._lattice, searched=False)

    @functools.cached_property
    def _correlated(self) -> CorrelatedConfidence:
        return CorrelatedConfidence(self._lattice)

    def uncorrelated(self, detectors: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """As matching of the memory checks sees predictions.

        Args:
            detectors: uint8 (B, num_detectors).
            flips: uint8 (B,), predicted flips of observable 0.

        Returns:
            float64 (B,), nats; 0 where the other class looks likelier.

        Raises:
            QecError: as ``qec.matching.complementary_gap.boundaries``.
        """
        likelier, gaps = self._uncorrelated.decode_batch(detectors)
        return np.where(likelier == flips, gaps, 0.0)

    def correlated(self, detectors: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The same as correlated matching sees them.

        Arguments, result and errors are as of ``uncorrelated``.
        """
        return self._correlated.of(detectors, flips)
