"""Post-training quantisation of a network as ONNX, calibrated on sampled detection events.

The hidden convolutions, where nearly all multiply-adds are, get quantised inputs, outputs and
kernels; the first and the last layer stay in float32: they cost little time, and quantised they
would cause most of the error (the last one's output is compared with the commit threshold).
Everything is symmetric, kernels per output channel: TensorRT takes no other zero points than 0.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qec.predecoder.onnx_model import INSTALL, quiet
from qec.support.errors import QecError
from qec.support.optional_import import optional

if TYPE_CHECKING:
    import onnx

_BATCH = 64


def quantise(
    model: onnx.ModelProto, inputs: np.ndarray, precision: str = "int8"
) -> onnx.ModelProto:
    """An 8-bit version of ``model`` in the QuantizeLinear/DequantizeLinear format.

    Args:
        model: from ``onnx_model``, float32.
        inputs: (B, ...), what it is to be calibrated on.
        precision: "int8" or "float8" (E4M3).

    Raises:
        QecError: onnxruntime is not installed, or the network has no hidden convolution.
    """
    io = optional("onnx", INSTALL)
    ort: Any = optional("onnxruntime.quantization", INSTALL)
    name = model.graph.input[0].name
    batches = iter([{name: inputs[k : k + _BATCH]} for k in range(0, len(inputs), _BATCH)])

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
                "AddQDQPairToWeight": precision == "float8",  # keeps the kernels in float32
            },
        )
        quantised = io.load(out)
    return _as_float8(quantised) if precision == "float8" else quantised


def _as_float8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turns int8 quantisation into float8, in place: the same ranges, the other type's largest."""
    helper = optional("onnx.numpy_helper", INSTALL)
    types = optional("ml_dtypes", INSTALL)
    nodes = [n for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales, zeros = ({node.input[k] for node in nodes} for k in (1, 2))
    largest = float(types.finfo(types.float8_e4m3fn).max)
    for tensor in model.graph.initializer:
        value = helper.to_array(tensor)
        if tensor.name in scales:
            tensor.CopyFrom(helper.from_array(value * np.float32(127 / largest), tensor.name))
        elif tensor.name in zeros:
            value = value.astype(types.float8_e4m3fn)
            tensor.CopyFrom(helper.from_array(value, tensor.name))
    del model.graph.value_info[:]  # the types of before
    return model
