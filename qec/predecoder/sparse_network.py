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
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from qec.predecoder import sparse_kernels as kernels
from qec.predecoder.unit_cells import EDGE_CHANNELS, EVENT_CHANNELS, MEMORY_EVENTS

if TYPE_CHECKING:
    from qec.predecoder.layers import CubeConv, SeparableConv
    from qec.predecoder.network import PreDecoderNetwork

_TERMS_PER_PASS = 2**17  # of the last convolution that are at hand at a time
_EVENTS_PER_PASS = 8192  # so that what a convolution gathers stays within a few MB


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
        """The kernel of a dense convolution, in ``dtype``."""
        outputs, inputs, *_ = conv.shape
        taps = conv.weight.view(outputs, inputs, -1).permute(2, 1, 0)
        return cls(taps.to(dtype).contiguous(), conv.bias.to(dtype))


class Terms(NamedTuple):
    """What active cells add to log-odds of edges.

    Attributes:
        cell: int64 (n,), which cell of its shot each is.
        start: int64 (B + 1,), where those of each shot begin.
        terms: (n, m), what each adds, to the edges that ``SparseNetwork.readers`` tell.
    """

    cell: np.ndarray
    start: np.ndarray
    terms: np.ndarray


class SparseNetwork:
    """``network.dense_logits(., features)`` on active cells, the same up to rounding.

    Gradients flow back to the network; what is prepared here holds until its weights change.

    Args:
        network: one with ``active_only``, on the CPU.
        features: (1, width + EDGE_CHANNELS, T, Y, X), its ``static_features`` of a lattice.
        dtype: in which to compute.
    """

    def __init__(
        self, network: PreDecoderNetwork, features: torch.Tensor, dtype: torch.dtype
    ) -> None:
        self._activation, self._residual = network.activation, network.residual
        self._size = network.stem.shape[-1]
        self._features = np.zeros(EVENT_CHANNELS, dtype=np.bool_)
        self._features[MEMORY_EVENTS] = True
        stem = Kernel.of(network.stem, dtype)
        matrix, tap, output = network.head.terms()
        self._head = matrix.to(dtype).contiguous(), network.head.bias.to(dtype)
        self._told = tap.numpy(), output.numpy()
        kind: Any = _Separable if network.separable else _Mixing
        self._hidden = [kind(layer, dtype) for layer in network.hidden]
        # What the first convolution adds up in a cell: a row for all that it may see by a tap, and
        # one for where the cell is.
        any_events = torch.arange(2**EVENT_CHANNELS)[:, None] >> torch.arange(EVENT_CHANNELS) & 1
        static, self._prior = features[0].split([stem.bias.numel(), EDGE_CHANNELS])
        static = static.flatten(1).t().to(dtype) + stem.bias
        self._terms = torch.cat([(any_events.to(dtype) @ stem.taps).flatten(0, 1), static])

    def __call__(self, events: torch.Tensor) -> torch.Tensor:
        """events (B, 4, T, Y, X) of any dtype -> (B, EDGE_CHANNELS, T, Y, X), in several passes."""
        parts = []
        for part in self._passes(events):
            cells, h = self._features_of(part)
            told = _Last.apply(h, *self._head, cells, *self._told)
            parts.append(told + self._prior.to(told.dtype))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def terms(self, events: torch.Tensor) -> Terms:
        """What its active cells add to the log-odds of edges: the same, before it is added up.

        Args:
            events: (B, 4, T, Y, X), as of a call.
        """
        parts = []
        for part in self._passes(events):
            cells, h = self._features_of(part)
            shot = cells.place // math.prod(cells.padded[1:])
            parts.append((cells.cell, np.bincount(shot, minlength=len(part)), h @ self._head[0]))
        cell, count, terms = zip(*parts, strict=True)
        start = np.concatenate([[0], np.concatenate(count).cumsum()])
        return Terms(np.concatenate(cell), start, _for_loops(torch.cat(terms)))

    @property
    def readers(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (m,), by which tap each term is read, and for which channel."""
        return self._told

    @property
    def bias(self) -> np.ndarray:
        """(EDGE_CHANNELS,), what is added besides terms and priors."""
        return _for_loops(self._head[1])

    @staticmethod
    def _passes(events: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = max(int(torch.count_nonzero(events)), 1)
        return events.split(max(1, _EVENTS_PER_PASS * len(events) // count))

    def _features_of(self, events: torch.Tensor) -> tuple[ActiveCells, torch.Tensor]:
        """The active cells, and (n, width), what the last layer reads there."""
        cells = ActiveCells(events, self._features, self._size)
        h = functional.embedding_bag(cells.terms, self._terms, cells.begin, mode="sum")
        for layer in self._hidden:
            update = layer(self._activation(h), cells)
            h = h + update if self._residual else update
        return cells, self._activation(h)


class _Mixing:
    """A ``CubeConv`` between hidden channels."""

    def __init__(self, conv: CubeConv, dtype: torch.dtype) -> None:
        self._kernel = Kernel.of(conv, dtype)

    def __call__(self, x: torch.Tensor, cells: ActiveCells) -> torch.Tensor:
        return _Convolution.apply(x, self._kernel.taps, cells) + self._kernel.bias


class _Separable:
    """A ``SeparableConv``."""

    def __init__(self, layer: SeparableConv, dtype: torch.dtype) -> None:
        self._activation = layer.activation
        around, *matrices = (Kernel.of(conv, dtype) for conv in layer.parts())
        self._around = Kernel(around.taps[:, 0], around.bias)
        self._matrices = [Kernel(matrix.taps[0], matrix.bias) for matrix in matrices]

    def __call__(self, x: torch.Tensor, cells: ActiveCells) -> torch.Tensor:
        x = _ChannelByChannel.apply(x, *self._around, cells)
        rectifies = self._activation is functional.relu and not torch.is_grad_enabled()
        activation = torch.relu_ if rectifies else self._activation
        for matrix in self._matrices:
            x = torch.addmm(matrix.bias, activation(x), matrix.taps)
        return x


class ActiveCells:
    """Which cells have features, and which of them are neighbours.

    Args:
        events: (B, 4, T, Y, X).
        features: bool (4,), the channels whose events give a cell features.
        size: k, odd, of the kernels.

    Attributes:
        margin: k // 2.
        padded: the shape (B, T, Y, X) with that margin on each side of T, Y and X.
        cell: int64 (n,), which cell of its shot each is.
        place: int64 (n,), where each is in the flattened padded volume.
        step: int64 (k^3,), how far each tap leads there.
        terms, begin: int32, what the first convolution adds up, as ``kernels.neighbours``.
        source, tap: int64 (P,), which cell each pair reads, by which tap; the pairs are in order of
            the cells that read.
        start: int64 (n + 1,), where the pairs of each cell that reads begin.
    """

    def __init__(self, events: torch.Tensor, features: np.ndarray, size: int) -> None:
        self.margin = size // 2
        shots, _, *volume = events.shape
        self.padded = (shots, *(extent + 2 * self.margin for extent in volume))
        seen = np.zeros(self.padded, dtype=np.uint8)
        number = np.full(self.padded, -1, dtype=np.int32)
        last = events.movedim(1, -1).to(torch.uint8).contiguous().numpy()
        found = kernels.active_cells(last, features, self.margin, seen, number)
        self.cell, self.place = found
        strides = [math.prod(self.padded[axis:]) for axis in (2, 3, 4)]
        self.step = _offsets(size) @ strides
        terms, begin, self.source, self.tap, self.start = kernels.neighbours(
            seen.ravel(), number.ravel(), self.cell, self.place, self.step
        )
        self.terms, self.begin = torch.from_numpy(terms), torch.from_numpy(begin)

    def inner(self, around: torch.Tensor) -> torch.Tensor:
        """(places, channels) -> (B, channels, T, Y, X), without the margin."""
        inner = slice(self.margin, -self.margin or None)
        return around.view(*self.padded, -1)[:, inner, inner, inner].movedim(-1, 1)

    @functools.cached_property
    def by_tap(self) -> PairsByTap:
        """The pairs in order of taps, made when first asked for."""
        return PairsByTap(self)


class PairsByTap:
    """The pairs of active cells once more, in order of taps.

    Attributes:
        source: int64 (P,), which cell each pair reads.
        runs: of each tap but the middle one that has pairs, (tap, start, end) of them.
        order, start: int64 (P,) and (n,): pairs by the cell that reads, and where its pairs start.
    """

    def __init__(self, cells: ActiveCells) -> None:
        # What tap k reads one way, tap k^3 - 1 - k reads the other: half of all pairs on.
        taps = len(cells.step)
        rank = np.where(cells.tap < taps // 2, cells.tap, taps // 2 + taps - 1 - cells.tap)
        by_tap = np.argsort(rank, kind="stable")
        self.source = torch.from_numpy(cells.source[by_tap])
        order = np.empty_like(by_tap)
        order[by_tap] = np.arange(len(order))
        self.order, self.start = torch.from_numpy(order), torch.from_numpy(cells.start[:-1])
        count = np.bincount(rank, minlength=taps - 1)
        ends = count.cumsum()
        tap = [*range(taps // 2), *range(taps - 1, taps // 2, -1)]
        runs = zip(tap, (ends - count).tolist(), ends.tolist(), strict=True)
        self.runs = [run for run in runs if run[1] < run[2]]

    def add_up(self, terms: torch.Tensor) -> torch.Tensor:
        """(P, channels), one of each pair -> (n, channels), sums for the cells that read."""
        return functional.embedding_bag(self.order, terms, self.start, mode="sum")


@functools.cache
def _offsets(size: int) -> np.ndarray:
    """int64 (k^3, 3), where the taps of a kernel lead."""
    reach = size // 2
    return np.array(list(itertools.product(range(-reach, reach + 1), repeat=3)))


class _Last(torch.autograd.Function):
    """The last convolution, in all cells: logits (B, EDGE_CHANNELS, T, Y, X).

    Args:
        h: (n, inputs), in active cells.
        matrix: (inputs, m), as of ``CubeConv.terms``.
        bias: (outputs,).
        cells: the active ones.
        tap, channel: int64 (m,), by which tap each term is read, and for which output.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: torch.Tensor,
        matrix: torch.Tensor,
        bias: torch.Tensor,
        cells: ActiveCells,
        tap: np.ndarray,
        channel: np.ndarray,
    ) -> torch.Tensor:
        ctx.cells, ctx.step, ctx.channel = cells, cells.step[tap], channel
        ctx.save_for_backward(h, matrix)
        out = kernels.rows(_for_loops(bias), math.prod(cells.padded))
        rows, start = max(1, _TERMS_PER_PASS // len(tap)), 0
        for part in h.detach().split(rows):
            terms = _for_loops(part @ matrix)
            kernels.scatter(terms, cells.place[start : start + rows], ctx.step, channel, out)
            start += rows
        return cells.inner(torch.from_numpy(out)).to(h.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        cells: ActiveCells = ctx.cells
        h, matrix = ctx.saved_tensors
        around = torch.zeros(math.prod(cells.padded), EDGE_CHANNELS)
        cells.inner(around).copy_(grad)
        read = kernels.gather(around.numpy(), cells.place, ctx.step, ctx.channel)
        read = torch.from_numpy(read).to(h.dtype)
        told = around.sum(dim=0).to(h.dtype)
        return read @ matrix.t(), h.t() @ read, told, None, None, None


class _Convolution(torch.autograd.Function):
    """x (n, inputs), taps (k^3, inputs, outputs) -> (n, outputs).

    Its gradient in x is a convolution over the same pairs, with the taps in reverse.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        taps: torch.Tensor,
        cells: ActiveCells,
    ) -> torch.Tensor:
        out, read = _convolve(x, taps, cells.by_tap)
        ctx.pairs = cells.by_tap
        ctx.save_for_backward(x, taps, read)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        pairs: PairsByTap = ctx.pairs
        x, taps, read = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_read = _convolve(grad, taps.flip(0).transpose(1, 2), pairs)
        # Half of all pairs on is the one that reads the other way: its source is this one's target.
        half = len(read) // 2
        grad_taps = torch.zeros_like(taps)
        torch.mm(x.t(), grad, out=grad_taps[len(taps) // 2])
        for tap, start, end in pairs.runs:
            shift = half if start < half else -half
            grad_target = grad_read[start + shift : end + shift]
            torch.mm(read[start:end].t(), grad_target, out=grad_taps[tap])
        return grad_x, grad_taps, None


def _convolve(
    x: torch.Tensor, taps: torch.Tensor, pairs: PairsByTap
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum, (n, outputs), and what each pair reads, (P, inputs)."""
    out = x @ taps[len(taps) // 2]
    read = x.index_select(0, pairs.source)
    if len(read):
        terms = out.new_empty(len(read), out.shape[1])
        for tap, start, end in pairs.runs:
            torch.mm(read[start:end], taps[tap], out=terms[start:end])
        out += pairs.add_up(terms)
    return out, read


class _ChannelByChannel(torch.autograd.Function):
    """x (n, channels), taps (k^3, channels), bias (channels,) -> (n, channels)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        taps: torch.Tensor,
        bias: torch.Tensor,
        cells: ActiveCells,
    ) -> torch.Tensor:
        ctx.cells = cells
        ctx.save_for_backward(x, taps)
        return _depthwise(x, taps, bias, cells)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        x, taps = ctx.saved_tensors
        cells: ActiveCells = ctx.cells
        # A neighbour by one tap reads this cell by the opposite one.
        grad_x = _depthwise(grad, taps.flip(0), taps.new_zeros(taps.shape[1]), cells)
        arrays = (t.float().contiguous().numpy() for t in (x, grad))
        grad_taps = kernels.tap_gradients(*arrays, cells.source, cells.tap, cells.start, len(taps))
        return grad_x, torch.from_numpy(grad_taps).to(taps.dtype), grad.sum(dim=0), None


def _depthwise(
    x: torch.Tensor, taps: torch.Tensor, bias: torch.Tensor, cells: ActiveCells
) -> torch.Tensor:
    arrays = (_for_loops(t) for t in (taps, bias))
    out = kernels.channel_by_channel(_for_loops(x), cells.source, cells.tap, cells.start, *arrays)
    return torch.from_numpy(out).to(x.dtype)


def _for_loops(tensor: torch.Tensor) -> np.ndarray:
    """numpy has no bfloat16: that as float32."""
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
