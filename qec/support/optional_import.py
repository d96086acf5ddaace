"""Packages that only some commands need."""

from __future__ import annotations

import importlib
from types import ModuleType

from qec.support.errors import QecError


def optional(module: str, install: str) -> ModuleType:
    """Imports ``module``; QecError with the pip command where its package is not installed.

    Args:
        module: e.g. "onnxruntime.quantization".
        install: what to give to pip, such as "onnx onnxscript".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise QecError(f"{package} is not installed: pip install {install}") from error
