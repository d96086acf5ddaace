"""An ensemble of correlated matchings, whose best parts make up one correction.

Each member matches on a model whose probabilities are perturbed at random (Shutty, Newman and
Villalonga, arXiv:2401.12434), and so proposes another correction.  Correlated matching weighs X and
Z errors one after the other; the proposals are weighed by what both cost together, and what is best
in each is put together (``qec.synthesis``).  It costs a matching per member, so the shots of which
uncorrelated matching is sure are left to that.
"""

from __future__ import annotations

import numpy as np

from qec.corrections import EdgeModel
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.synthesis import Synthesis

_SPREAD = 0.4  # standard deviation of the logarithm of the factor on each probability
_SEED = 0
# Nats, the logical gap from which uncorrelated matching is believed: of 54,800 shots in which
# members were asked all the same, 5 differed (data/experiments.md).
_SURE = 6.0
_EDGES_PER_PASS = 4_000_000  # bytes of one proposal for the shots that are decoded at a time


class EnsembleMatcher:
    """The lightest correction that ``members`` correlated matchings make up.

    Args:
        lattice: of the error model.
        members: how many; of a single one the correction is taken as it is.

    Attributes:
        unperturbed: correlated matching on the model itself.

    Raises:
        QecError: as ``qec.matching.Matcher``; with several members, as ``qec.gap.GapMatcher``.
    """

    def __init__(self, lattice: SpaceTimeLattice, members: int) -> None:
        self.unperturbed = Matcher(basis_split(lattice), correlated=True, silent=lattice.silent)
        self._members: list[Matcher] = []
        if members > 1:
            # Its graph has the edges and weights of uncorrelated matching's.
            self._judge = GapMatcher(self.unperturbed.graph, lattice, nats=_SURE)
            self._edges = EdgeModel(lattice)
            rng = np.random.default_rng(_SEED)
            self._members.append(self._edges.matcher())
            while len(self._members) < members:
                noise = rng.standard_normal(self._edges.num_mechanisms)
                self._members.append(self._edges.matcher(np.exp(_SPREAD * noise)))

    def decode_batch(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> uint8 (B,), predicted flips of observable 0."""
        if not self._members:
            return self.unperturbed.decode_batch(detectors)
        flips, gaps = self._judge.decode_batch(detectors)
        close = gaps < _SURE
        if close.any():
            flips[close] = self._put_together(detectors[close])
        return flips

    def _put_together(self, detectors: np.ndarray) -> np.ndarray:
        """As ``decode_batch``, of all members' proposals."""
        flips = np.empty(len(detectors), dtype=np.uint8)
        step = max(1, _EDGES_PER_PASS // len(self._edges.flips))
        for start in range(0, len(detectors), step):
            part = detectors[start : start + step]
            found = Synthesis(self._edges, len(part))
            for member in self._members:
                found.add(member.decode_all(part).view(np.bool_))
            flips[start : start + step] = found.flips
        return flips
