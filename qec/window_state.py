"""What is known of experiments while their windows are decided, and the rules at the seams.

A pre-decoder's blocks are the cores of the windows, so a window that falls back on its syndrome
drops what one block committed.  A block's edges that begin in the last layer of its core may flip
detectors on both sides of the seam.  They stand unless the window beside the seam that is decided
first falls back: the other must take the seam as that one took it.

Windows of whole shots, of streams, and of the processes of a real-time run all go by these rules.
Those that look alike, of one experiment or of many, are decided in one call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Sequence
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
class ScheduledWindow:
    """A window of an experiment, whose windows are numbered in the order of time.

    Attributes:
        window: its layers.
        before, after: whether the windows before, after it are decided earlier than it.
        matcher: what decodes it.
        blocks: those that it waits for, numbered from its own on.
        carries: block and layer of the window where that block's explained events come in.
    """

    window: Window
    before: bool
    after: bool
    matcher: WindowMatcher
    blocks: range
    carries: tuple[tuple[int, int], ...]

    @property
    def core(self) -> int:
        """Layers that it commits."""
        return self.window.core_end - self.window.core_start


def schedule(
    windows: Sequence[tuple[Window, bool, bool, WindowMatcher]],
) -> list[ScheduledWindow]:
    """The windows of an experiment; ``window, before, after, matcher`` of each, in order of time.

    A window waits for the blocks of its layers, and for one that explains events there: the block
    before, unless the window starts within a block or at a seam that is decided.
    """
    starts = [window.core_start for window, *_ in windows]
    made = []
    for k, (window, before, after, matcher) in enumerate(windows):
        first, end = k, k + 1
        while starts[first] > window.start:
            first -= 1
        while end < len(starts) and starts[end] < window.end:
            end += 1
        if first and starts[first] == window.start and not before:
            first -= 1
        carries = tuple((j - 1 - k, starts[j] - window.start) for j in range(first + 1, end))
        blocks = range(first - k, end - k)
        made.append(ScheduledWindow(window, before, after, matcher, blocks, carries))
    return made


class Alike:
    """Which of an experiment's windows, or blocks, can be computed in one call.

    Args:
        windows: their layers, in the order of time.
        kinds: the same for those that look alike.
        layers: of an experiment.
    """

    def __init__(self, windows: Sequence[Window], kinds: Sequence[Hashable], layers: int) -> None:
        number = {kind: k for k, kind in enumerate(dict.fromkeys(kinds))}
        self._kind = np.array([number[kind] for kind in kinds])
        self._start = np.array([window.start for window in windows])
        self._layers = layers

    @classmethod
    def of(cls, scheduled: Sequence[ScheduledWindow], layers: int) -> Alike:
        """Of the windows of an experiment."""
        kinds = [(id(s.matcher), s.before, s.after, s.carries) for s in scheduled]
        return cls([s.window for s in scheduled], kinds, layers)

    def groups(self, numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Divides windows into those that are alike.

        Args:
            numbers: int64, of windows of experiments that follow one another.

        Yields:
            which one of the experiment's windows stands for a group, int64 (B,) the numbers of the
            group, and int64 (B,) the rows of ``WindowState.events`` from which that one's layers
            are counted.
        """
        while len(numbers):
            experiment, k = np.divmod(numbers, len(self._kind))
            one, same = k[0], self._kind[k] == self._kind[k[0]]
            origins = experiment * self._layers + self._start[k] - self._start[one]
            yield int(one), numbers[same], origins[same]
            numbers = numbers[~same]


@dataclasses.dataclass
class WindowState:
    """The state of experiments of L layers and n windows each, one experiment after the other.

    All arrays are uint8; N = B * n windows and B * L layers of B experiments.

    Attributes:
        events: (B * L, width), detection events.
        left: (B * L, width), what the block of each layer leaves of them; None without a
            pre-decoder.
        carry: (N, width), the events that a block explains in the layer after its core.
        block_flip: (N,), logical flips that a block commits.
        flip: (N,), logical flips that a window commits.
        defects: (N, 2, width), the artificial defects that it makes before and after its core.
        fell_back: (N,), whether it dropped what its block had committed.
        late: (N,), whether it was in doubt, but too late for a better decision.
    """

    events: np.ndarray
    left: np.ndarray | None
    carry: np.ndarray
    block_flip: np.ndarray
    flip: np.ndarray
    defects: np.ndarray
    fell_back: np.ndarray
    late: np.ndarray

    @classmethod
    def of(cls, events: np.ndarray, windows: int, predecoder: bool) -> WindowState:
        """An empty one for ``events`` (B, L, width) with ``windows`` windows each."""
        batch, _, width = events.shape
        count = batch * windows
        events = events.reshape(-1, width)
        return cls(
            events=events,
            left=np.zeros_like(events) if predecoder else None,
            carry=np.zeros((count if predecoder else 0, width), dtype=np.uint8),
            block_flip=np.zeros(count, dtype=np.uint8),
            flip=np.zeros(count, dtype=np.uint8),
            defects=np.zeros((count, 2, width), dtype=np.uint8),
            fell_back=np.zeros(count, dtype=np.uint8),
            late=np.zeros(count, dtype=np.uint8),
        )

    def predecode(
        self, window: Window, block: Block, numbers: np.ndarray, origins: np.ndarray
    ) -> None:
        """Enters blocks that are alike.

        Args:
            window: the layers of a block, from some origin on.
            block: what pre-decodes them.
            numbers: int64 (B,), of the blocks.
            origins: int64 (B,), the rows of ``events`` that are the origins.
        """
        events = self.events[_layers(window.start, window.end, origins)]
        explained, self.block_flip[numbers] = block.apply(events)
        core = slice(window.core_start - window.start, window.core_end - window.start)
        if core.stop < explained.shape[1]:
            self.carry[numbers] = explained[:, core.stop]
        left = (events ^ explained)[:, core]
        self.left[_layers(window.core_start, window.core_end, origins)] = left

    def decide(
        self,
        scheduled: ScheduledWindow,
        numbers: np.ndarray,
        origins: np.ndarray,
        due: np.ndarray | None = None,
    ) -> None:
        """Decides windows that are alike; those that are earlier than they, and blocks, are there.

        Args:
            scheduled: one of them, its layers from some origin on.
            numbers, origins: as of ``predecode``.
            due: as of ``WindowMatcher.decode``.
        """
        syndrome, residual = self.layers(scheduled, numbers, origins)
        found = scheduled.matcher.decode(syndrome, residual, due)
        self.defects[numbers] = found.defects
        self.fell_back[numbers] = found.fell_back
        self.late[numbers] = found.late
        self.flip[numbers] = found.flips ^ (self.block_flip[numbers] & ~found.fell_back)

    def layers(
        self, scheduled: ScheduledWindow, numbers: np.ndarray, origins: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """What windows are decided by; arguments as of ``decide``.

        Returns:
            uint8 (B, layers, width), their syndromes; the same, what the blocks leave of them, one
            and the same array without a pre-decoder.  Artificial defects are included.
        """
        window = scheduled.window
        rows = _layers(window.start, window.end, origins)
        syndrome = residual = self.events[rows]
        if self.left is not None:
            residual = self.left[rows]
            for block, layer in scheduled.carries:
                residual[:, layer] ^= self.carry[numbers + block]
        if scheduled.before:
            seam = self.defects[numbers - 1, 1]
            if self.left is not None:  # what the block before explains, if it stands
                seam = seam ^ self.carry[numbers - 1] * (1 - self.fell_back[numbers - 1])[:, None]
                residual[:, 0] ^= seam
            syndrome[:, 0] ^= seam
        if scheduled.after:
            seam = self.defects[numbers + 1, 0]
            if self.left is not None:  # what its own block explains, unless that was dropped
                dropped = self.fell_back[numbers + 1][:, None]
                residual[:, -1] ^= seam ^ self.carry[numbers] * dropped
                seam = seam ^ self.carry[numbers] * (1 - dropped)
            syndrome[:, -1] ^= seam
        return syndrome, residual

    def forget(self, batch: int, windows: int, layers: int) -> None:
        """Drops the first windows and layers of each of ``batch`` experiments; the others move up.

        As many empty ones follow at the end.
        """
        counts = {"events": layers, "left": layers}
        for field in dataclasses.fields(self):
            array, count = getattr(self, field.name), counts.get(field.name, windows)
            if array is None or not len(array) or not count:
                continue
            each = array.reshape(batch, -1, *array.shape[1:])
            each[:, :-count] = each[:, count:].copy()
            each[:, -count:] = 0


def _layers(start: int, end: int, origins: np.ndarray) -> np.ndarray:
    """int64 (B, end - start), rows of the layers [start, end) from each origin on."""
    return origins[:, None] + np.arange(start, end)
