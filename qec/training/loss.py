"""The loss that training lowers and that checkpoints are compared by."""

from __future__ import annotations

import torch


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    valid: torch.Tensor,
) -> torch.Tensor:
    """Mean binary cross-entropy, in nats, of the edges that there are.

    Args:
        logits: (B, EDGE_CHANNELS, T, Y, X), any floating dtype.
        labels: uint8 (B, EDGE_CHANNELS, T, Y, X), whether each has fired.
        valid: bool (EDGE_CHANNELS, T, Y, X), as ``qec.predecoder.grid.CellGrid.valid``.
    """
    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), weight=valid.float(), reduction="sum"
    )
    return total / (valid.sum() * len(logits))
