"""What the machine can do at most: multiply-adds and bytes per second, measured."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import torch

from qec.predecoder.correction import BoundPredecoder

_SIDE = 1024  # of the matrices: large enough for the full rate
_BYTES = 2**27  # copied: more than caches hold


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Rates of one process while the others measure theirs.

    Attributes:
        multiply_adds: per second, of a matrix product in the network's number format.
        bytes: per second, read and written, of a copy.
    """

    multiply_adds: float
    bytes: float

    @classmethod
    def measured(cls, dtype: torch.dtype, seconds: float = 0.5) -> Roofline:
        a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
        source = torch.zeros(_BYTES, dtype=torch.uint8)
        target = torch.empty_like(source)
        return cls(
            multiply_adds=_SIDE**3 * rate(lambda: torch.mm(a, b), seconds),
            bytes=2 * _BYTES * rate(lambda: target.copy_(source), seconds),
        )

    def seconds(self, bound: BoundPredecoder, dtype: torch.dtype) -> float:
        """The least time that the network takes for a shot.

        Its multiply-adds at full rate (without those with padding), or the reading and writing of
        every layer's activations, whichever takes longer.
        """
        shape = bound.grid.shape
        multiply_adds = moved = 0.0
        for conv in bound.network.convolutions():
            outputs, inputs, *kernel = conv.shape
            taps = math.prod(_taps(n, k) for n, k in zip(shape, kernel, strict=True))
            multiply_adds += outputs * inputs * taps
            moved += (outputs + inputs) * math.prod(shape) * dtype.itemsize
        return max(multiply_adds / self.multiply_adds, moved / self.bytes)


def _taps(extent: int, kernel: int) -> int:
    """Pairs of a position and a tap of the kernel there that does not lie in the padding."""
    return sum(max(extent - abs(k), 0) for k in range(-(kernel // 2), kernel // 2 + 1))


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls per second, after a first one that does not count."""
    call()
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or calls == 0:
        call()
        calls += 1
    return calls / elapsed
