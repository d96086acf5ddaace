"""The loss that training lowers and that checkpoints are compared by."""

from __future__ import annotations

import torch


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    valid: torch.Tensor,
    bits: list[int] | slice = slice(None),
) -> torch.Tensor:
    """Mean binary cross-entropy, in nats, of the chain bits that some detector can see.

    Args:
        logits: (B, 12, T, Y, X), any floating dtype.
        labels: uint8 (B, 12, T, Y, X).
        valid: bool (12, T, Y, X), as ``qec.predecoder.grid.CellGrid.valid``.
        bits: the chain channels that count, as ``PreDecoderNetwork.bits``.
    """
    logits, labels, valid = logits[:, bits], labels[:, bits], valid[bits]
    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), weight=valid.float(), reduction="sum"
    )
    return total / (valid.sum() * len(logits))
