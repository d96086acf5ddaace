"""Post-training quantisation of an exported graph, calibrated on sampled detection events.

The hidden convolutions, where nearly all multiply-adds are, get quantised inputs, outputs and
kernels; the first and the last layer stay in float32, which costs little time and most of the error
(the last layer's output is compared with the commit threshold).  Everything is symmetric, kernels
per output channel: TensorRT takes no other zero points than 0.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qec.errors import QecError
from qec.export.graph import INPUT
from qec.optional import optional

_BATCH = 64


def quantise(model, shots: np.ndarray):
    """An int8 version of ``model`` in the QuantizeLinear/DequantizeLinear format.

    Args:
        model: from ``onnx_model``, float32 (an ``onnx.ModelProto``).
        shots: uint8 (B, num_detectors), detection events to calibrate on.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        QecError: onnxruntime is not installed, or the network has no hidden convolution.
    """
    onnx = optional("onnx", "'qec[export]'")
    ort = optional("onnxruntime.quantization", "'qec[export]'")
    batches = iter([{INPUT: shots[k : k + _BATCH]} for k in range(0, len(shots), _BATCH)])

    class Reader(ort.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    _, *hidden, _ = (node.name for node in model.graph.node if node.op_type == "Conv")
    if not hidden:
        raise QecError("the network has no hidden convolution to quantise: use precision=float16.")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, out = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)  # given a model, quantize_static would change it
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
        return onnx.load(out)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice to run ONNX Runtime's own shape inference first, which gains nothing."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
