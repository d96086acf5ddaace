"""How sure a decoder is of its predictions: the complementary gap, in nats.

Matching finds the likeliest correction.  By how much the best one of the other logical class is
less likely, -ln of the ratio, is the *complementary gap* or soft output: what post-selection,
concatenated codes and switching between decoders ask for (Gidney, Newman, Brooks and Jones,
arXiv:2312.04522; Meister, Pattison and Preskill, arXiv:2405.07433; arXiv:2510.25222).  A prediction
with a gap of g nats is wrong in about one of exp(g) shots, as far as the stage that made it sees
the error model: `qec evaluate confidence=true` shows how far that holds.

Predictions do not change when confidence is asked for.  It costs:

- uncorrelated matching, of both decompositions, and what a pre-decoder leaves without fallback: a
  second matching of the memory checks, 3 to 8 times the first one's time;
- correlated matching: three more of it, that of edges and that of either class;
- cascades: either, for the shots that the stage in question decides.
"""

from __future__ import annotations

import functools

import numpy as np

from qec.ensemble import CorrelatedConfidence
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import basis_split, matching_graph


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
            QecError: as ``qec.gap.boundaries``.
        """
        likelier, gaps = self._uncorrelated.decode_batch(detectors)
        return np.where(likelier == flips, gaps, 0.0)

    def correlated(self, detectors: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The same as correlated matching sees them."""
        return self._correlated.of(detectors, flips)
