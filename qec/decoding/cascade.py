"""A cascade of matchings: what one is sure of needs no better one.

Memory-check matching decodes every shot, or what a pre-decoder leaves of it.  Where its logical gap
is small, and only there, the whole syndrome goes to correlated matching, to belief matching, or to
an ensemble of matchings.  The gap is in nats, so one threshold holds for all distances, noise rates
and error models (docs/experiments.md).
"""

from __future__ import annotations

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.decoding.confidence import Confidence
from qec.matching.belief_matching import BeliefMatcher
from qec.matching.complementary_gap import GapMatcher
from qec.matching.ensemble import NATS, Ensemble
from qec.matching.matcher import Matcher, basis_split, matching_graph
from qec.predecoder.threshold import PredecodeResult

RESIDUAL_NATS = 10.0
"""The logical gap of a residual from which it is believed, more than ``NATS``.

What a network commits wrongly, the residual's gap cannot see (docs/experiments.md).
"""
_LARGE = 12.0  # nats: shots that memory-check matching is so sure of, nobody discards


class Cascade:
    """Memory-check matching, and in doubt a better decoder.

    Args:
        lattice: of the error model.
        members: of the ensemble in doubt; 0: correlated matching.
        nats: the logical gap from which memory-check matching is believed; after a pre-decoder
            ``RESIDUAL_NATS``.
        beliefs: belief matching in doubt, in place of the others.

    Attributes:
        nats: as given.
        graph: matching graph of the basis-split model.
        memory: the first stage.
        last: the stage for the shots in doubt.

    Raises:
        QecError: as ``Matcher`` and ``GapMatcher``.
    """

    def __init__(
        self,
        lattice: SpaceTimeLattice,
        members: int = 0,
        nats: float = NATS,
        beliefs: bool = False,
    ) -> None:
        self.nats, self._confidence = nats, Confidence(lattice)
        model = basis_split(lattice)
        self.last: BeliefMatcher | Ensemble | Matcher
        if beliefs or members:
            self.last = BeliefMatcher.of(lattice) if beliefs else Ensemble(lattice, members)
            self.graph = matching_graph(model, silent=lattice.silent)
        else:
            self.last = matcher = Matcher(model, correlated=True, silent=lattice.silent)
            self.graph = matcher.graph  # edges and weights are those of uncorrelated matching
        self.memory = GapMatcher(self.graph, lattice, nats=nats)

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self.match(detectors)[0]

    def match(
        self, detectors: np.ndarray, predecoded: PredecodeResult | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predictions, and which of them the last stage made.

        Args:
            detectors: uint8 (B, num_detectors), the whole syndrome.
            predecoded: what a pre-decoder made of it; None: there is none.

        Returns:
            uint8 (B,), bool (B,).
        """
        flips, sure = self._first(detectors, predecoded)
        if not sure.all():
            flips[~sure] = self.last.decode_batch(detectors[~sure])
        return flips, ~sure

    def _first(
        self, detectors: np.ndarray, predecoded: PredecodeResult | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if predecoded is None:
            return self.memory.decide(detectors, self.nats)
        flips, sure = self.memory.decide(predecoded.residual, self.nats)
        return flips ^ predecoded.committed, sure

    def match_with_confidence(
        self, detectors: np.ndarray, predecoded: PredecodeResult | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As ``match``, and how sure the last stage is of predictions, or would be.

        The first stage's gaps are on another scale: where they are not large, shots that it decides
        are judged by correlated matching, too, so that all can be put in one order.  A wrong commit
        of a pre-decoder leaves no event that tells of it: so it is the whole syndrome that judges.

        Returns:
            uint8 (B,) and bool (B,) as ``match``, float64 (B,), nats, not negative.
        """
        flips, sure = self._first(detectors, predecoded)
        confidence = np.empty(len(flips))
        confidence[sure] = self._confidence.uncorrelated(detectors[sure], flips[sure])
        judged = ~sure
        if isinstance(self.last, Ensemble):
            flips[~sure], confidence[~sure] = self.last.decode_with_confidence(detectors[~sure])
            judged = np.zeros_like(sure)
        else:
            flips[~sure] = self.last.decode_batch(detectors[~sure])
        judged |= sure & (confidence < _LARGE)
        confidence[judged] = self._confidence.correlated(detectors[judged], flips[judged])
        return flips, ~sure, confidence
