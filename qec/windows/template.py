"""A short experiment that stands for longer ones of the same kind.

All rounds of a memory experiment look alike but for the first and the last ones.  So whatever
decodes some layers of a long one, of any length, can be cut from the model of a short one.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import stim

from qec.circuits.error_model import at_most_half
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.patch import PADDING
from qec.support.errors import QecError

EDGE = 2  # layers at either end that differ from those of the bulk


@dataclasses.dataclass(frozen=True)
class Window:
    """Layers [start, end) of detectors, of which [core_start, core_end) are committed."""

    start: int
    end: int
    core_start: int
    core_end: int

    def shifted(self, layers: int) -> Window:
        """The same window ``layers`` later."""
        return Window(*(k + layers for k in dataclasses.astuple(self)))


class ExperimentTemplate:
    """The layers of an experiment, and where windows of longer ones find their like in it.

    Layers of detectors are arrays of ``width`` columns; layers with fewer detectors, the first and
    the last one, leave the columns behind empty.

    Args:
        dem: detector error model of a rotated surface-code memory experiment.

    Attributes:
        lattice: of the model.
        layers: R + 1.
        width: detectors of a layer of the bulk.
        column: int64 (num_detectors,), each detector's place in its layer; -1 for padding.

    Raises:
        QecError: as ``SpaceTimeLattice.from_dem``; detectors that are not in the order of time, or
            not in the same order in all rounds; mechanisms that happen in half of the shots or
            more.
    """

    def __init__(self, dem: stim.DetectorErrorModel) -> None:
        if at_most_half(dem).dem is not dem:
            raise QecError(
                "windows take no mechanism that happens in half of the shots or more: decode the "
                "whole history."
            )
        self.lattice = lattice = SpaceTimeLattice.from_dem(dem)
        self.layers = lattice.rounds + 1
        self._used = np.flatnonzero(lattice.sector != PADDING)
        layer = lattice.layer[self._used]
        if (np.diff(layer) < 0).any():
            raise QecError(
                "the detectors of the model are not in the order of time: a stream has them so."
            )
        self._start = np.searchsorted(layer, np.arange(self.layers + 1))
        self.column = np.full(lattice.num_detectors, -1)
        self.column[self._used] = np.arange(len(layer)) - self._start[layer]
        self.width = int(self.column.max()) + 1
        place = np.stack([lattice.row, lattice.col], axis=1)[self._used]
        bulk = np.split(place, self._start[1:-1])[1:-1]
        for k, found in enumerate(bulk, start=1):
            if not np.array_equal(found, bulk[0]):
                raise QecError(
                    f"the detectors of round {k} are in another order than those of round 1: a "
                    "stream needs rounds that are all alike."
                )

    def detectors_of_layer(self, layer: int, layers: int | None = None) -> int:
        """How many detectors a layer has in an experiment of ``layers`` (None: of any length)."""
        if layer == 0 or layer + 1 == layers:
            return int(self._start[1])
        return self.width

    def split(self, shots: np.ndarray, rounds: int) -> np.ndarray:
        """Shots as layers: uint8 (B, detectors) -> uint8 (B, rounds + 1, width).

        Raises:
            QecError: another number of detectors than an experiment of so many rounds has.
        """
        layers = rounds + 1
        sizes = [self.detectors_of_layer(k, layers) for k in range(layers)]
        if layers == self.layers and shots.shape[1:] == (self.lattice.num_detectors,):
            shots = shots[:, self._used]
        if shots.shape[1:] != (sum(sizes),):
            raise QecError(
                f"a shot has {shots.shape[-1]} detectors, but {rounds} rounds {sum(sizes)}."
            )
        split = np.zeros((len(shots), layers, self.width), dtype=np.uint8)
        split[:, np.arange(self.width) < np.array(sizes)[:, None]] = shots
        return split

    def place(self, window: Window, layers: int | None) -> Window:
        """Where the like of a window lies in the reference.

        Args:
            window: of an experiment of ``layers`` layers; None: so long that the window is far from
                its end.

        Returns:
            a place that windows which are alike share; the window itself where it has no like in an
            experiment as long as the reference.

        Raises:
            QecError: the reference is too short.
        """
        if window.start == 0 and window.end == layers != self.layers:
            raise QecError(
                f"{layers - 1} rounds are one window: give the model of that very experiment."
            )
        first = window.start < EDGE and window.end != layers
        last = layers is not None and layers - window.end < EDGE and not first
        shift = 0 if first else EDGE - window.start
        if layers is not None and last:
            shift = self.layers - layers
        placed = window.shifted(shift)
        low, high = (0 if first else EDGE), self.layers - (0 if last else EDGE)
        if placed.start < low or placed.end > high:
            if layers == self.layers:  # near both its ends, say
                return window
            raise QecError(
                f"the model has {self.layers - 1} rounds: "
                f"{rounds_needed(window.end - window.start)} are needed to cut windows of "
                f"{window.end - window.start} layers from it."
            )
        return placed


def rounds_needed(longest: int) -> int:
    """Rounds of a reference that has room for windows of up to ``longest`` layers."""
    return longest + 2 * EDGE - 1
