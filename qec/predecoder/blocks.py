"""The pre-decoder on experiments of any length, block by block of layers.

A block is a window whose buffer is the network's reach: the bits of its core come out as they would
over the whole history.  Every edge is committed by one block, the one whose core holds its first
end; its second end may flip a detector of the layer after, which is handed on.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.board import Explained, left_and_carry
from qec.config import positive_integer
from qec.predecoder.correction import BoundPredecoder, Predecoder
from qec.predecoder.grid import CellGrid
from qec.reference import Reference, Window


class BlockCutter:
    """Blocks for experiments of any length, cut from a reference; those that are alike once.

    Args:
        predecoder: the network.
        reference: an experiment that is long enough, see ``Reference.place``.
        device, backend: as in ``Predecoder.bind``.
        itself: the blocks are those of the reference itself; it may differ from round to round.
    """

    def __init__(
        self,
        predecoder: Predecoder,
        reference: Reference,
        device: str = "cpu",
        backend: str = "eager",
        *,
        itself: bool = False,
    ) -> None:
        self.reach = predecoder.network.reach
        self._predecoder = predecoder
        self._device, self._backend = device, backend
        self._reference, self._itself = reference, itself
        self._cut: dict[Window, LayerBlock] = {}
        self._grid: CellGrid | None = None

    def block(self, window: Window, layers: int | None) -> LayerBlock:
        """What pre-decodes ``window`` of an experiment of ``layers`` (None: far from its end).

        Raises:
            QecError: as ``Reference.place``.
        """
        place = window if self._itself else self._reference.place(window, layers)
        if place not in self._cut:
            if self._grid is None:
                self._grid = CellGrid(self._reference.lattice)
            grid = self._grid.cut(place.start, place.end)
            core = (place.core_start - place.start, place.core_end - place.start)
            bound = self._predecoder.bind(grid, self._device, core, backend=self._backend)
            layer = self._reference.lattice.layer
            column = self._reference.column[(layer >= place.start) & (layer < place.end)]
            width = self._reference.width
            self._cut[place] = LayerBlock(bound, grid.lattice.layer * width + column)
        return self._cut[place]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerBlock:
    """A block that takes its events layer by layer.

    Attributes:
        predecoder: on its layers, commits in its core only.
        places: int64, where its detectors stand in its layers, flattened.
    """

    predecoder: BoundPredecoder
    places: np.ndarray

    def apply(self, layers: np.ndarray) -> Explained:
        """Commits corrections.

        Args:
            layers: uint8 (B, end - start, width), its detection events.
        """
        events = layers.reshape(len(layers), -1).take(self.places, axis=1)
        found = self.predecoder.apply(events)
        explained = np.zeros_like(layers)
        explained.reshape(len(layers), -1)[:, self.places] = events ^ found.residual
        return Explained(explained, found.committed)


@dataclasses.dataclass(frozen=True, eq=False)
class Predecoded:
    """A block of a stream.

    Attributes:
        start: the layer at which its core starts.
        left: uint8 (B, layers of the core, width), the events that it leaves there.
        carry: uint8 (B, width), the events that it explains in the layer after its core.
        flips: uint8 (B,), the logical flips that it commits.
    """

    start: int
    left: np.ndarray
    carry: np.ndarray
    flips: np.ndarray


class StreamingPredecoder:
    """Takes layers one by one and pre-decodes block after block.

    Args:
        cutter: makes the blocks.
        block: layers that a block commits.
    """

    def __init__(self, cutter: BlockCutter, block: int) -> None:
        self._cutter, self._block = cutter, positive_integer("block", block)
        self._core = 0  # the layer at which the next core starts
        self._start = 0  # the layer of the first one that is kept
        self._events: list[np.ndarray] = []  # as they came, (batch, width)

    def push(self, events: np.ndarray) -> Predecoded | None:
        """The next layer, uint8 (batch, width), not the last one -> a block that is complete."""
        self._events.append(events)
        end = self._core + self._block
        if self._start + len(self._events) < end + self._cutter.reach:
            return None
        return self._commit(Window(self._start, end + self._cutter.reach, self._core, end), None)

    def flush(self, events: np.ndarray, last: int) -> list[Predecoded]:
        """The last layer -> the blocks that are left; layers ``last`` and later are one of them."""
        self._events.append(events)
        layers = self._start + len(self._events)
        blocks = []
        while self._core < layers:
            end = self._core + self._block if self._core < last else layers
            window = Window(self._start, min(end + self._cutter.reach, layers), self._core, end)
            blocks.append(self._commit(window, layers))
        return blocks

    def _commit(self, window: Window, layers: int | None) -> Predecoded:
        seen = np.stack(self._events[: window.end - window.start], axis=1)
        explained, flips = self._cutter.block(window, layers).apply(seen)
        left, carry = left_and_carry(window, seen, explained)
        self._core = window.core_end
        start = max(self._core - self._cutter.reach, 0)
        del self._events[: start - self._start]
        self._start = start
        return Predecoded(window.core_start, left, carry, flips)
