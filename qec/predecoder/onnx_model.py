"""torch modules as ONNX graphs, and those in ONNX Runtime."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn

from qec.support.errors import QecError
from qec.support.optional_import import optional

if TYPE_CHECKING:
    import onnx
    import onnxruntime

INSTALL = "onnx onnxscript onnxruntime"
OPSET = 23


def onnx_model(
    module: nn.Module, example: torch.Tensor, names: tuple[str, ...], opset: int = OPSET
) -> onnx.ModelProto:
    """A module of one input as ONNX, with a dynamic first axis.

    Args:
        module: what to export.
        example: an input, of the shape and dtype of all others; the first axis is 2 or more.
        names: of the input and of every output.
        opset: version of the ONNX operators.

    Raises:
        QecError: onnx or onnxscript are not installed, or torch cannot export to ``opset``.
    """
    checker = optional("onnx.checker", INSTALL)
    optimizer = optional("onnxscript.optimizer", INSTALL)
    with quiet():
        program = torch.onnx.export(
            module.eval(),
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=names[:1],
            output_names=names[1:],
            dynamic_shapes=({0: torch.export.Dim("shots")},),
            verbose=False,
        )
    # Kernels are kept as matrices; TensorRT and quantisation want constants of the final shape.
    assert program is not None
    everything = 2**31
    optimizer.optimize_ir(program.model, input_size_limit=everything, output_size_limit=everything)
    model = program.model_proto
    made = model.opset_import[0].version
    if made != opset:  # where it cannot convert, torch leaves its own version
        raise QecError(f"torch cannot export to opset={opset}, only to {made}: use that.")
    checker.check_model(model, full_check=True)
    return model


def onnxruntime_session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """The model on the CPU; QecError where onnxruntime is not installed."""
    ort = optional("onnxruntime", INSTALL)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    if any(t.data_type == t.FLOAT8E4M3FN for t in model.graph.initializer):
        # ONNX Runtime 1.32's further optimisations give float8 graphs wrong results on CPUs.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    providers = ["CPUExecutionProvider"]
    return ort.InferenceSession(model.SerializeToString(), options, providers=providers)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the notes of exporters and converters on what they would like to have."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
