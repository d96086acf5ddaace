"""An ensemble of correlated matchings that vote: closer to maximum likelihood than any one of them.

Each member matches on a model whose probabilities are perturbed at random.  Where the members
disagree, corrections of nearly the same weight compete, and the vote favours the logical class that
has more of them (Shutty, Newman and Villalonga, arXiv:2401.12434).  It costs a matching per member,
so it is meant for the few shots that are worth it.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split

_SPREAD = 0.4  # standard deviation of the logarithm of the factor on each probability
_FIRST = 3  # members that are asked about every shot
_SEED = 0


class EnsembleMatcher:
    """Majority vote of ``members`` (an odd number) correlated matchings; the first unperturbed.

    Attributes:
        unperturbed: the first member.

    Raises:
        QecError: as ``qec.matching.Matcher``.
    """

    def __init__(self, lattice: SpaceTimeLattice, members: int) -> None:
        rng = np.random.default_rng(_SEED)
        self.unperturbed = Matcher(basis_split(lattice), correlated=True)
        self._members = [self.unperturbed]
        while len(self._members) < members:
            model = basis_split(_perturbed(lattice, rng))
            self._members.append(Matcher(model, correlated=True))

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        first, rest = self._members[:_FIRST], self._members[_FIRST:]
        votes = np.sum([m.decode_batch(detectors) for m in first], axis=0, dtype=np.int64)
        voters = np.full(len(votes), len(first))
        split = np.flatnonzero((votes > 0) & (votes < voters))
        if rest and len(split):
            more = detectors[split]
            votes[split] += np.sum([m.decode_batch(more) for m in rest], axis=0, dtype=np.int64)
            voters[split] += len(rest)
        return (2 * votes > voters).astype(np.uint8)


def _perturbed(lattice: SpaceTimeLattice, rng: np.random.Generator) -> SpaceTimeLattice:
    table = lattice.mechanisms
    factor = np.exp(_SPREAD * rng.standard_normal(len(table.probability)))
    # PyMatching's correlations need probabilities up to 1/2; what is above stays for it to refuse.
    probability = np.where(
        table.probability < 0.5, np.minimum(table.probability * factor, 0.49), table.probability
    )
    perturbed = dataclasses.replace(table, probability=probability)
    return dataclasses.replace(lattice, mechanisms=perturbed)
