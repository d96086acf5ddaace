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
import functools
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from qec.support.compiled_loops import compiled
from qec.windows.template import Window
from qec.windows.window_matcher import Columns, WindowMatcher


class BlockCorrection(NamedTuple):
    """What a block makes of its layers.

    Attributes:
        events: uint8 (B, layers, width), those that its corrections explain: in its core and in the
            layer after.
        flips: uint8 (B,), the logical flips that it commits.
    """

    events: np.ndarray
    flips: np.ndarray


class Block(Protocol):
    """As ``qec.windows.predecode_blocks.LayerBlock``."""

    def apply(self, layers: np.ndarray) -> BlockCorrection:
        """uint8 (B, layers, width), events -> what the block explains of them."""


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

    @functools.cached_property
    def carries_table(self) -> np.ndarray:
        """``carries``, int64 (number of them, 2)."""
        return np.array(self.carries, dtype=np.int64).reshape(-1, 2)

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


class SimilarWindows:
    """Which windows, or blocks, of experiments that follow one another can go into one call.

    Args:
        windows: the layers of those of an experiment, in the order of time.
        kinds: the same for those that look alike.
        layers: of an experiment.
        experiments: how many there are.
    """

    def __init__(
        self, windows: Sequence[Window], kinds: Sequence[Hashable], layers: int, experiments: int
    ) -> None:
        first = {kind: k for k, kind in reversed(list(enumerate(kinds)))}
        self._like = np.tile([first[kind] for kind in kinds], experiments)
        starts = np.array([window.start for window in windows], dtype=np.int64)
        self._row = (layers * np.arange(experiments)[:, None] + starts).reshape(-1)

    @classmethod
    def of(
        cls, scheduled: Sequence[ScheduledWindow], layers: int, experiments: int
    ) -> SimilarWindows:
        """Of the windows of an experiment."""
        kinds = [(id(s.matcher), s.before, s.after, s.carries) for s in scheduled]
        return cls([s.window for s in scheduled], kinds, layers, experiments)

    def groups(self, numbers: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Divides windows into those that are alike.

        Args:
            numbers: int64, of windows of all experiments.

        Yields:
            which one of an experiment's windows stands for a group; int64 (B,) the numbers of the
            group; and int64 (B,) the rows of ``WindowState.events`` where their layers start.
        """
        while len(numbers):
            like = self._like[numbers]
            same = like == like[0]
            some = numbers if same.all() else numbers[same]
            yield int(like[0]), some, self._row[some]
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

    @classmethod
    def rehearse(cls, scheduled: ScheduledWindow, width: int, predecoder: bool) -> None:
        """Decides a window without events: compiled loops are loaded at the first call."""
        beside = 1 + max((abs(block) for block, _ in scheduled.carries), default=0)
        layers = scheduled.window.end - scheduled.window.start
        state = cls.of(np.zeros((1, layers, width), np.uint8), 2 * beside + 1, predecoder)
        state.decide(scheduled, np.array([beside]), np.array([0]))

    def predecode(
        self, window: Window, block: Block, numbers: np.ndarray, first: np.ndarray
    ) -> None:
        """Enters blocks that are alike.

        Args:
            window: the layers of one of them.
            block: what pre-decodes them.
            numbers: int64 (B,), of the blocks.
            first: int64 (B,), the rows of ``events`` where their layers start.
        """
        rows = first[:, None] + np.arange(window.end - window.start)
        assert self.left is not None
        events = self.events[rows]
        explained, self.block_flip[numbers] = block.apply(events)
        core = slice(window.core_start - window.start, window.core_end - window.start)
        if core.stop < explained.shape[1]:
            self.carry[numbers] = explained[:, core.stop]
        self.left[rows[:, core]] = (events ^ explained)[:, core]

    def decide(
        self,
        scheduled: ScheduledWindow,
        numbers: np.ndarray,
        first: np.ndarray,
        due: np.ndarray | None = None,
    ) -> None:
        """Decides windows that are alike; those that are earlier than they, and blocks, are there.

        Args:
            scheduled: one of them.
            numbers, first: as of ``predecode``.
            due: as of ``WindowMatcher.decode``.
        """
        matcher = scheduled.matcher

        def syndrome(which: np.ndarray) -> np.ndarray:
            assert matcher.doubt is not None  # or nobody would ask
            columns = matcher.doubt.columns
            return self.syndrome(scheduled, columns, numbers[which], first[which])

        residual = self._read(scheduled, matcher.columns, numbers, first, self.left is not None)
        found = matcher.decode(residual, syndrome, due)
        arrays = self.block_flip, self.flip, self.defects, self.fell_back, self.late
        _enter(*found, matcher.columns.scatter, numbers, *arrays)

    def syndrome(
        self,
        scheduled: ScheduledWindow,
        columns: Columns,
        numbers: np.ndarray,
        first: np.ndarray,
    ) -> np.ndarray:
        """Events of windows as they would be had no block committed anything in their cores.

        Args:
            scheduled, numbers, first: as of ``decide``.
            columns: the detectors.

        Returns:
            uint8 (B, detectors), artificial defects included.
        """
        return self._read(scheduled, columns, numbers, first, False)

    def _read(
        self,
        scheduled: ScheduledWindow,
        columns: Columns,
        numbers: np.ndarray,
        first: np.ndarray,
        residual: bool,
    ) -> np.ndarray:
        """``syndrome``; or what the blocks leave of it."""
        carries = scheduled.carries_table if residual else scheduled.carries_table[:0]
        source = self.left if residual else self.events
        seams = self.carry, self.defects, self.fell_back, scheduled.before, scheduled.after
        table = columns.layer_start, columns.column
        return _read(source, numbers, first, *table, carries, *seams, residual)

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


@compiled
def _read(
    source: np.ndarray,
    numbers: np.ndarray,
    first: np.ndarray,
    layer_start: np.ndarray,
    column: np.ndarray,
    carries: np.ndarray,
    carry: np.ndarray,
    defects: np.ndarray,
    fell_back: np.ndarray,
    before: bool,
    after: bool,
    residual: bool,
) -> np.ndarray:
    """Events of windows at the detectors of ``Columns``, with the rules at the seams.

    Worked example: D0, in the last layer of the core before, and D1, in the first layer of this
    window, are the ends of an edge; both have events.  If the block before committed that edge and
    its window did not fall back, ``carry`` removes the event at D1.  If that window fell back and
    matched D0 to D1 itself, ``defects`` does.  If it matched D0 elsewhere, nothing does: D1's event
    has its partner D2 further on.
    """
    layers = len(layer_start) - 1
    found = np.empty((len(numbers), len(column)), np.uint8)
    for b in range(len(numbers)):
        k, to = numbers[b], found[b]
        for layer in range(layers):
            row = source[first[b] + layer]
            for i in range(layer_start[layer], layer_start[layer + 1]):
                to[i] = row[column[i]]
        for c in range(len(carries)):
            block, layer = k + carries[c, 0], carries[c, 1]
            for i in range(layer_start[layer], layer_start[layer + 1]):
                to[i] ^= carry[block, column[i]]
        if before:
            # What the block before explains here stands unless its window fell back.
            stands = len(carry) > 0 and not fell_back[k - 1]
            for i in range(layer_start[0], layer_start[1]):
                to[i] ^= defects[k - 1, 1, column[i]]
                if stands:
                    to[i] ^= carry[k - 1, column[i]]
        if after:
            # What its own block explains there: the residual has it, unless the window after fell
            # back; the syndrome has it not, and must take it over if it stands.
            changes = len(carry) > 0 and (fell_back[k + 1] > 0) == residual
            for i in range(layer_start[layers - 1], layer_start[layers]):
                to[i] ^= defects[k + 1, 0, column[i]]
                if changes:
                    to[i] ^= carry[k, column[i]]
    return found


@compiled
def _enter(
    observables: np.ndarray,
    in_doubt: np.ndarray,
    too_late: np.ndarray,
    scatter: np.ndarray,
    numbers: np.ndarray,
    block_flip: np.ndarray,
    flip: np.ndarray,
    defects: np.ndarray,
    fell_back: np.ndarray,
    late: np.ndarray,
) -> None:
    """Enters what ``WindowMatcher.decode`` returns into the arrays of ``WindowState``."""
    width = defects.shape[2]
    for b in range(len(numbers)):
        k = numbers[b]
        fell_back[k], late[k] = in_doubt[b], too_late[b]
        flip[k] = observables[b, 0]
        if not in_doubt[b]:
            flip[k] ^= block_flip[k]
        defects[k] = 0
        for j in range(len(scatter)):
            defects[k, scatter[j] // width, scatter[j] % width] = observables[b, 1 + j]
