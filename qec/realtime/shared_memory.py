"""What the processes of a run share: one block of memory, every entry with one writer."""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing
from typing import Any

import numpy as np

from qec.support.errors import QecError
from qec.windows.window_state import WindowState


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of the arrays.

    Attributes:
        layers: layers of detectors of an experiment.
        experiments: how many there are; those of one group run side by side, groups one after the
            other.
        qubits: experiments of a group.
        width: detectors of a layer, at most.
        windows: of all experiments.
        blocks: blocks of the pre-decoder of all experiments.
        matchers, predecoders: processes of either stage.
    """

    layers: int
    experiments: int
    qubits: int
    width: int
    windows: int
    blocks: int
    matchers: int
    predecoders: int

    @property
    def workers(self) -> int:
        """Worker processes of both kinds."""
        return self.matchers + self.predecoders

    @property
    def steps(self) -> int:
        """Moments at which a layer of every experiment of a group arrives."""
        return self.layers * self.experiments // self.qubits

    def fields(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every array; the widest entries first, so that all are aligned."""
        rows = self.layers * self.experiments
        return {
            "arrived": ((self.steps,), np.int64),
            "steps": ((1,), np.int64),
            "started": ((self.windows,), np.int64),
            "done": ((self.windows,), np.int64),
            "block_started": ((self.blocks,), np.int64),
            "block_done": ((self.blocks,), np.int64),
            "busy": ((self.workers,), np.int64),
            "ready": ((self.workers,), np.int64),
            "memory": ((self.workers, 2), np.int64),
            "begin": ((1,), np.int64),
            "stop": ((1,), np.int64),
            "source": ((rows, self.width), np.uint8),
            "events": ((rows, self.width), np.uint8),
            "left": ((rows if self.blocks else 0, self.width), np.uint8),
            "carry": ((self.blocks, self.width), np.uint8),
            "block_flip": ((self.windows,), np.uint8),
            "flip": ((self.windows,), np.uint8),
            "defects": ((self.windows, 2, self.width), np.uint8),
            "fell_back": ((self.windows,), np.uint8),
            "late": ((self.windows,), np.uint8),
        }


class SharedRun:
    """The arrays; times are ``time.monotonic_ns()``, 0 as long as something has not happened.

    Attributes:
        arrived: when the events of a step had arrived (producer).
        steps: how many steps have (producer, after all else).
        started, done: when a window was begun, was decided (its matcher, after the results).
        block_started, block_done: the same for the blocks (their pre-decoder).
        busy: nanoseconds for which a worker has decoded (the worker).
        ready: when a worker was set up (the worker; matchers first, then pre-decoders).
        memory: bytes that a worker has for itself, when set up and at the end (the worker).
        begin, stop: the signals to begin and to stop early (collector).
        source: detection events to come (collector).
        events: those that have arrived (producer).
        left, carry, block_flip: as in ``WindowState`` (pre-decoder).
        defects, flip, fell_back, late: likewise (matcher).
    """

    arrived: np.ndarray
    steps: np.ndarray
    started: np.ndarray
    done: np.ndarray
    block_started: np.ndarray
    block_done: np.ndarray
    busy: np.ndarray
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
    late: np.ndarray

    def __init__(self, layout: Layout, memory: Any = None) -> None:
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

    def state(self) -> WindowState:
        """The experiments of the run, as views of its arrays."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(WindowState)}
        if not self.layout.blocks:
            arrays["left"] = None
        return WindowState(**arrays)


def _new_block(size: int) -> Any:
    """Zeros, for this process and those that it hands them to when it starts them."""
    try:
        return multiprocessing.get_context("spawn").RawArray(ctypes.c_byte, size)
    except (OSError, MemoryError) as error:
        raise QecError(
            f"there are no {size / 1e6:.0f} MB of shared memory for a run: use fewer shots."
        ) from error
