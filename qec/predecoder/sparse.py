"""The network on the cells that hold detection events, and on no others.

At p = 0.006 a fifth of the cells hold an event, at p = 0.001 a thirtieth, and neighbours that both
do are rarer still.  A network with ``active_only`` has features in such cells only, so that its
hidden convolutions are sums over pairs of them: 5 % of the multiply-adds at p = 0.006, d = 9, and
0.4 % at p = 0.001 (submanifold convolutions: Graham, Engelcke, van der Maaten, CVPR 2018,
arXiv:1711.10275).

Shapes: n active cells in all shots; P ordered pairs of active neighbours, a cell and itself left
out; k^3 taps of a kernel; B shots of a volume (T, Y, X).
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from qec.predecoder.network import CubeConv, PreDecoderNetwork

_CELLS_PER_PASS = 4096  # so that what a convolution gathers stays within a few MB


class Kernel(NamedTuple):
    """A convolution, tap by tap.

    Attributes:
        taps: (k^3, inputs, outputs), contiguous.
        bias: (outputs,).
    """

    taps: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, conv: CubeConv, dtype: torch.dtype) -> Kernel:
        outputs, inputs, *_ = conv.shape
        taps = conv.weight.view(outputs, inputs, -1).permute(2, 1, 0)
        return cls(taps.to(dtype).contiguous(), conv.bias.to(dtype))


class SparseNetwork:
    """``network.dense_logits(., features)`` on active cells, the same up to rounding.

    Gradients flow back to the network; what is prepared here holds until its weights change.

    Args:
        network: one with ``active_only``, on the CPU.
        features: (1, width, T, Y, X), its ``stem_static`` of a lattice.
        dtype: in which to compute.
    """

    def __init__(
        self, network: PreDecoderNetwork, features: torch.Tensor, dtype: torch.dtype
    ) -> None:
        self._activation, self._residual = network.activation, network.residual
        self._size = network.stem.shape[-1]
        self._stem, *self._hidden, self._head = (
            Kernel.of(conv, dtype) for conv in network.convolutions()
        )
        # T Y X, width: what the first convolution starts from in each cell.
        self._static = features[0].flatten(1).t().to(dtype) + self._stem.bias

    def __call__(self, events: torch.Tensor) -> torch.Tensor:
        """events (B, 4, T, Y, X) -> logits (B, 12, T, Y, X), some shots at a time."""
        active = (events != 0).any(dim=1)
        shots = max(1, _CELLS_PER_PASS * len(events) // max(int(active.sum()), 1))
        parts = [
            self._one_pass(*part)
            for part in zip(events.split(shots), active.split(shots), strict=True)
        ]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _one_pass(self, events: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        cells = ActiveCells(active, self._size)
        start = self._static.index_select(0, cells.cell)
        h = _first(self._stem, events.to(start.dtype), start, cells)
        for kernel in self._hidden:
            update = _Convolution.apply(self._activation(h), kernel.taps, cells) + kernel.bias
            h = h + update if self._residual else update
        return _last(self._head, self._activation(h), cells)


class ActiveCells:
    """Which cells hold events, and which of them are neighbours.

    Args:
        active: bool (B, T, Y, X), the cells with events.
        size: k, odd, of the kernels.

    Attributes:
        margin: k // 2.
        padded: the shape (B, T, Y, X) with that margin on each side of T, Y and X.
        cell: int64 (n,), which cell of its shot each is.
        place: int64 (n,), where each is in the flattened padded volume.
        step: int64 (k^3,), how far each tap leads there.
        source: int64 (P,), which cell each pair reads; the pairs are in order of taps.
        runs: of each tap but the middle one that has pairs, (tap, start, end) of them.
        order, start: int32 (P,) and (n,): pairs by the cell that reads, and where its pairs start.
    """

    def __init__(self, active: torch.Tensor, size: int) -> None:
        self.margin = size // 2
        around = functional.pad(active, (self.margin,) * 6)
        self.padded = around.shape
        self.cell = active.flatten().nonzero().squeeze(1) % active[0].numel()
        self.place = around.flatten().nonzero().squeeze(1)
        strides = torch.tensor([math.prod(self.padded[axis:]) for axis in (2, 3, 4)])
        self.step = _offsets(size) @ strides

        n = len(self.place)
        number = torch.full((around.numel(),), -1)
        number[self.place] = torch.arange(n)
        half = len(self.step) // 2  # what tap k reads one way, tap k^3 - 1 - k reads the other
        neighbour = number.take(self.place + self.step[:half, None])
        found = neighbour >= 0
        pair = found.flatten().nonzero().squeeze(1)
        here, there = pair % n, neighbour.take(pair)
        self.source, target = torch.cat([there, here]), torch.cat([here, there])
        ends = found.sum(dim=1).cumsum(0).tolist()
        runs = list(zip(range(half), [0, *ends], ends, strict=False))
        runs += [(2 * half - k, len(here) + start, len(here) + end) for k, start, end in runs]
        self.runs = [run for run in runs if run[1] < run[2]]
        by_target = _gathering(target, n).tocsr()  # sorts by counting
        self.order = torch.from_numpy(by_target.indices)
        self.start = torch.from_numpy(by_target.indptr[:-1])


@functools.cache
def _offsets(size: int) -> torch.Tensor:
    """int64 (k^3, 3), where the taps of a kernel lead."""
    reach = size // 2
    return torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=3)))


def _gathering(target: torch.Tensor, size: int) -> scipy.sparse.csc_array:
    """int64 (m,) -> the matrix (size, m) that adds up what has the same target."""
    ones = np.ones(len(target), dtype=np.float32)
    return scipy.sparse.csc_array(
        (ones, target.numpy(), np.arange(len(target) + 1)), shape=(size, len(target))
    )


def _first(
    kernel: Kernel, events: torch.Tensor, start: torch.Tensor, cells: ActiveCells
) -> torch.Tensor:
    """``start``, (n, width), and the first convolution in active cells, without its bias."""
    around = functional.pad(events.movedim(1, -1), (0, 0, *(cells.margin,) * 6))
    # The four events of a cell, a byte each, move as one number.
    together = around.to(torch.uint8).flatten().view(torch.int32)
    seen = together.take(cells.place[:, None] + cells.step).view(torch.uint8)
    return torch.addmm(start, seen.to(start.dtype), kernel.taps.flatten(0, 1))


def _last(kernel: Kernel, h: torch.Tensor, cells: ActiveCells) -> torch.Tensor:
    """The last convolution, in all cells: (B, outputs, T, Y, X)."""
    outputs = len(kernel.bias)
    # Seen from its source, a tap leads the other way.
    target = (cells.place[:, None] - cells.step).flatten()
    terms = (h @ kernel.taps.permute(1, 0, 2).flatten(1)).view(-1, outputs)
    logits = _Sums.apply(terms, target, math.prod(cells.padded))
    inner = slice(cells.margin, -cells.margin or None)
    logits = logits.view(*cells.padded, outputs)[:, inner, inner, inner] + kernel.bias
    return logits.movedim(-1, 1)


class _Sums(torch.autograd.Function):
    """terms (m, outputs), target int64 (m,) -> (size, outputs), sums of those with each target.

    As ``index_add``, which takes five times as long.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        terms: torch.Tensor,
        target: torch.Tensor,
        size: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(target)
        sums = _gathering(target, size) @ terms.detach().float().numpy()
        return torch.from_numpy(sums).to(terms.dtype)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple:
        (target,) = ctx.saved_tensors
        return grad.index_select(0, target), None, None


class _Convolution(torch.autograd.Function):
    """x (n, inputs), taps (k^3, inputs, outputs) -> (n, outputs).

    Its gradient in x is a convolution over the same pairs, with the taps in reverse.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: torch.Tensor,
        taps: torch.Tensor,
        cells: ActiveCells,
    ) -> torch.Tensor:
        out, read = _convolve(x, taps, cells)
        ctx.cells = cells
        ctx.save_for_backward(x, taps, read)
        return out

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: torch.Tensor) -> tuple:
        cells: ActiveCells = ctx.cells
        x, taps, read = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_read = _convolve(grad, taps.flip(0).transpose(1, 2), cells)
        # Half of all pairs on is the one that reads the other way: its source is this one's target.
        half = len(read) // 2
        grad_taps = torch.zeros_like(taps)
        torch.mm(x.t(), grad, out=grad_taps[len(taps) // 2])
        for tap, start, end in cells.runs:
            shift = half if start < half else -half
            grad_target = grad_read[start + shift : end + shift]
            torch.mm(read[start:end].t(), grad_target, out=grad_taps[tap])
        return grad_x, grad_taps, None


def _convolve(
    x: torch.Tensor, taps: torch.Tensor, cells: ActiveCells
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum, (n, outputs), and what each pair reads, (P, inputs)."""
    out = x @ taps[len(taps) // 2]
    read = x.index_select(0, cells.source)
    if len(read):
        terms = out.new_empty(len(read), out.shape[1])
        for tap, start, end in cells.runs:
            torch.mm(read[start:end], taps[tap], out=terms[start:end])
        out += functional.embedding_bag(cells.order, terms, cells.start, mode="sum")
    return out, read
