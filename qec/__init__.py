"""Surface-code decoding: a convolutional pre-decoder in front of PyMatching."""

from __future__ import annotations

import importlib

_HOME = {
    "CircuitNoise": "qec.noise",
    "Decoder": "qec.decoder",
    "QecError": "qec.errors",
    "RotatedSurfaceCode": "qec.code",
    "SpaceTimeLattice": "qec.lattice",
    "learn_noise": "qec.noise_learning.learn",
    "load_predecoder": "qec.predecoder.checkpoint",
    "memory_circuit": "qec.circuit",
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
