"""What the pre-decoder commits, and when it would rather not: chosen on validation shots."""

from __future__ import annotations

import dataclasses
import itertools
import math
import reprlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qec.errors import QecError
from qec.lattice import SpaceTimeLattice
from qec.patch import PADDING

Gap = float | tuple[tuple[int, float, float], ...]
"""A fraction, in [0, 1], of the weight of the lightest logical operator.

Or triples (distance, mean detection rate, fraction), rising in both: between them the fraction is
linear in the rate's logarithm, and in the distance.
"""


_MOST_MEMBERS = 1000  # of an ensemble: each has a matching graph of its own
_FARTHEST = 10**6  # distance that a gap may name


@dataclasses.dataclass(frozen=True)
class SecondLook:
    """What is made of doubtful shots before they are matched as a whole.

    At distances below all that ``doubt`` names there is no second look.

    Attributes:
        threshold: probability in [0.5, 1] above which a chain bit is committed then.
        doubt: shots with a logical gap below this get a second look.
        gap: those with a gap below this after it are matched as a whole; at most ``doubt``.

    Raises:
        QecError: a value out of range.
    """

    threshold: float
    doubt: Gap
    gap: Gap

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        for name in ("doubt", "gap"):
            object.__setattr__(self, name, _checked_gap(getattr(self, name)))
        doubt, gap = (
            value if isinstance(value, tuple) else ((0, 0, value),)
            for value in (self.doubt, self.gap)
        )
        at_most = [a[:2] == b[:2] and a[2] <= b[2] for a, b in zip(gap, doubt, strict=False)]
        if len(gap) != len(doubt) or not all(at_most):
            shown = f"gap={reprlib.repr(self.gap)} must be at most doubt={reprlib.repr(self.doubt)}"
            raise QecError(f"{shown}, step by step.")

    @property
    def cut(self) -> float:
        """The logit above which a chain bit is committed."""
        return _logit(self.threshold)


@dataclasses.dataclass(frozen=True)
class CommitRule:
    """A commit rule.

    Attributes:
        threshold: probability in [0.5, 1] above which a chain bit is committed.  At 1 nothing is.
        gap: shots with a logical gap (of the residual, ``qec.gap``, or of the network,
            ``qec.predecoder.network_gap``) below this fall back on correlated matching of the whole
            syndrome; 0: none does.
        members: of the ensemble that then decodes (see ``qec.ensemble``); 1: no ensemble.
        second: stands for ``gap`` where whole shots are decoded; None: there is no second look.
            Windows look once.
        agree: probabilities above which chain bits are committed at further looks at every shot
            (one like ``threshold`` is none): those that not all looks decide alike fall back, too.
            Not in windows; a rule has this or ``second``.

    Raises:
        QecError: a value out of range.
    """

    threshold: float
    gap: Gap = 0.0
    members: int = 1
    second: SecondLook | None = None
    agree: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_threshold(self.threshold)
        object.__setattr__(self, "gap", _checked_gap(self.gap))
        if not isinstance(self.agree, list | tuple):
            raise QecError(f"agree={reprlib.repr(self.agree)} must be a list of probabilities.")
        object.__setattr__(self, "agree", tuple(self.agree))
        for threshold in self.agree:
            _check_threshold(threshold)
        if self.agree and self.second is not None:
            raise QecError("a commit rule has a second look or an agree, not both.")
        if isinstance(self.second, dict):
            object.__setattr__(self, "second", SecondLook(**self.second))
        if not isinstance(self.second, SecondLook | None):
            raise QecError(f"second={reprlib.repr(self.second)} must be a second look or null.")
        whole = isinstance(self.members, int) and _is_number(self.members)
        if not whole or not 1 <= self.members <= _MOST_MEMBERS:
            raise QecError(
                f"members={reprlib.repr(self.members)} must be a number of matchings, 1 to "
                f"{_MOST_MEMBERS}."
            )

    @property
    def cut(self) -> float:
        """The logit above which a chain bit is committed."""
        return _logit(self.threshold)

    @property
    def doubt(self) -> Gap:
        """Below it a shot is not decoded by its residual alone."""
        return self.gap if self.second is None else self.second.doubt

    @property
    def falls_back(self) -> bool:
        """Whether any shot is decoded anew."""
        return self.doubt > 0 or bool(self.agree)

    @property
    def other_thresholds(self) -> list[float]:
        """Those of ``agree``, without its own."""
        return [threshold for threshold in self.agree if threshold != self.threshold]

    @property
    def other_cuts(self) -> list[float]:
        """The logits above which chain bits are committed at the other looks."""
        agree = [_logit(threshold) for threshold in self.other_thresholds]
        return agree + ([self.second.cut] if self.second else [])

    def on(
        self, lattice: SpaceTimeLattice, fallback: bool = True, *, once: bool = False
    ) -> CommitRule:
        """The rule with the gaps of one lattice, or none without ``fallback``.

        Args:
            lattice: whose distance, and whose error model's noise, tell them.
            fallback: whether doubtful shots are decoded anew.
            once: without other looks.
        """
        if not fallback:
            return dataclasses.replace(self, gap=0.0, second=None, agree=())
        second, agree = (None, ()) if once else (self.second, self.agree)
        if second is not None and isinstance(second.doubt, tuple):
            second = second if lattice.distance >= second.doubt[0][0] else None
        if second is not None:
            at = {"doubt": _gap_on(second.doubt, lattice), "gap": _gap_on(second.gap, lattice)}
            second = dataclasses.replace(second, **at)
        return dataclasses.replace(self, gap=_gap_on(self.gap, lattice), second=second, agree=agree)

    def in_windows(self, lattice: SpaceTimeLattice, fallback: bool = True) -> CommitRule:
        """As ``on``, for windows, which look once.

        Raises:
            QecError: doubtful are shots on which not all looks agree.
        """
        if self.agree and fallback:
            raise QecError(
                "this pre-decoder falls back where its looks disagree, and windows look once: use "
                "a decoder without fallback, or another pre-decoder such as fast."
            )
        return self.on(lattice, fallback, once=True)


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
        others: the same for the other looks.
    """

    residual: np.ndarray
    committed: np.ndarray
    gap: np.ndarray
    others: tuple[Predecoded, ...] = ()

    def of(self, shots: np.ndarray) -> Predecoded:
        """Of some shots only, by their numbers."""
        return Predecoded(self.residual[shots], self.committed[shots], self.gap[shots])

    @classmethod
    def sure(cls, residual: np.ndarray, committed: np.ndarray) -> Predecoded:
        """Without a gap of the network's."""
        return cls(residual, committed, np.full(len(residual), np.inf, dtype=np.float32))


def _check_threshold(threshold: object) -> None:
    if not _is_number(threshold) or not 0.5 <= threshold <= 1:
        raise QecError(f"threshold={reprlib.repr(threshold)} must be a probability in [0.5, 1].")


def _logit(probability: float) -> float:
    return math.inf if probability == 1 else math.log(probability / (1 - probability))


def _gap_on(gap: Gap, lattice: SpaceTimeLattice) -> float:
    """The fraction at the distance of a lattice and the noise of its error model."""
    if not isinstance(gap, tuple):
        return gap
    rate = math.log(max(lattice.detection_rate[lattice.sector != PADDING].mean(), 1e-9))
    by_distance = {}
    for distance, steps in itertools.groupby(gap, key=lambda step: step[0]):
        _, rates, fractions = zip(*steps, strict=True)
        by_distance[distance] = np.interp(rate, np.log(rates), fractions)
    return float(np.interp(lattice.distance, list(by_distance), list(by_distance.values())))


def _checked_gap(gap: object) -> Gap:
    if isinstance(gap, list | tuple):
        return _checked_steps(gap)
    if not _is_number(gap) or not 0 <= gap <= 1:
        raise QecError(f"gap={reprlib.repr(gap)} must be a fraction in [0, 1].")
    return gap


def _checked_steps(steps: Sequence) -> tuple[tuple[int, float, float], ...]:
    triples = tuple(tuple(step) if isinstance(step, list | tuple) else () for step in steps)
    sound = bool(triples) and all(len(t) == 3 and all(map(_is_number, t)) for t in triples)
    if sound:
        places = [(distance, rate) for distance, rate, _ in triples]
        rising = all(a < b for a, b in itertools.pairwise(places))
        sound = rising and all(
            0 < distance <= _FARTHEST and 0 < rate < 1 and 0 <= gap <= 1
            for distance, rate, gap in triples
        )
    if not sound:
        raise QecError(
            f"gap={reprlib.repr(steps)} must be triples (distance, rate, fraction): rising "
            "distances, rising rates in (0, 1) for each, fractions in [0, 1]."
        )
    return triples


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
