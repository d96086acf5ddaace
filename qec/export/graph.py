"""The whole pre-decoder as a torch module with one input and one output, and that as ONNX.

    detection events -> grid of cells -> network -> commit rule -> residual and logical flip

The module calls the network that ``qec.predecoder`` runs and takes the residual's index arrays from
there.  What the network knows of the noise level depends on the detector error model only, so it
is a constant.  Matching, and the fallback on it, come after the graph.

Names of the tensors and the order of the output, logical flips first, are those of NVIDIA's public
pre-decoders, so that tools made for those graphs can run this one: NVIDIA/Ising-Decoding,
code/export/generate_test_data.py (input, layout of the output) and NVIDIA/cudaq-qec,
docs/sphinx/examples/qec/color_code_demo/color_code_demo.py (both names).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

from qec.predecoder.correction import BoundPredecoder
from qec.predecoder.onnx_model import OPSET, onnx_model
from qec.predecoder.rule import CommitRule

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "dets", "L_and_residual_dets"
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class PredecoderModule(nn.Module):
    """Detection events in, logical flips and residual detection events out.

    Args:
        bound: a pre-decoder bound to its lattice with ``dtype=torch.float32``.
        rule: what it commits.
        dtype: float32 or float16, in which the network computes.
    """

    def __init__(
        self, bound: BoundPredecoder, rule: CommitRule, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.grid = bound.grid
        self.cut = rule.cut
        self.dtype = dtype
        table = bound.incidence
        self.fan_in = table.detector.shape[1]
        # ``to`` changes a module in place: at float32 the same network, else a copy of it.
        self.network = (
            bound.network if dtype == torch.float32 else copy.deepcopy(bound.network).to(dtype)
        )
        self.register_buffer("features", bound.features.clone().to(dtype))
        self.register_buffer("detector_bits", torch.from_numpy(table.detector.reshape(-1)))
        self.register_buffer("observable_bits", torch.from_numpy(table.observable))

    def forward(self, dets: torch.Tensor) -> torch.Tensor:
        """uint8 (B, num_detectors) -> uint8 (B, 1 + num_detectors)."""
        # TensorRT takes uint8 as input and output only: cast first, and last.
        events = self.grid.pack_events(dets.to(self.dtype))
        logits = self.network.from_static_features(events, self.features)
        bits = (logits > self.cut).flatten(1).to(torch.int32)
        bits = functional.pad(bits, (0, 1))  # the bit that fills up the table, never set
        around = bits.index_select(1, self.detector_bits).unflatten(1, (-1, self.fan_in))
        events_left = dets.to(torch.int32) + around.sum(2, dtype=torch.int32)
        flips = bits.index_select(1, self.observable_bits).sum(1, keepdim=True, dtype=torch.int32)
        return torch.cat([flips, events_left], 1).remainder(2).to(torch.uint8)


def predecoder_graph(module: PredecoderModule, opset: int = OPSET) -> onnx.ModelProto:
    """The module as ONNX with a dynamic number of shots; raises as ``onnx_model``."""
    example = torch.zeros(2, module.grid.lattice.num_detectors, dtype=torch.uint8)
    return onnx_model(module, example, (INPUT, OUTPUT), opset)
