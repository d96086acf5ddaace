"""What producer, workers and collector share: one block of memory, every entry with one writer."""

from __future__ import annotations

import dataclasses
from multiprocessing import shared_memory
from types import TracebackType

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """Sizes of the arrays.

    Attributes:
        layers: layers of detectors of all experiments, one after the other.
        width: detectors of a layer, at most.
        slots: windows of all experiments.
        workers: decoder processes.
    """

    layers: int
    width: int
    slots: int
    workers: int

    def fields(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """Shape and dtype of every array; the widest entries first, so that all are aligned."""
        return {
            "arrived": ((self.layers,), np.int64),
            "started": ((self.slots,), np.int64),
            "done": ((self.slots,), np.int64),
            "ready": ((self.workers,), np.int64),
            "begin": ((1,), np.int64),
            "stop": ((1,), np.int64),
            "events": ((self.layers, self.width), np.uint8),
            "defects": ((self.slots, 2, self.width), np.uint8),
            "flip": ((self.slots,), np.uint8),
        }


class SharedRun:
    """The arrays; times are ``time.monotonic_ns()``, 0 as long as something has not happened.

    Attributes:
        arrived: when a layer's events had arrived (producer).
        started, done: when a window was begun, was decided (its worker, after the results).
        ready: when a worker was set up (the worker).
        begin, stop: the signals to begin and to stop early (collector).
        events: detection events (producer).
        defects, flip: what a window commits, see ``Plan.decode`` (its worker).
    """

    arrived: np.ndarray
    started: np.ndarray
    done: np.ndarray
    ready: np.ndarray
    begin: np.ndarray
    stop: np.ndarray
    events: np.ndarray
    defects: np.ndarray
    flip: np.ndarray

    def __init__(self, layout: Layout, name: str | None = None) -> None:
        """Creates the block (``name`` None) or joins one."""
        fields = layout.fields()
        sizes = [int(np.prod(s)) * np.dtype(t).itemsize for s, t in fields.values()]
        self._owner = name is None
        if self._owner:
            self._memory = shared_memory.SharedMemory(create=True, size=sum(sizes))
        else:
            self._memory = shared_memory.SharedMemory(name=name)
        offset = 0
        for (field, (shape, dtype)), size in zip(fields.items(), sizes, strict=True):
            array = np.ndarray(shape, dtype, buffer=self._memory.buf, offset=offset)
            if self._owner:
                array[...] = 0
            setattr(self, field, array)
            offset += size
        self.layout = layout

    @property
    def name(self) -> str:
        """By which other processes join."""
        return self._memory.name

    def __enter__(self) -> SharedRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for field in self.layout.fields():
            delattr(self, field)  # no view may outlive the block
        self._memory.close()
        if self._owner:
            self._memory.unlink()
