"""Matching of residuals that knows when it had better look at the whole syndrome."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qec.ensemble import EnsembleMatcher
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.predecoder.rule import Predecoded


class Matched(NamedTuple):
    """What matching makes of a batch.

    Attributes:
        flips: uint8 (B,), predicted flips of observable 0, committed corrections included.
        fell_back: bool (B,), shots that were matched as a whole since their residual decided the
            observable too narrowly.
    """

    flips: np.ndarray
    fell_back: np.ndarray


class Fallback:
    """Matches residuals, and matches anew, as a whole, the shots where they leave doubt.

    Uncorrelated matching of the residual predicts.  The shots whose logical gap, the residual's or
    the network's, is below ``gap`` times the weight of the lightest logical operator go to
    correlated matching of all their detection events instead, by an ensemble of ``members``.

    Raises:
        QecError: PyMatching refuses the model, or the logical gap is not defined on it.
    """

    def __init__(self, lattice: SpaceTimeLattice, gap: float, members: int = 1) -> None:
        self._full = EnsembleMatcher(lattice, members)
        # Its graph has the edges and weights of uncorrelated matching's.
        self._residual = GapMatcher(self._full.unperturbed.graph, lattice, largest=gap)

    def match(self, detectors: np.ndarray, predecoded: Predecoded) -> Matched:
        """As ``Decoder.match``."""
        flips, gaps = self._residual.decode_batch(predecoded.residual)
        flips = flips ^ predecoded.committed
        doubtful = np.minimum(gaps, predecoded.gap) < self._residual.cap
        if doubtful.any():
            flips[doubtful] = self._full.decode_batch(detectors[doubtful])
        return Matched(flips, doubtful)
