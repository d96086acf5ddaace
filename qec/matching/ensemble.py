"""An ensemble of correlated matchings, whose best parts make up one correction.

Each member matches on a model whose probabilities are perturbed at random (Shutty, Newman and
Villalonga, arXiv:2401.12434), and so proposes another correction.  Correlated matching weighs X and
Z errors one after the other; the proposals are weighed by what both cost together, what is best in
each is put together, and what is left counts for its logical class
(``qec.matching.matching_synthesis``).  It costs a matching per member, so few members are asked at
first, and all of them only where these leave doubt.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.joint_weight import ClassMatcher, EdgeModel
from qec.matching.matching_synthesis import combine

NATS = 6.0
"""The confidence from which a stage of a cascade, or an ensemble's first members, are believed."""
MEMBERS = 15
"""More change little (docs/experiments.md)."""
# Chosen on 12,000 shots at d = 5 and 8,000 at d = 7 (docs/experiments.md).
_SPREAD = 1.0  # standard deviation of the logarithm of the factor on each probability
_AT_FIRST = 5  # members, before which a shot is in doubt
_SEED = 0
_EDGES_PER_PASS = 1_000_000  # bytes of one proposal for the shots that are decoded at a time


def _passes(shots: int, edges: EdgeModel) -> Iterator[slice]:
    """Parts of a batch that are decoded at a time, so that proposals do not fill the memory."""
    step = max(1, _EDGES_PER_PASS // len(edges.flips))
    return (slice(start, start + step) for start in range(0, shots, step))


class Ensemble:
    """The likelier logical class by what ``members`` correlated matchings propose.

    The first member is correlated matching itself, on probabilities as they are.

    Args:
        lattice: of the error model.
        members: how many others, perturbed ones.

    Raises:
        QecError: as ``qec.matching.matcher.Matcher``.
    """

    def __init__(self, lattice: SpaceTimeLattice, members: int = MEMBERS) -> None:
        self._edges = EdgeModel(lattice)
        rng = np.random.default_rng(_SEED)
        self._members = [self._edges.matcher()]
        for _ in range(members):
            noise = rng.standard_normal(self._edges.num_mechanisms)
            self._members.append(self._edges.matcher(np.exp(_SPREAD * noise)))

    @functools.cached_property
    def _classes(self) -> ClassMatcher:
        return self._edges.matcher_of_classes()

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        return self._decode(detectors, with_confidence=False)[0]

    def decode_with_confidence(self, detectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions, and the logarithm of their odds.

        It takes two further matchings, one of either logical class: members rarely propose both.

        Args:
            detectors: uint8 (B, num_detectors).

        Returns:
            uint8 (B,) as ``decode_batch``, float64 (B,), nats, not negative.

        Raises:
            QecError: as ``qec.matching.complementary_gap.boundaries``.
        """
        return self._decode(detectors, with_confidence=True)

    def _decode(
        self, detectors: np.ndarray, with_confidence: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        flips, confidence = np.empty(len(detectors), np.uint8), np.empty(len(detectors))
        for part in _passes(len(detectors), self._edges):
            flips[part], confidence[part] = self._decode_part(detectors[part], with_confidence)
        return flips, confidence

    def _decode_part(
        self, detectors: np.ndarray, with_confidence: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        proposals = self._propose(self._members[: _AT_FIRST + 1], detectors)
        found = combine(self._edges, proposals)
        flips, confidence = found.flips, found.confidence
        if with_confidence:
            proposals = np.concatenate([proposals, self._classes.decode_both(detectors)])
            confidence = combine(self._edges, proposals).odds(flips)
        close = np.flatnonzero(found.confidence < NATS)
        further = self._members[_AT_FIRST + 1 :]
        if further and len(close):
            more = self._propose(further, detectors[close])
            own = proposals[:, close]
            found = combine(self._edges, np.concatenate([own[: _AT_FIRST + 1], more]))
            flips[close] = found.flips
            if with_confidence:
                found = combine(self._edges, np.concatenate([own, more]))
                confidence[close] = found.odds(flips[close])
        return flips, confidence

    def _propose(self, members: list, detectors: np.ndarray) -> np.ndarray:
        """bool (members, B, E)."""
        return np.stack([member.decode_all(detectors) for member in members]).view(np.bool_)


class CorrelatedConfidence:
    """How sure correlated matching can be of its predictions.

    Args:
        lattice: of the error model.

    Raises:
        QecError: as ``qec.matching.complementary_gap.boundaries``.
    """

    def __init__(self, lattice: SpaceTimeLattice) -> None:
        self._edges = EdgeModel(lattice)
        self._plain, self._classes = self._edges.matcher(), self._edges.matcher_of_classes()

    def of(self, detectors: np.ndarray, flips: np.ndarray) -> np.ndarray:
        """The logarithm of the odds of predictions; three matchings a shot.

        Args:
            detectors: uint8 (B, num_detectors).
            flips: uint8 (B,), of observable 0.

        Returns:
            float64 (B,), nats; 0 where the other class looks likelier.
        """
        odds = np.empty(len(detectors))
        for part in _passes(len(detectors), self._edges):
            plain = self._plain.decode_all(detectors[part])[None].view(np.bool_)
            both = self._classes.decode_both(detectors[part])
            found = combine(self._edges, np.concatenate([plain, both]))
            odds[part] = found.odds(flips[part])
        return odds
