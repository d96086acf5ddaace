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

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from qec.predecoder.network import CubeConv, PreDecoderNetwork

_CELLS_PER_PASS = 4096  # so that what a convolution gathers stays within a few MB


def sparse_logits(
    network: PreDecoderNetwork, events: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    """``network.dense_logits(events, features)``, up to rounding, in the dtype of ``events``.

    Args:
        network: one with ``active_only``.
        events: (B, 4, T, Y, X).
        features: (1, width, T, Y, X).
    """
    active = int((events != 0).any(dim=1).sum())
    shots = max(1, _CELLS_PER_PASS * len(events) // max(active, 1))
    parts = [_one_pass(network, part, features) for part in events.split(shots)]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _one_pass(
    network: PreDecoderNetwork, events: torch.Tensor, features: torch.Tensor
) -> torch.Tensor:
    cells = ActiveCells(events, network.head.shape[-1])
    width = features.shape[1]
    static = features[0].reshape(width, -1).t().to(events.dtype)
    h = _stem(network.stem, events, cells) + static.index_select(0, cells.cell)
    for conv in network.hidden:
        update = _Convolution.apply(network.activation(h), _taps(conv, h.dtype), cells)
        update = update + conv.bias.to(h.dtype)
        h = h + update if network.residual else update
    return _head(network.head, network.activation(h), cells)


class Padded(NamedTuple):
    """Active cells in a volume with a margin as wide as a kernel reaches.

    Attributes:
        shape: (B, T, Y, X), the margin included.
        place: int64 (n,), where each cell is in the flattened volume.
        step: int64 (k^3,), how far each tap of the kernel leads there.
    """

    shape: tuple[int, int, int, int]
    place: torch.Tensor
    step: torch.Tensor


class ActiveCells:
    """Which cells hold events, and which of them are neighbours.

    Args:
        events: (B, 4, T, Y, X).
        kernel: odd size of the hidden convolutions.

    Attributes:
        cell: int64 (n,), which cell of its shot each is.
        source, target: int64 (P,), the pairs, tap by tap: ``target`` reads ``source``.
        runs: of each tap but the middle one, (tap, start, end) of its pairs.
        order, start: int64 (P,) and (n,): pairs by target, and where in them each target starts.
    """

    def __init__(self, events: torch.Tensor, kernel: int) -> None:
        active = (events != 0).any(dim=1)
        self._extent = active.shape
        self._at = active.nonzero()
        self.cell = active.flatten().nonzero().squeeze(1) % active[0].numel()
        n = len(self.cell)
        shape, place, step = self.padded(kernel)
        number = torch.full((math.prod(shape),), -1)
        number[place] = torch.arange(n)
        half = len(step) // 2  # what tap k reads one way, tap k^3 - 1 - k reads the other
        neighbour = number[place + step[:half, None]]
        found = neighbour >= 0
        here, there = found.nonzero()[:, 1], neighbour[found]
        self.source, self.target = torch.cat([there, here]), torch.cat([here, there])
        ends = found.sum(dim=1).cumsum(0).tolist()
        runs = list(zip(range(half), [0, *ends], ends, strict=False))
        self.runs = runs + [
            (2 * half - k, len(here) + start, len(here) + end) for k, start, end in runs
        ]
        self.order = torch.argsort(self.target, stable=True)
        degree = torch.bincount(self.target, minlength=n)
        self.start = degree.cumsum(0) - degree

    def padded(self, kernel: int) -> Padded:
        """The cells with the margin of a kernel of this odd size."""
        reach = kernel // 2
        shots, t, y, x = self._extent
        shape = (shots, t + 2 * reach, y + 2 * reach, x + 2 * reach)
        offsets = itertools.product(range(-reach, reach + 1), repeat=3)
        strides = torch.tensor([math.prod(shape[k:]) for k in range(1, 5)])
        step = torch.tensor(list(offsets)) @ strides[1:]
        place = (self._at + torch.tensor([0, reach, reach, reach])) @ strides
        return Padded(shape, place, step)


def _stem(conv: CubeConv, events: torch.Tensor, cells: ActiveCells) -> torch.Tensor:
    """The first convolution in active cells, (n, width)."""
    kernel = conv.shape[-1]
    _, place, step = cells.padded(kernel)
    margin = (0, 0, *(kernel // 2,) * 6)
    channels = functional.pad(events.movedim(1, -1), margin).flatten(0, 3)
    seen = channels.index_select(0, (place[:, None] + step).flatten())
    taps = _taps(conv, events.dtype).flatten(0, 1)
    return seen.view(-1, len(taps)) @ taps + conv.bias.to(events.dtype)


def _head(conv: CubeConv, h: torch.Tensor, cells: ActiveCells) -> torch.Tensor:
    """The last convolution, in all cells: (B, outputs, T, Y, X)."""
    outputs, kernel = len(conv.bias), conv.shape[-1]
    shape, place, step = cells.padded(kernel)
    taps = _taps(conv, h.dtype).permute(1, 0, 2).flatten(1)
    target = (place[:, None] - step).flatten()  # seen from its source, a tap leads the other way
    summed = h.new_zeros(math.prod(shape), outputs)
    summed = summed.index_add(0, target, (h @ taps).view(-1, outputs)).view(*shape, outputs)
    inner = slice(kernel // 2, -(kernel // 2) or None)
    logits = summed[:, inner, inner, inner] + conv.bias.to(h.dtype)
    return logits.movedim(-1, 1)


def _taps(conv: CubeConv, dtype: torch.dtype) -> torch.Tensor:
    """Its kernel as (k^3, inputs, outputs)."""
    outputs, inputs, *_ = conv.shape
    return conv.weight.view(outputs, inputs, -1).permute(2, 1, 0).to(dtype).contiguous()


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
        grad_taps = torch.empty_like(taps)
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
