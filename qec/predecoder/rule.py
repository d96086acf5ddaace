"""What the pre-decoder commits, and when it would rather not: chosen on validation shots."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qec.errors import QecError
from qec.lattice import SpaceTimeLattice


@dataclasses.dataclass(frozen=True)
class CommitRule:
    """A commit rule.

    Attributes:
        threshold: probability in [0.5, 1] above which a chain bit is committed.  At 1 nothing is.
        gap: shots with a logical gap (of the residual, ``qec.gap``, or of the network,
            ``qec.predecoder.network_gap``) below this fraction, in [0, 1], of the weight of the
            lightest logical operator fall back on correlated matching of the whole syndrome;
            0: none does.  Or triples (distance, mean detection rate, fraction), rising in both:
            between them the fraction is linear in the rate's logarithm, and in the distance.
        members: of the ensemble that then decodes (see ``qec.ensemble``); 1: no ensemble.

    Raises:
        QecError: a value out of range.
    """

    threshold: float
    gap: float | tuple[tuple[int, float, float], ...] = 0.0
    members: int = 1

    def __post_init__(self) -> None:
        if not _is_number(self.threshold) or not 0.5 <= self.threshold <= 1:
            raise QecError(f"threshold={self.threshold!r} must be a probability in [0.5, 1].")
        if isinstance(self.gap, list | tuple):
            object.__setattr__(self, "gap", _checked_steps(self.gap))
        elif not _is_number(self.gap) or not 0 <= self.gap <= 1:
            raise QecError(f"gap={self.gap!r} must be a fraction in [0, 1].")
        whole = isinstance(self.members, int) and _is_number(self.members)
        if not whole or self.members < 1:
            raise QecError(f"members={self.members!r} must be a number of matchings >= 1.")

    @property
    def cut(self) -> float:
        """The logit above which a chain bit is committed."""
        t = self.threshold
        return math.inf if t == 1 else math.log(t / (1 - t))

    def on(self, lattice: SpaceTimeLattice, fallback: bool = True) -> CommitRule:
        """The rule with the gap of one lattice, or none without ``fallback``."""
        return dataclasses.replace(self, gap=self.gap_on(lattice) if fallback else 0.0)

    def gap_on(self, lattice: SpaceTimeLattice) -> float:
        """The gap at the distance of a lattice and the noise of its error model."""
        if not isinstance(self.gap, tuple):
            return self.gap
        rate = math.log(max(lattice.detection_rate.mean(), 1e-9))
        by_distance = {}
        for distance, steps in itertools.groupby(self.gap, key=lambda step: step[0]):
            _, rates, gaps = zip(*steps, strict=True)
            by_distance[distance] = np.interp(rate, np.log(rates), gaps)
        distances, gaps = zip(*by_distance.items(), strict=True)
        return float(np.interp(lattice.distance, distances, gaps))


@dataclasses.dataclass(frozen=True)
class CommitRules:
    """The two rules of a checkpoint.

    Attributes:
        uncorrelated: removes many events and matches the rest fast.
        correlated: keeps the accuracy of correlated matching.
    """

    uncorrelated: CommitRule
    correlated: CommitRule

    def ahead_of(self, correlated: bool) -> CommitRule:
        """The one to use before correlated matching, or before uncorrelated."""
        return self.correlated if correlated else self.uncorrelated

    @classmethod
    def same(cls, threshold: float) -> CommitRules:
        """No fallback, one threshold for both."""
        return cls(CommitRule(threshold), CommitRule(threshold))


class Predecoded(NamedTuple):
    """What the pre-decoder makes of a batch.

    Attributes:
        residual: uint8 (B, num_detectors), detection events that it leaves.
        committed: uint8 (B,), flips of observable 0 by the corrections that it commits.
        gap: float32 (B,), the network's logical gap in nats (``qec.predecoder.network_gap``);
            infinite where there is none or nobody asked.
    """

    residual: np.ndarray
    committed: np.ndarray
    gap: np.ndarray

    @classmethod
    def sure(cls, residual: np.ndarray, committed: np.ndarray) -> Predecoded:
        """Without a gap of the network's."""
        return cls(residual, committed, np.full(len(residual), np.inf, dtype=np.float32))


def _checked_steps(steps: Sequence) -> tuple[tuple[int, float, float], ...]:
    triples = tuple(tuple(step) if isinstance(step, list | tuple) else () for step in steps)
    sound = bool(triples) and all(len(t) == 3 and all(map(_is_number, t)) for t in triples)
    if sound:
        places = [(distance, rate) for distance, rate, _ in triples]
        rising = all(a < b for a, b in itertools.pairwise(places))
        sound = rising and all(0 < rate < 1 and 0 <= gap <= 1 for _, rate, gap in triples)
    if not sound:
        raise QecError(
            f"gap={steps!r} must be triples (distance, rate, fraction): rising distances, rising "
            "rates in (0, 1) for each, fractions in [0, 1]."
        )
    return triples


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
