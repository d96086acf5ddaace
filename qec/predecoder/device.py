"""The number format in which the network computes, and the device on which it does."""

from __future__ import annotations

import re

import torch

from qec.support.errors import QecError

PRECISIONS = ("auto", "bfloat16", "float32")


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype called ``name``; auto is ``network_dtype``.

    Raises:
        QecError: unknown name.
    """
    if name not in PRECISIONS:
        raise QecError(f"precision={name!r} is not supported: use {', '.join(PRECISIONS)}.")
    return network_dtype(device) if name == "auto" else getattr(torch, name)


def resolve_device(name: str) -> torch.device:
    """The torch device called ``name`` ("cpu", "cuda", "cuda:1").

    Raises:
        QecError: no such device here.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise QecError(f"device={name!r} is not supported: use cpu, cuda or cuda:N.")
    device = torch.device(name)
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise QecError(f"device={name}, but torch finds {found} CUDA devices: use device=cpu.")
    return device


def network_dtype(device: torch.device) -> torch.dtype:
    """float32 on a CPU, of whatever kind, so that all of them predict the same; else bfloat16."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def autocast(device: torch.device, dtype: torch.dtype | None = None) -> torch.autocast:
    """Context in which the network computes in ``dtype``, or in ``network_dtype(device)``."""
    dtype = dtype or network_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
