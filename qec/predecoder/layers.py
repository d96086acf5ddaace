"""The layers of the pre-decoder network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from qec.predecoder.unit_cells import EDGE_CHANNELS, STATIC_CHANNELS, edge_ends

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "silu": functional.silu,
}


class CubeConv(nn.Module):
    """k x k x k convolution, same size out; its kernel is the matrix (out, in k^3 / groups).

    That is the shape in which Muon orthogonalises its update.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, gain: float = 1.0, groups: int = 1
    ) -> None:
        super().__init__()
        self.groups = groups
        self.shape = (outputs, inputs // groups, kernel, kernel, kernel)
        fan_in = self.shape[1] * kernel**3
        self.weight = nn.Parameter(torch.randn(outputs, fan_in) * gain * (2 / fan_in) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, in, T, Y, X) -> (B, out, T, Y, X), in the dtype of ``x``."""
        kernel, reach = self.kernel(), self.shape[-1] // 2
        if _takes_onednn(x):
            kernel, bias = kernel.to(x.dtype), self.bias.to(x.dtype)
            return torch.ops.aten.mkldnn_convolution(
                x, kernel, bias, [reach] * 3, [1] * 3, [1] * 3, self.groups
            )
        return functional.conv3d(x, kernel, self.bias, padding=reach, groups=self.groups)

    def kernel(self) -> torch.Tensor:
        """(outputs, inputs / groups, k, k, k)."""
        return self.weight.view(self.shape)

    def terms(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What a cell adds to the outputs around it: m weights for each of its inputs.

        Returns:
            (inputs, m), int64 (m,) the tap by which each is read, int64 (m,) the output that reads.
        """
        outputs, inputs, *_ = self.shape
        by_tap = self.weight.view(outputs, inputs, -1).permute(1, 2, 0)
        pairs = torch.cartesian_prod(torch.arange(by_tap.shape[1]), torch.arange(outputs))
        return by_tap.flatten(1), pairs[:, 0], pairs[:, 1]

    def parts(self) -> tuple[CubeConv]:
        """As ``SeparableConv.parts``."""
        return (self,)


class EndsConv(CubeConv):
    """A ``CubeConv`` for edges, each of which reads the cells of its two ends."""

    _output: torch.Tensor
    _tap: torch.Tensor
    _end: torch.Tensor

    def __init__(self, inputs: int, kernel: int, gain: float) -> None:
        super().__init__(inputs, EDGE_CHANNELS, kernel, gain)
        ends = [(k, *end) for k in range(EDGE_CHANNELS) for end in edge_ends(k)]
        output, *offset = (torch.tensor(column) for column in zip(*ends, strict=True))
        tap = torch.zeros_like(output)
        for o in offset:
            tap = kernel * tap + o + kernel // 2
        end = torch.full((EDGE_CHANNELS, kernel**3), len(ends))
        end[output, tap] = torch.arange(len(ends))
        for name, index in {"_output": output, "_tap": tap, "_end": end.flatten()}.items():
            self.register_buffer(name, index, persistent=False)
        self.weight = nn.Parameter(torch.randn(len(ends), inputs) * gain * (2 / inputs) ** 0.5)

    def kernel(self) -> torch.Tensor:
        """As ``CubeConv.kernel``: the weights of the ends, zeros elsewhere."""
        outputs, inputs, *_ = self.shape
        or_zero = functional.pad(self.weight, (0, 0, 0, 1))
        by_tap = or_zero.index_select(0, self._end).view(outputs, -1, inputs)
        return by_tap.transpose(1, 2).reshape(self.shape)

    def terms(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``CubeConv.terms``, of the ends alone."""
        return self.weight.t(), self._tap, self._output


class StaticStem(nn.Module):
    """What the first layer adds in each cell for the error model: computed once per lattice.

    Two layers, since where an edge is says little and what surrounds it much; the first one mixes
    channels within a cell and keeps the second one small.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.within = CubeConv(STATIC_CHANNELS, _STATIC_WIDTH, kernel=1)
        self.around = CubeConv(_STATIC_WIDTH, width, kernel, gain=0.5)

    def forward(self, static: torch.Tensor) -> torch.Tensor:
        """(1, STATIC_CHANNELS, T, Y, X) -> (1, width, T, Y, X), float32."""
        prior = (static[:, :EDGE_CHANNELS] - _LOWEST).clamp(min=0) / 4
        x = torch.cat([prior, static[:, EDGE_CHANNELS:]], dim=1)
        return self.around(functional.relu(self.within(x)))


_STATIC_WIDTH = 32
_LOWEST = -12.0  # log-odds: as if there were no such edge


def _takes_onednn(x: torch.Tensor) -> bool:
    """Whether to choose oneDNN by hand: torch passes over it for a single small volume.

    It is 3 times faster there, and gives the bits that it gives in a batch.
    """
    return (
        torch.is_inference_mode_enabled()
        and not torch.compiler.is_compiling()
        and x.shape[0] == 1
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
    )


class SeparableConv(nn.Module):
    """A convolution of each channel by itself, then two matrices on each cell.

    Between active cells it takes a third of the multiply-adds of a ``CubeConv`` (the order of
    ConvNeXt: Liu et al., CVPR 2022, arXiv:2201.03545).
    """

    def __init__(self, width: int, kernel: int, activation: str, gain: float) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.around = CubeConv(width, width, kernel, groups=width)
        with torch.no_grad():  # at first each cell sees itself best
            self.around.weight[:, kernel**3 // 2] += 1
        self.within = CubeConv(width, width, kernel=1)
        self.out = CubeConv(width, width, kernel=1, gain=gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, width, T, Y, X) -> the same shape and dtype."""
        return self.out(self.activation(self.within(self.activation(self.around(x)))))

    def parts(self) -> tuple[CubeConv, CubeConv, CubeConv]:
        """In the order in which they are computed."""
        return self.around, self.within, self.out
