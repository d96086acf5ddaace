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
        gap: shots whose residual has a logical gap (see ``qec.gap``) below this fraction, in
            [0, 1], of the weight of the lightest logical operator fall back on correlated matching
            of the whole syndrome; 0: none does.  Or pairs (mean detection rate, fraction) in rising
            order of the rate, between which the fraction is linear in the rate's logarithm.
        members: of the ensemble that then votes (see ``qec.ensemble``), odd; 1: no ensemble.

    Raises:
        QecError: a value out of range.
    """

    threshold: float
    gap: float | tuple[tuple[float, float], ...] = 0.0
    members: int = 1

    def __post_init__(self) -> None:
        if not _is_number(self.threshold) or not 0.5 <= self.threshold <= 1:
            raise QecError(f"threshold={self.threshold!r} must be a probability in [0.5, 1].")
        if isinstance(self.gap, list | tuple):
            object.__setattr__(self, "gap", _checked_steps(self.gap))
        elif not _is_number(self.gap) or not 0 <= self.gap <= 1:
            raise QecError(f"gap={self.gap!r} must be a fraction in [0, 1].")
        whole = isinstance(self.members, int) and _is_number(self.members)
        if not whole or self.members < 1 or self.members % 2 == 0:
            raise QecError(f"members={self.members!r} must be an odd number of matchings.")

    @property
    def cut(self) -> float:
        """The logit above which a chain bit is committed."""
        t = self.threshold
        return math.inf if t == 1 else math.log(t / (1 - t))

    @property
    def loud_gap(self) -> float:
        """The gap at the strongest noise that it was chosen for, and beyond."""
        return self.gap[-1][1] if isinstance(self.gap, tuple) else self.gap

    def gap_on(self, lattice: SpaceTimeLattice) -> float:
        """The gap at the noise of a lattice's error model."""
        if not isinstance(self.gap, tuple):
            return self.gap
        rates, gaps = zip(*self.gap, strict=True)
        rate = max(lattice.detection_rate.mean(), 1e-9)
        return float(np.interp(math.log(rate), np.log(rates), gaps))


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
    """

    residual: np.ndarray
    committed: np.ndarray


def _checked_steps(steps: Sequence) -> tuple[tuple[float, float], ...]:
    pairs = tuple(tuple(step) if isinstance(step, list | tuple) else () for step in steps)
    sound = bool(pairs) and all(len(pair) == 2 and all(map(_is_number, pair)) for pair in pairs)
    if sound:
        rates = [rate for rate, _ in pairs]
        rising = all(a < b for a, b in itertools.pairwise([0.0, *rates]))
        sound = rising and rates[-1] < 1 and all(0 <= gap <= 1 for _, gap in pairs)
    if not sound:
        raise QecError(
            f"gap={steps!r} must be pairs (rate, fraction): rising rates in (0, 1), fractions in "
            "[0, 1]."
        )
    return pairs


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
