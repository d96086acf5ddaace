"""A TensorRT engine from an exported graph: ``qec export-tensorrt graph=...``.

Networks are strongly typed: the engine computes in the types of the graph.  TensorRT 10.12
deprecated the flags that chose a precision at build time, and TensorRT 11 dropped them (TensorRT
documentation, "Migrating from TensorRT 10.x to 11.x", Python API reference).  What the graph needs
is supported since 10.15 at the latest: opset 9 to 24, Gather, Mod and ReduceSum on int32, uint8 as
network input and output, QuantizeLinear with zero points of 0 (onnx/onnx-tensorrt,
docs/operators.md of 10.15).  No engine was built in the making of this: there was no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from qec.export.graph import INPUT
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path
from qec.support.optional_import import optional
from qec.support.settings import positive_integer, required_path


def build_engine(graph: Path, batch: int) -> bytes:
    """The serialised engine for 1 to ``batch`` shots at a time, for the GPU of this machine.

    Args:
        graph: an .onnx file of `qec export`.
        batch: most shots at a time.

    Raises:
        QecError: tensorrt is not installed, there is no GPU, the file is missing, or TensorRT
            refuses it.
    """
    trt = optional("tensorrt", "tensorrt (on a machine with an NVIDIA GPU)")
    try:
        content = graph.read_bytes()
    except OSError as error:
        raise QecError(f"cannot read {graph}: {error.strerror}. Run `qec export` first.") from error
    logger = trt.Logger(trt.Logger.WARNING)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:
        raise QecError(f"TensorRT finds no usable GPU: {first_line(error)}.") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        reasons = "; ".join(parser.get_error(k).desc() for k in range(parser.num_errors))
        raise QecError(f"TensorRT {trt.__version__} cannot read {graph}: {reasons}.")
    detectors = network.get_input(0).shape[1]
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, (1, detectors), (batch, detectors), (batch, detectors))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise QecError(f"TensorRT {trt.__version__} cannot build {graph}; its log says why.")
    return bytes(engine)


def build(config: DictConfig, _: Sequence[str] = ()) -> Path:
    """Builds as configured by conf/export-tensorrt.yaml; returns the file that it wrote."""
    graph = required_path(config, "graph")
    out = graph.with_suffix(".engine") if config.out is None else required_path(config, "out")
    engine = build_engine(graph, positive_integer("batch", config.batch))
    with atomic_path(out) as temporary:
        temporary.write_bytes(engine)
    print(f"{out}: {len(engine)} bytes")
    return out
