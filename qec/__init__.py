"""Surface-code decoding: a convolutional pre-decoder in front of PyMatching."""

from __future__ import annotations

import importlib

_HOME = {
    "CircuitNoise": "qec.circuits.noise_model",
    "Decoder": "qec.decoding.decoder",
    "QecError": "qec.support.errors",
    "RotatedSurfaceCode": "qec.circuits.surface_code",
    "SpaceTimeLattice": "qec.circuits.lattice",
    "StreamingDecoder": "qec.windows.streaming_decoder",
    "WindowDecoder": "qec.windows.window_decoder",
    "learn_noise": "qec.noise_learning.learn",
    "load_predecoder": "qec.predecoder.checkpoint",
    "memory_circuit": "qec.circuits.memory_circuit",
    "named_decoder": "qec.decoding.decoder",
}
__all__ = list(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # On first use: the torch-free modules stay quick to import.
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'qec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
