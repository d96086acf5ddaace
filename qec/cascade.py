"""A cascade of matchings: what one is sure of needs no better one.

Memory-check matching decodes every shot.  Where its logical gap is small, and only there, the whole
syndrome goes to correlated matching, or to an ensemble of matchings.  The gap is in nats, so one
threshold holds for all distances, noise rates and error models (data/experiments.md).
"""

from __future__ import annotations

import numpy as np

from qec.confidence import Confidence
from qec.ensemble import Ensemble
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split, matching_graph

NATS = 5.0
"""The confidence from which a stage is believed."""


class Cascade:
    """Memory-check matching, and in doubt a better decoder.

    Args:
        lattice: of the error model.
        members: of the ensemble in doubt; 0: correlated matching.
        nats: the logical gap from which memory-check matching is believed.

    Raises:
        QecError: as ``qec.matching.Matcher`` and ``qec.gap.GapMatcher``.
    """

    def __init__(self, lattice: SpaceTimeLattice, members: int = 0, nats: float = NATS) -> None:
        self._nats, self._confidence = nats, Confidence(lattice)
        model = basis_split(lattice)
        graph = matching_graph(model, silent=lattice.silent)
        self._memory = GapMatcher(graph, lattice, nats=nats)
        self._last = Ensemble(lattice, members) if members else Matcher(model, True, lattice.silent)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        flips, sure = self._memory.decide(detectors, self._nats)
        if not sure.all():
            flips[~sure] = self._last.decode_batch(detectors[~sure])
        return flips

    def decode_with_confidence(self, detectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions, and the confidence of the stage that made each.

        Args:
            detectors: uint8 (B, num_detectors).

        Returns:
            uint8 (B,) as ``decode_batch``, float64 (B,), nats, not negative.
        """
        flips, sure = self._memory.decide(detectors, self._nats)
        confidence = np.empty(len(flips))
        confidence[sure] = self._confidence.uncorrelated(detectors[sure], flips[sure])
        doubtful = detectors[~sure]
        if isinstance(self._last, Ensemble):
            flips[~sure], confidence[~sure] = self._last.decode_with_confidence(doubtful)
        else:
            flips[~sure] = self._last.decode_batch(doubtful)
            confidence[~sure] = self._confidence.correlated(doubtful, flips[~sure])
        return flips, confidence
