"""Where the windows of an experiment lie in a run, and what each of them waits for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from qec.realtime.plan import Plan, Slot
from qec.realtime.shared import SharedRun
from qec.reference import Window


@dataclasses.dataclass(frozen=True)
class Place:
    """A window of one of the experiments of a run.

    Attributes:
        index: among the windows of all experiments.
        slot: the window and what decodes it.
        window: its layers, of the layers of all experiments.
        blocks: [start, end) of the pre-decoder's blocks that it waits for.
        carries: (layer of the window, block) pairs: what that block explains in that layer.
    """

    index: int
    slot: Slot
    window: Window
    blocks: tuple[int, int]
    carries: tuple[tuple[int, int], ...]

    def is_ready(self, run: SharedRun) -> bool:
        """Whether the layers of a window of layer A have arrived and are pre-decoded."""
        if self.blocks[0] == self.blocks[1]:
            return bool(run.arrived[self.window.end - 1])
        return bool(run.block_done[self.blocks[0] : self.blocks[1]].all())

    def layers(self, run: SharedRun) -> np.ndarray:
        """uint8 (end - start, width), artificial defects included."""
        source = run.residual if run.layout.blocks else run.events
        layers = source[self.window.start : self.window.end]
        if not self.carries and not self.slot.gap:
            return layers
        layers = layers.copy()
        for layer, block in self.carries:
            layers[layer] ^= run.carry[block]
        if self.slot.gap:
            layers[0] ^= run.defects[self.index - 1, 1]
            layers[-1] ^= run.defects[self.index + 1, 0]
        return layers


def window_places(plan: Plan, slots: Sequence[Slot], shots: int) -> list[Place]:
    """The windows of all experiments of a run, in the order of time."""
    blocks = plan.block_windows
    starts = np.array([b.core_start for b in blocks], dtype=np.int64)
    places = []
    for k, slot in enumerate(slots):
        window = slot.window
        # Of the blocks whose cores overlap the window, and the one before if a core starts with it.
        first = int(np.searchsorted(starts, window.start, side="left")) - 1
        end = int(np.searchsorted(starts, window.end, side="left"))
        carries = tuple(
            (int(starts[b]) - window.start, b - 1)
            for b in range(max(first, 0), end)
            if b > 0 and starts[b] >= window.start
        )
        for shot in range(shots):
            shift = shot * len(blocks)
            places.append(
                Place(
                    shot * len(slots) + k,
                    slot,
                    window.shifted(shot * plan.layers),
                    (max(first, 0) + shift, end + shift) if blocks else (0, 0),
                    tuple((layer, b + shift) for layer, b in carries),
                )
            )
    return sorted(places, key=lambda p: p.index)
