"""Post-training quantisation of an exported graph, calibrated on sampled detection events.

The hidden convolutions, where nearly all multiply-adds are, get quantised inputs, outputs and
kernels; the first and the last layer stay in float32, which costs little time and most of the error
(the last layer's output is compared with the commit threshold).  Everything is symmetric, kernels
per output channel: TensorRT takes no other zero points than 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qec.errors import QecError
from qec.export.graph import INPUT, quiet
from qec.optional import optional

if TYPE_CHECKING:
    import onnx

_BATCH = 64


def quantise(model: onnx.ModelProto, shots: np.ndarray) -> onnx.ModelProto:
    """An int8 version of ``model`` in the QuantizeLinear/DequantizeLinear format.

    Args:
        model: from ``onnx_model``, float32.
        shots: uint8 (B, num_detectors), detection events to calibrate on.

    Raises:
        QecError: onnxruntime is not installed, or the network has no hidden convolution.
    """
    io = optional("onnx", "'qec[export]'")
    ort = optional("onnxruntime.quantization", "'qec[export]'")
    batches = iter([{INPUT: shots[k : k + _BATCH]} for k in range(0, len(shots), _BATCH)])

    class Reader(ort.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    _, *hidden, _ = (node.name for node in model.graph.node if node.op_type == "Conv")
    if not hidden:
        raise QecError("the network has no hidden convolution to quantise: use precision=float16.")
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, out = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        io.save(model, source)  # given a model, quantize_static would change it
        ort.quantize_static(
            source,
            out,
            Reader(),
            quant_format=ort.QuantFormat.QDQ,
            nodes_to_quantize=hidden,
            per_channel=True,
            activation_type=ort.QuantType.QInt8,
            weight_type=ort.QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,  # TensorRT dequantises 8-bit types only
            },
        )
        return io.load(out)
