"""The pre-decoder on experiments of any length, block by block of layers.

A block is a window whose buffer is the network's reach: the bits of its core come out as they would
over the whole history.  Every edge is committed by one block, the one whose core holds its first
end; its second end may flip a detector of the layer after, which is handed on.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from qec.predecoder.predecoder import CompiledPredecoder, Predecoder
from qec.predecoder.unit_cells import CellGrid
from qec.windows.template import ExperimentTemplate, Window
from qec.windows.window_state import BlockCorrection


class BlockCompiler:
    """Blocks for experiments of any length, cut from a reference; those that are alike once.

    Args:
        predecoder: the network.
        reference: an experiment that is long enough, see ``ExperimentTemplate.place``.
        device, backend: as in ``Predecoder.bind``.
        itself: the blocks are those of the reference itself; it may differ from round to round.
    """

    def __init__(
        self,
        predecoder: Predecoder,
        reference: ExperimentTemplate,
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
            QecError: as ``ExperimentTemplate.place``.
        """
        place = window if self._itself else self._reference.place(window, layers)
        if place not in self._cut:
            if self._grid is None:
                self._grid = CellGrid(self._reference.lattice)
            grid = self._grid.cut(place.start, place.end)
            core = (place.core_start - place.start, place.core_end - place.start)
            bound = self._predecoder.compile_for(grid, self._device, core, backend=self._backend)
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

    predecoder: CompiledPredecoder
    places: np.ndarray

    def apply(self, layers: np.ndarray) -> BlockCorrection:
        """Commits corrections.

        Args:
            layers: uint8 (B, end - start, width), its detection events.
        """
        events = layers.reshape(len(layers), -1).take(self.places, axis=1)
        found = self.predecoder.apply(events)
        explained = np.zeros_like(layers)
        explained.reshape(len(layers), -1)[:, self.places] = events ^ found.residual
        return BlockCorrection(explained, found.committed)
