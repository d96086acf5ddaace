"""The detector error model of a window: an edge that leaves it ends on the boundary.

What the window decides beyond the flip of the observable is put into further observables, so that
one call of matching returns all of it for a batch of shots.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.dem import Mechanisms
from qec.lattice import MEMORY, SpaceTimeLattice
from qec.matching import basis_split
from qec.reference import Window


@dataclasses.dataclass(frozen=True, eq=False)
class WindowModel:
    """A window ready to be matched.

    Attributes:
        detectors: int64, those whose events it sees.
        seam: int64, those that its committed corrections may flip beyond its core.
        exits: int64, those of its detectors that edges out of the window end on.
        text: its detector error model.  Observable 0 is that of the experiment, as far as
            committed; observable 1 + k a flip of seam[k]; then, an odd number of edges out of the
            window at exits[k].
    """

    detectors: np.ndarray
    seam: np.ndarray
    exits: np.ndarray
    text: str


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces:
    """The edges that the mechanisms of a basis-split model consist of.

    Attributes:
        layer: int64 (num_detectors,).
        probability: float64 (mechanisms,).
        mechanism: int64 (pieces,), ascending.
        ends: int64 (pieces, 2), detectors; -1 where a piece ends on the boundary.
        flips: bool (pieces,), whether it flips the observable.
    """

    layer: np.ndarray
    probability: np.ndarray
    mechanism: np.ndarray
    ends: np.ndarray
    flips: np.ndarray

    @classmethod
    def of(cls, lattice: SpaceTimeLattice) -> Pieces:
        table = Mechanisms.from_dem(basis_split(lattice))
        mechanism = table.mechanism.astype(np.int64)
        key = mechanism * (int(table.component.max()) + 1) + table.component
        _, first, piece = np.unique(key, return_index=True, return_inverse=True)
        ends = np.full((len(first), 2), -1)
        order = np.argsort(piece, kind="stable")
        piece, detector = piece[order], table.detector[order]
        second = np.concatenate([[False], piece[1:] == piece[:-1]])
        ends[piece[~second], 0] = detector[~second]
        ends[piece[second], 1] = detector[second]
        owner = mechanism[first]
        # The observable goes with the first memory piece of its mechanism, as in basis_split.
        memory = lattice.sector[ends[:, 0]] == MEMORY
        flips = np.zeros(len(first), dtype=bool)
        lead = np.unique(owner[memory], return_index=True)[1]
        flips[np.flatnonzero(memory)[lead]] = table.flips_observable[owner[memory][lead]]
        return cls(lattice.layer, table.probability, owner, ends, flips)

    def window(
        self, window: Window, done: np.ndarray, *, exits: bool = False, closed: bool = False
    ) -> WindowModel:
        """The model of a window.

        Args:
            done: bool (layers,), what earlier stages have committed.
            exits: make observables of the edges out of the window.
            closed: leave those edges out.
        """
        exists = self.ends >= 0
        layer = np.where(exists, self.layer[self.ends], -1)
        inside = exists & (layer >= window.start) & (layer < window.end)
        core = exists & (layer >= window.core_start) & (layer < window.core_end)
        committed = core.any(axis=1)
        leaves = (exists & ~inside).any(axis=1)
        kept = inside.any(axis=1) & ~(exists & done[layer]).any(axis=1) & ~(closed & leaves)
        kept = np.flatnonzero(kept)
        detectors = np.flatnonzero(
            (self.layer >= window.start) & (self.layer < window.end) & ~done[self.layer]
        )
        beyond = exists & ~core & committed[:, None]
        out = inside & leaves[:, None] & exits
        seam, gates = (np.unique(self.ends[kept][which[kept]]) for which in (beyond, out))
        number, crossing, gate = (np.full(len(self.layer), -1) for _ in range(3))
        number[detectors] = np.arange(len(detectors))
        crossing[seam] = np.arange(1, len(seam) + 1)
        gate[gates] = np.arange(1 + len(seam), 1 + len(seam) + len(gates))
        names = [
            np.where(which[kept], np.char.add(letter, index[self.ends[kept]].astype(str)), "")
            for which, letter, index in (
                (inside, "D", number),
                (beyond, "L", crossing),
                (out, "L", gate),
            )
        ]
        observable = np.where(committed[kept] & self.flips[kept], "L0", "")[:, None]
        words = np.concatenate([names[0], observable, *names[1:]], axis=1).tolist()
        lines: list[str] = []
        last = -1
        for k, mechanism in enumerate(self.mechanism[kept].tolist()):
            text = " ".join(filter(None, words[k]))
            if mechanism == last:
                lines[-1] += f" ^ {text}"
            else:
                lines.append(f"error({float(self.probability[mechanism])!r}) {text}")
            last = mechanism
        observables = len(seam) + len(gates)
        lines += [f"detector D{len(detectors) - 1}", f"logical_observable L{observables}"]
        return WindowModel(detectors, seam, gates, "\n".join(lines))
