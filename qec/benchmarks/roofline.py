"""What the machine can do at most: multiply-adds and bytes per second, measured."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import torch
from torch.nn.functional import conv3d

from qec.predecoder.predecoder import CompiledPredecoder

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
        """Measures matrix products (``dtype``) and copies of memory, for ``seconds`` each."""
        a, b = (torch.randn(_SIDE, _SIDE).to(dtype) for _ in range(2))
        source = torch.zeros(_BYTES, dtype=torch.uint8)
        target = torch.empty_like(source)
        return cls(
            multiply_adds=_SIDE**3 * rate(lambda: torch.mm(a, b), seconds),
            bytes=2 * _BYTES * rate(lambda: target.copy_(source), seconds),
        )

    def seconds(self, bound: CompiledPredecoder, events: torch.Tensor) -> float:
        """The least time that the network takes for a shot, on average over some.

        Its multiply-adds at full rate (without those with padding or, where it has ``active_only``,
        with cells that have no features, and with events that are none), or the reading and writing
        of every layer's activations, whichever takes longer.

        Args:
            events: (B, 4, T, Y, X), as ``bound`` makes them.
        """
        network = bound.network
        active = network.active(events)[:, None].float()
        everywhere = torch.ones_like(active)
        convolutions = network.convolutions()
        reads = [everywhere, *[active] * (len(convolutions) - 1)]
        writes = [*[active] * (len(convolutions) - 1), everywhere]
        multiply_adds = moved = 0.0
        for conv, read, written in zip(convolutions, reads, writes, strict=True):
            if not network.active_only:
                read = written = everywhere
            outputs, inputs, *kernel = conv.shape
            _, tap, _ = conv.terms()
            by_tap = torch.bincount(tap, minlength=math.prod(kernel)).float()
            operands = inputs * read
            if network.active_only and conv is network.stem:
                operands = events.sum(dim=1, keepdim=True).float()
            read_by = conv3d(operands, by_tap.view(1, 1, *kernel), padding=kernel[0] // 2)
            multiply_adds += (read_by * written).sum().item()
            values = outputs * written.sum() + inputs * conv.groups * read.sum()
            moved += values.item() * bound.dtype.itemsize
        return max(multiply_adds / self.multiply_adds, moved / self.bytes) / len(events)


def rate(call: Callable[[], object], seconds: float) -> float:
    """Calls per second, after a first one that does not count."""
    call()
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds or calls == 0:
        call()
        calls += 1
    return calls / elapsed
