"""What is known of experiments while their windows are decided, and the rules at the seams.

The pre-decoder's blocks are the cores of the windows, so a window that falls back on its syndrome
drops what one block committed.  A block's edges that begin in the last layer of its core may flip
detectors on both sides of the seam.  They stand unless the window beside the seam that is decided
first falls back: the other must take the seam as that one took it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Protocol

import numpy as np

from qec.reference import Window
from qec.window_cutter import WindowMatcher


class Explained(NamedTuple):
    """What a block makes of its layers.

    Attributes:
        events: uint8 (B, layers, width), those that its corrections explain: in its core and in the
            layer after.
        flips: uint8 (B,), the logical flips that it commits.
    """

    events: np.ndarray
    flips: np.ndarray


class Block(Protocol):
    """As ``qec.predecoder.blocks.LayerBlock``."""

    def apply(self, layers: np.ndarray) -> Explained: ...


@dataclasses.dataclass(frozen=True)
class Slot:
    """A window of an experiment.

    Attributes:
        window: its layers.
        before, after: whether the windows before, after it are decided earlier than it.
        matcher: what decodes it.
    """

    window: Window
    before: bool
    after: bool
    matcher: WindowMatcher

    @property
    def core(self) -> slice:
        return slice(self.window.core_start, self.window.core_end)


@dataclasses.dataclass
class Board:
    """The state of B experiments with n windows each; arrays are uint8 where nothing else is said.

    Attributes:
        events: (B, layers, width), detection events.
        left: (B, layers, width), what the block of each layer leaves of them; None without a
            pre-decoder.
        carry: (B, n, width), the events that a block explains in the layer after its core.
        block_flip: (B, n), logical flips that a block commits.
        flip: (B, n), logical flips that a window commits.
        defects: (B, n, 2, width), the artificial defects that it makes before and after its core.
        fell_back: (B, n), whether it dropped what its block had committed.
    """

    events: np.ndarray
    left: np.ndarray | None
    carry: np.ndarray
    block_flip: np.ndarray
    flip: np.ndarray
    defects: np.ndarray
    fell_back: np.ndarray

    @classmethod
    def of(cls, events: np.ndarray, windows: int, predecoder: bool) -> Board:
        """An empty one for ``events`` (B, layers, width)."""
        batch, _, width = events.shape
        return cls(
            events=events,
            left=np.zeros_like(events) if predecoder else None,
            carry=np.zeros((batch, windows, width), dtype=np.uint8),
            block_flip=np.zeros((batch, windows), dtype=np.uint8),
            flip=np.zeros((batch, windows), dtype=np.uint8),
            defects=np.zeros((batch, windows, 2, width), dtype=np.uint8),
            fell_back=np.zeros((batch, windows), dtype=np.uint8),
        )

    def predecode(self, k: int, window: Window, block: Block) -> None:
        """Enters block k; ``window`` has its layers."""
        events = self.events[:, window.start : window.end]
        explained, self.block_flip[:, k] = block.apply(events)
        left, self.carry[:, k] = left_and_carry(window, events, explained)
        self.left[:, window.core_start : window.core_end] = left

    def decide(self, slots: list[Slot], k: int) -> None:
        """Decides window k: the windows that are earlier than it, and blocks, are there."""
        syndrome, residual = self.layers(slots, k)
        found = slots[k].matcher.decode(syndrome, residual)
        flips, self.defects[:, k], fell_back = found
        self.fell_back[:, k] = fell_back
        self.flip[:, k] = flips ^ (self.block_flip[:, k] & ~fell_back)

    def layers(self, slots: list[Slot], k: int) -> tuple[np.ndarray, np.ndarray]:
        """What window k is decided by: the windows that are earlier than it, and blocks, are there.

        Returns:
            uint8 (B, layers, width), its syndrome; the same, what the blocks leave of it.
            Artificial defects are included.
        """
        slot = slots[k]
        syndrome, residual = self._without_seams(slots, k)
        if slot.before:
            carry, dropped = self._carry(k - 1, k - 1)
            seam = self.defects[:, k - 1, 1] ^ carry ^ dropped
            syndrome[:, 0] ^= seam
            residual[:, 0] ^= seam
        if slot.after:
            carry, dropped = self._carry(k, k + 1)
            seam = self.defects[:, k + 1, 0] ^ dropped
            residual[:, -1] ^= seam
            syndrome[:, -1] ^= seam ^ carry
        return syndrome, residual

    def _carry(self, block: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """A block's carry, and what of it does not stand since that window fell back."""
        carry = self.carry[:, block]
        return carry, carry * self.fell_back[:, window, None]

    def _without_seams(self, slots: list[Slot], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The layers of a window: the syndrome, and what the blocks leave if all of them stand."""
        slot = slots[k]
        window = slot.window
        part = slice(window.start, window.end)
        syndrome = self.events[:, part]
        if slot.before or slot.after:
            syndrome = syndrome.copy()
        if self.left is None:
            return syndrome, syndrome.copy() if slot.before or slot.after else syndrome
        residual = self.left[:, part].copy()
        for j in needed_blocks(slots, k)[1:]:
            residual[:, slots[j].window.core_start - window.start] ^= self.carry[:, j - 1]
        return syndrome, residual


def left_and_carry(
    window: Window, events: np.ndarray, explained: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a block leaves of its core, and what it explains in the layer after (see ``Board``).

    Args:
        events, explained: uint8 (B, layers of the window, width).
    """
    core = slice(window.core_start - window.start, window.core_end - window.start)
    after = core.stop < explained.shape[1]
    carry = explained[:, core.stop] if after else np.zeros_like(explained[:, 0])
    return (events ^ explained)[:, core], carry


def needed_blocks(slots: list[Slot], k: int) -> range:
    """The blocks that window k waits for: those of its layers, and one that explains events there.

    That is the block before, unless the window starts within a block or at a seam that is decided.
    """
    window, first, end = slots[k].window, k, k + 1
    while slots[first].window.core_start > window.start:
        first -= 1
    while end < len(slots) and slots[end].window.core_start < window.end:
        end += 1
    if first and slots[first].window.core_start == window.start and not slots[k].before:
        first -= 1
    return range(first, end)
