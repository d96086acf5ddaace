"""What the processes of a run share: one block of memory, every entry with one writer."""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing

import numpy as np

from qec.board import Board
from qec.errors import QecError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of the arrays.

    Attributes:
        layers: layers of detectors of all experiments, one after the other.
        width: detectors of a layer, at most.
        slots: windows of all experiments.
        blocks: blocks of the pre-decoder of all experiments.
        matchers, predecoders: processes of either stage.
    """

    layers: int
    width: int
    slots: int
    blocks: int
    matchers: int
    predecoders: int

    @property
    def workers(self) -> int:
        return self.matchers + self.predecoders

    def fields(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every array; the widest entries first, so that all are aligned."""
        return {
            "arrived": ((self.layers,), np.int64),
            "started": ((self.slots,), np.int64),
            "done": ((self.slots,), np.int64),
            "block_started": ((self.blocks,), np.int64),
            "block_done": ((self.blocks,), np.int64),
            "ready": ((self.workers,), np.int64),
            "memory": ((self.workers, 2), np.int64),
            "begin": ((1,), np.int64),
            "stop": ((1,), np.int64),
            "source": ((self.layers, self.width), np.uint8),
            "events": ((self.layers, self.width), np.uint8),
            "left": ((self.layers if self.blocks else 0, self.width), np.uint8),
            "carry": ((self.slots, self.width), np.uint8),
            "block_flip": ((self.slots,), np.uint8),
            "defects": ((self.slots, 2, self.width), np.uint8),
            "flip": ((self.slots,), np.uint8),
            "fell_back": ((self.slots,), np.uint8),
        }


class SharedRun:
    """The arrays; times are ``time.monotonic_ns()``, 0 as long as something has not happened.

    Attributes:
        arrived: when a layer's events had arrived (producer).
        started, done: when a window was begun, was decided (its matcher, after the results).
        block_started, block_done: the same for the blocks (their pre-decoder).
        ready: when a worker was set up (the worker; matchers first, then pre-decoders).
        memory: bytes that a worker has for itself, when set up and at the end (the worker).
        begin, stop: the signals to begin and to stop early (collector).
        source: detection events to come (collector).
        events: those that have arrived (producer).
        left, carry, block_flip: as in ``Board``, of all experiments (pre-decoder).
        defects, flip, fell_back: likewise (matcher).
    """

    arrived: np.ndarray
    started: np.ndarray
    done: np.ndarray
    block_started: np.ndarray
    block_done: np.ndarray
    ready: np.ndarray
    memory: np.ndarray
    begin: np.ndarray
    stop: np.ndarray
    source: np.ndarray
    events: np.ndarray
    left: np.ndarray
    carry: np.ndarray
    block_flip: np.ndarray
    defects: np.ndarray
    flip: np.ndarray
    fell_back: np.ndarray

    def __init__(self, layout: Layout, memory: ctypes.Array | None = None) -> None:
        """In new memory (None), or in that of another ``SharedRun``.

        Raises:
            QecError: there is not so much memory.
        """
        fields = layout.fields()
        sizes = [int(np.prod(s)) * np.dtype(t).itemsize for s, t in fields.values()]
        # It has no name, so that nothing of it is left when the processes are killed.
        self.memory_block = _new_block(sum(sizes)) if memory is None else memory
        offset = 0
        for (field, (shape, dtype)), size in zip(fields.items(), sizes, strict=True):
            setattr(self, field, np.ndarray(shape, dtype, self.memory_block, offset))
            offset += size
        self.layout = layout

    def boards(self, shots: int) -> list[Board]:
        """The experiments of the run, as views of its arrays."""
        names = [f.name for f in dataclasses.fields(Board)]
        arrays = {name: getattr(self, name) for name in names}
        arrays = {k: a.reshape(shots, -1, *a.shape[1:]) for k, a in arrays.items()}
        if not self.layout.blocks:
            arrays["left"] = None
        return [
            Board(**{k: None if a is None else a[s : s + 1] for k, a in arrays.items()})
            for s in range(shots)
        ]


def _new_block(size: int) -> ctypes.Array:
    """Zeros, for this process and those that it hands them to when it starts them."""
    try:
        return multiprocessing.get_context("spawn").RawArray(ctypes.c_byte, size)
    except (OSError, MemoryError) as error:
        raise QecError(
            f"there are no {size / 1e6:.0f} MB of shared memory for a run: use fewer shots."
        ) from error
