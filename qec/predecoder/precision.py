"""The number format in which the network runs fastest on a device."""

from __future__ import annotations

import torch


def network_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on GPUs and on CPUs with AMX tiles; float32 elsewhere.

    Without AMX a CPU multiplies bfloat16 at about half its float32 rate (measured, AVX-512 BF16).
    """
    if device.type != "cpu" or torch.cpu.get_capabilities().get("amx_bf16"):
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """Context in which the network computes in ``network_dtype(device)``."""
    dtype = network_dtype(device)
    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)
