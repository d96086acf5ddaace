"""The whole pre-decoder as a torch module with one input and one output, and that as ONNX.

    detection events -> grid of cells -> network -> commits -> residual and logical flip

The module calls the network that ``qec.predecoder`` runs and takes the residual's index arrays from
there.  What the network is told of the detector error model is a constant.  Matching comes after
the graph.

Names of the tensors and the order of the output, logical flips first, are those of NVIDIA's public
pre-decoders, so that tools made for those graphs can run this one: NVIDIA/Ising-Decoding,
code/export/generate_test_data.py (input, layout of the output) and NVIDIA/cudaq-qec,
docs/sphinx/examples/qec/color_code_demo/color_code_demo.py (both names).
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from qec.predecoder.onnx_model import OPSET, onnx_model
from qec.predecoder.predecoder import CompiledPredecoder
from qec.support.ragged_arrays import padded_rows

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT, LOG_ODDS = "dets", "L_and_residual_dets", "edge_log_odds"
DTYPES = {"float32": torch.float32, "float16": torch.float16}


class PredecoderModule(nn.Module):
    """Detection events in, logical flips and residual detection events out.

    Args:
        bound: a pre-decoder bound to its lattice with ``dtype=torch.float32``.
        dtype: float32 or float16, in which the network computes.
        log_odds: whether to give those of the edges, too.
    """

    features: torch.Tensor
    place: torch.Tensor
    detector_edges: torch.Tensor
    observable_edges: torch.Tensor

    def __init__(
        self, bound: CompiledPredecoder, dtype: torch.dtype = torch.float32, log_odds: bool = False
    ) -> None:
        super().__init__()
        self.log_odds = log_odds
        self.grid = bound.grid
        self.cut = bound.cut
        self.dtype = dtype
        detector_edges = _edges_at(bound.residual.ends, bound.lattice.num_detectors)
        self.fan_in = detector_edges.shape[1]
        # ``to`` changes a module in place: at float32 the same network, else a copy of it.
        self.network = (
            bound.network if dtype == torch.float32 else copy.deepcopy(bound.network).to(dtype)
        )
        if iterations := bound.network.belief_propagation:
            self.grid.belief_tensors(iterations, torch.device("cpu"))
        self.register_buffer("features", bound.features.clone().to(dtype))
        self.register_buffer("place", torch.from_numpy(bound.residual.place))
        self.register_buffer("detector_edges", torch.from_numpy(detector_edges.reshape(-1)))
        flipping = torch.from_numpy(bound.residual.flips.nonzero()[0])
        self.register_buffer("observable_edges", flipping)

    def forward(self, dets: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """What the graph computes.

        Args:
            dets: uint8 (B, num_detectors).

        Returns:
            uint8 (B, 1 + num_detectors); with ``log_odds`` also float32 (B, n), those that the
            edges of ``bound.residual`` have fired.
        """
        # TensorRT takes uint8 as input and output only: cast first, and last.
        seen = self.grid.pack(dets.float(), self.network.belief_propagation, self.dtype)
        told = self.network.from_static_features(seen, self.features)
        told = told.movedim(1, -1).flatten(1).index_select(1, self.place)
        edges = (told > self.cut).to(torch.int32)
        edges = functional.pad(edges, (0, 1))  # the edge that fills up the table, never there
        around = edges.index_select(1, self.detector_edges).unflatten(1, (-1, self.fan_in))
        events_left = dets.to(torch.int32) + around.sum(2, dtype=torch.int32)
        flips = edges.index_select(1, self.observable_edges).sum(1, keepdim=True, dtype=torch.int32)
        out = torch.cat([flips, events_left], 1).remainder(2).to(torch.uint8)
        return (out, told.float()) if self.log_odds else out


def _edges_at(ends: np.ndarray, num_detectors: int) -> np.ndarray:
    """int64 (num_detectors, k), the edges that end at each; where there are fewer, their number."""
    edge, which = np.nonzero(ends < num_detectors)
    return padded_rows(ends[edge, which], edge, num_detectors, len(ends))


def predecoder_graph(module: PredecoderModule, opset: int = OPSET) -> onnx.ModelProto:
    """The module as ONNX with a dynamic number of shots; raises as ``onnx_model``."""
    example = torch.zeros(2, module.grid.lattice.num_detectors, dtype=torch.uint8)
    names = (INPUT, OUTPUT, LOG_ODDS) if module.log_odds else (INPUT, OUTPUT)
    return onnx_model(module, example, names, opset)
