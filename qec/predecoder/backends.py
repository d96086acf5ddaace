"""What runs the network: torch, torch.compile, ONNX Runtime or OpenVINO.

torch is the default: its convolutions are oneDNN's.  On one core of an AVX2 machine none of the
others is faster by more than a tenth in float32 (``qec benchmark-backends``), and each
takes seconds to set up.  No machine with AVX-512 or AMX was at hand.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.onnx_model import onnx_model, onnxruntime_session
from qec.predecoder.quantise import quantise
from qec.predecoder.sparse_network import SparseNetwork
from qec.support.errors import QecError, first_line
from qec.support.optional_import import optional

BACKENDS = (
    *("eager", "compile", "onnxruntime", "openvino"),
    *("onnxruntime-int8", "openvino-int8"),
)
_ON_GPUS = ("eager", "compile")

_PROCESS = os.getpid()  # of which a fork is another

Runtime = Callable[[torch.Tensor], torch.Tensor]
"""Events (B, 4, T, Y, X) -> log-odds (B, EDGE_CHANNELS, T, Y, X)."""


class _FixedNetwork(nn.Module):
    """The network with what does not depend on the shot as a constant."""

    features: torch.Tensor

    def __init__(self, network: PreDecoderNetwork, features: torch.Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("features", features)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        return self.network.from_static_features(events, self.features)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """torch with ``count`` threads, and after that with as many as before: a microsecond.

    With one in a process that was forked: the threads of OpenMP do not live there, and torch would
    wait for them for ever.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count if os.getpid() == _PROCESS else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    threads: int = 1,
) -> Runtime:
    """The network on a backend.

    Args:
        backend: one of ``BACKENDS``.
        network: on its device.
        features: as of ``PreDecoderNetwork.static_features``, of the lattice.
        dtype: float32 or bfloat16; onnxruntime computes in float32 in any case, and what ends in
            int8 does so in the hidden layers.
        sampled: makes events (B, 4, T, Y, X) for int8 to be calibrated on.
        threads: of ONNX Runtime and OpenVINO; torch takes what it has (``torch_threads``).

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
    runner, _, eight_bit = backend.partition("-")
    openvino = optional("openvino", "openvino") if runner == "openvino" else None
    fixed = _FixedNetwork(network, features.float().clone())
    shape = (2, network.stem.shape[1], *features.shape[2:])
    model = onnx_model(fixed, torch.zeros(shape), ("events", "logits"))
    if eight_bit:
        model = quantise(model, sampled().float().numpy(), eight_bit)
    if openvino is None:
        session = onnxruntime_session(model, threads)
        return _on_arrays(backend, lambda events: session.run(None, {"events": events})[0])
    core = openvino.Core()
    hints = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
    }
    compiled = core.compile_model(core.read_model(model.SerializeToString(), b""), "CPU", hints)
    return _on_arrays(backend, lambda events: compiled(events)[0])


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


def _on_arrays(backend: str, run: Callable[[np.ndarray], np.ndarray]) -> Runtime:
    process = os.getpid()

    def on_tensors(events: torch.Tensor) -> torch.Tensor:
        if os.getpid() != process:  # its threads do not live here
            raise QecError(
                f"a decoder with backend={backend} does not work in a process that was forked "
                "from its own: build it in each process, or use backend=eager."
            )
        return torch.from_numpy(run(np.ascontiguousarray(events.float().numpy())))

    return on_tensors
