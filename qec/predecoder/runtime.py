"""What runs the network: torch, torch.compile, ONNX Runtime or OpenVINO.

torch is the default: its convolutions are oneDNN's.  On one core of an AVX2 machine none of the
others is faster by more than a tenth in float32 (``python -m qec.benchmark.backends``), and each
takes seconds to set up.  No machine with AVX-512 or AMX was at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from qec.errors import QecError, first_line
from qec.optional import optional
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.onnx_model import onnx_model, onnxruntime_session
from qec.predecoder.quantise import quantise
from qec.predecoder.sparse import SparseNetwork

BACKENDS = (
    *("eager", "compile", "onnxruntime", "openvino"),
    *("onnxruntime-int8", "openvino-int8"),
)
_ON_GPUS = ("eager", "compile")

Runtime = Callable[[torch.Tensor], torch.Tensor]
"""Events (B, 4, T, Y, X) -> logits (B, 12, T, Y, X)."""


class _FixedNetwork(nn.Module):
    """The network with what does not depend on the shot as a constant."""

    def __init__(self, network: PreDecoderNetwork, features: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("features", features)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        return self.network.from_static_features(events, self.features)


def check_backend(backend: str, device: torch.device) -> None:
    """QecError where it is unknown or does not run on the device."""
    if backend not in BACKENDS:
        raise QecError(f"backend={backend!r} is unknown: use {', '.join(BACKENDS)}.")
    if backend not in _ON_GPUS and device.type != "cpu":
        raise QecError(f"backend={backend} runs on the CPU only: use device=cpu, or eager.")


def network_runtime(
    backend: str,
    network: PreDecoderNetwork,
    features: torch.Tensor,
    dtype: torch.dtype,
    sampled: Callable[[], torch.Tensor],
) -> Runtime:
    """The network on a backend, with the number of threads that torch has now.

    Args:
        backend: one of ``BACKENDS``.
        network: on its device.
        features: (1, width, T, Y, X), its ``stem_static`` of the lattice.
        dtype: float32 or bfloat16; onnxruntime computes in float32 in any case, and what ends in
            int8 does so in the hidden layers.
        sampled: makes events (B, 4, T, Y, X) for int8 to be calibrated on.

    Raises:
        QecError: unknown backend, one that is not installed, does not run on the network's device,
            or fails to compile.
    """
    check_backend(backend, features.device)
    if backend == "eager":
        if network.sparse_on(features.device):
            with torch.inference_mode():
                return SparseNetwork(network, features, dtype)
        return _FixedNetwork(network, features)
    if backend == "compile":
        return _compiled(_FixedNetwork(network, features))
    fixed = _FixedNetwork(network, features.float().clone())
    shape = (2, network.stem.shape[1], *features.shape[2:])
    model = onnx_model(fixed, torch.zeros(shape), ("events", "logits"))
    runner, _, eight_bit = backend.partition("-")
    if eight_bit:
        model = quantise(model, sampled().float().numpy(), eight_bit)
    threads = torch.get_num_threads()
    if runner == "onnxruntime":
        session = onnxruntime_session(model, threads)
        return _on_arrays(lambda events: session.run(None, {"events": events})[0])
    core = optional("openvino", "'qec[openvino]'").Core()
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
    }
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", hints)
    return _on_arrays(lambda events: compiled(events)[0])


def _compiled(module: _FixedNetwork) -> Runtime:
    # On GPUs with CUDA graphs, which take a block's many small kernels in one launch.
    mode = "reduce-overhead" if module.features.is_cuda else None
    compiled = torch.compile(module, mode=mode)

    def run(events: torch.Tensor) -> torch.Tensor:
        try:
            return compiled(events)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise QecError(
                f"torch.compile fails ({first_line(error)}): it needs a C++ compiler; use eager."
            ) from error

    return run


def _on_arrays(run: Callable[[np.ndarray], np.ndarray]) -> Runtime:
    return lambda events: torch.from_numpy(run(np.ascontiguousarray(events.float().numpy())))
