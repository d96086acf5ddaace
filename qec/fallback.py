"""Matching of residuals that knows when it had better look at the whole syndrome."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qec.cascade import Cascade
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.predecoder.rule import CommitRule, Predecoded


class Matched(NamedTuple):
    """What matching makes of a batch.

    Attributes:
        flips: uint8 (B,), predicted flips of observable 0, committed corrections included.
        looked_again: bool (B,), shots that were decoded by other residuals, too.
        fell_back: bool (B,), shots that were matched as a whole.
        confidence: float64 (B,), logarithm of the odds of the prediction, in nats, as the stage
            that made it sees them; None if nobody asked.
    """

    flips: np.ndarray
    looked_again: np.ndarray
    fell_back: np.ndarray
    confidence: np.ndarray | None = None


def whole_matcher(lattice: SpaceTimeLattice, members: int) -> Matcher | Cascade:
    """Correlated matching; of several members, the cascade with such an ensemble."""
    if members > 1:
        return Cascade(lattice, members)
    return Matcher(basis_split(lattice), correlated=True, silent=lattice.silent)


class WholeSyndromes:
    """Matches every shot as a whole, as ``Fallback`` does those that are in doubt.

    Args:
        lattice: whose shots are decoded.
        rule: whose ensemble decodes them.

    Raises:
        QecError: as ``Matcher`` or ``Cascade``.
    """

    def __init__(self, lattice: SpaceTimeLattice, rule: CommitRule) -> None:
        self._full = whole_matcher(lattice, rule.members)

    def match(self, detectors: np.ndarray, _: Predecoded) -> Matched:
        """As ``Decoder.match``."""
        everybody = np.ones(len(detectors), dtype=np.bool_)
        return Matched(self._full.decode_batch(detectors), ~everybody, everybody)


class Fallback:
    """Matches residuals, and decodes anew the shots where they leave doubt.

    Uncorrelated matching of the residual predicts.  Doubtful are the shots whose logical gap, the
    residual's or the network's, is below a fraction of the weight of the lightest logical operator.
    Where the rule has a second look, they are decoded by the residual that more cautious commits
    leave; those that it still leaves in doubt, or all, go to correlated matching of all their
    detection events, by the rule's ensemble.  So do, where it has an ``agree``, the shots for which
    not all residuals predict the same.

    Args:
        lattice: whose shots are decoded.
        rule: with its gaps there (``CommitRule.on``).

    Raises:
        QecError: PyMatching refuses the model, or the logical gap is not defined on it.
    """

    def __init__(self, lattice: SpaceTimeLattice, rule: CommitRule) -> None:
        self._rule = rule
        self._full = whole_matcher(lattice, rule.members)
        self._residual = GapMatcher(self._full.graph, lattice, largest=max(rule.doubt, rule.gap))

    @property
    def limits(self) -> list[float]:
        """Nats, with which gaps are compared."""
        second = self._rule.second
        fractions = [self._rule.gap, *((second.doubt, second.gap) if second else ())]
        return [fraction * self._residual.logical_weight for fraction in fractions]

    def match(self, detectors: np.ndarray, predecoded: Predecoded) -> Matched:
        """As ``Decoder.match``; where there are no other residuals, it looks once."""
        others = predecoded.others
        second = self._rule.second if others else None
        flips, doubtful = self._look(predecoded, second.doubt if second else self._rule.gap)
        again = np.zeros_like(doubtful)
        if others and self._rule.agree:
            again[:] = True
            for other in others:
                doubtful |= self._look(other, 0.0)[0] != flips
        if second is not None and doubtful.any():
            again = doubtful
            shots = np.flatnonzero(again)
            flips[shots], still = self._look(others[0].of(shots), second.gap)
            doubtful = np.zeros_like(again)
            doubtful[shots[still]] = True
        if doubtful.any():
            flips[doubtful] = self._full.decode_batch(detectors[doubtful])
        return Matched(flips, again, doubtful)

    def _look(self, predecoded: Predecoded, gap: float) -> tuple[np.ndarray, np.ndarray]:
        """Predictions by residuals, and which shots have a gap below ``gap``."""
        nats = gap * self._residual.logical_weight
        flips, gaps = self._residual.decode_batch(predecoded.residual, nats)
        return flips ^ predecoded.committed, np.minimum(gaps, predecoded.gap) < nats
