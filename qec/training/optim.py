"""Optimisers: Muon on the hidden kernels, AdamW on everything else; one linear schedule."""

from __future__ import annotations

import torch

from qec.predecoder.network import PreDecoderNetwork
from qec.training.muon import Muon
from qec.training.settings import TrainSettings


def build_optimisers(
    network: PreDecoderNetwork, settings: TrainSettings
) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum) for the hidden kernels, AdamW for first, last and biases.

    With ``muon_lr`` None, AdamW for all.
    """
    hidden = [] if settings.muon_lr is None else network.hidden_matrices()
    chosen = {id(parameter) for parameter in hidden}
    rest = [p for p in network.parameters() if id(p) not in chosen]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            rest, lr=settings.adamw_lr, betas=(0.9, 0.99), weight_decay=0.0, fused=settings.fused
        )
    ]
    if hidden and settings.muon_lr is not None:
        optimisers.append(Muon(hidden, lr=settings.muon_lr))
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["peak_lr"] = group["lr"]
    return optimisers


def set_learning_rate(
    optimisers: list[torch.optim.Optimizer], step: int, total: int, warmup: int
) -> float:
    """Linear warm-up, then linear decay to zero at ``total``; returns the current factor."""
    factor = min((step + 1) / max(warmup, 1), (total - step) / max(total - warmup, 1), 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak_lr"] * factor
    return factor
