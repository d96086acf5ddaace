"""The blocks and windows of an experiment in the order of time, and what decodes them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Protocol

import numpy as np
import stim

from qec.reference import Reference, Window, rounds_needed
from qec.windows import LayerWindow, WindowCutter, parallel_windows

NOTHING = "nothing"
"""The name of the pre-decoder that explains nothing and costs nothing."""


class Block(Protocol):
    """As ``qec.predecoder.blocks.LayerBlock``."""

    def apply(self, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class NullBlock:
    """Explains nothing."""

    def apply(self, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros_like(layers), np.zeros(len(layers), dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class Slot:
    """One window of the experiment.

    Attributes:
        window: its layers.
        decoder: what matches them.
        gap: whether it fills the gap between two cores (layer B), after windows index - 1 and
            index + 1; those of layer A depend on no other.
    """

    window: Window
    decoder: LayerWindow
    gap: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """How an experiment is decoded; goes to the processes, which build what they need of it.

    Attributes:
        model: the text of the detector error model of a reference (matchings cannot be passed on).
        rounds: check rounds R of the experiment.
        commit, buffer: as in ``qec.windows.parallel_windows``.
        correlated: as in ``qec.windows.WindowCutter``; None is the matcher that does nothing.
        predecoder: name or path of a checkpoint, ``NOTHING``, or None for no stage of pre-decoding.
        block: layers that a block of the pre-decoder commits.
        device: where its network runs.
    """

    model: str
    rounds: int
    commit: int
    buffer: int
    correlated: bool | None
    predecoder: str | None = None
    block: int = 1
    device: str = "cpu"

    @functools.cached_property
    def reference(self) -> Reference:
        """Raises QecError: as ``Reference``."""
        return Reference(stim.DetectorErrorModel(self.model))

    @property
    def layers(self) -> int:
        return self.rounds + 1

    def slots(self) -> list[Slot]:
        """Parallel windows: layer A at even places, the gaps of layer B between them.

        Raises:
            QecError: as ``parallel_windows``, or a model that is too short.
        """
        ahead, *gaps = parallel_windows(self.layers, self.commit, self.buffer)
        cutter = WindowCutter(self.reference, self.correlated)
        slots = []
        for k, window in enumerate(ahead):
            slots.append(Slot(window, cutter.window(window, self.layers), False))
            if k + 1 < len(ahead):
                gap = gaps[0][k]
                decoder = cutter.window(gap, self.layers, before=True, after=True)
                slots.append(Slot(gap, decoder, True))
        return slots

    @functools.cached_property
    def block_windows(self) -> list[Window]:
        """The layers of the blocks; none without a pre-decoder.

        Raises:
            QecError: the checkpoint cannot be loaded.
        """
        if self.predecoder is None:
            return []
        from qec.predecoder.blocks import block_windows  # torch only where needed
        from qec.predecoder.checkpoint import load_predecoder

        reach = 0
        if self.predecoder != NOTHING:
            reach = load_predecoder(self.predecoder).network.reach
        return block_windows(self.layers, self.block, reach)

    def blocks(self) -> list[Block]:
        """What pre-decodes each of ``block_windows``.

        Raises:
            QecError: the checkpoint cannot be loaded, the device is not there, or the model is too
                short.
        """
        if self.predecoder in (None, NOTHING):
            return [NullBlock() for _ in self.block_windows]
        from qec.predecoder.blocks import BlockCutter
        from qec.predecoder.checkpoint import load_predecoder

        predecoder = load_predecoder(self.predecoder)
        rules = predecoder.rules
        rule = rules.correlated if self.correlated else rules.uncorrelated
        cutter = BlockCutter(predecoder, rule, self.reference, self.device)
        return [cutter.block(window, self.layers) for window in self.block_windows]


def model_rounds(commit: int, buffer: int, block: int, reach: int) -> int:
    """Rounds of a reference from which windows and blocks of any longer experiment can be cut."""
    return rounds_needed(max(commit + 2 * buffer, block + 2 * reach))
