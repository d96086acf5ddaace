"""The loss that training lowers and that checkpoints are compared by."""

from __future__ import annotations

import torch


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    valid: torch.Tensor,
    prior: torch.Tensor,
) -> torch.Tensor:
    """Binary cross-entropy of the edges that there are, over the entropy of their priors.

    What is left to learn of an error model, between 0 and 1 where the network knows more than the
    prior: so no model weighs a hundred times another one for its noise alone.

    Args:
        logits: (B, EDGE_CHANNELS, T, Y, X), any floating dtype.
        labels: uint8 (B, EDGE_CHANNELS, T, Y, X), whether each has fired.
        valid: bool (EDGE_CHANNELS, T, Y, X), as ``qec.predecoder.unit_cells.CellGrid.valid``.
        prior: float32 (EDGE_CHANNELS, T, Y, X), log-odds of the edges in the error model.

    Returns:
        A float32 scalar.
    """
    p = torch.sigmoid(prior[valid])
    entropy = torch.special.entr(p) + torch.special.entr(1 - p)
    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.float(), labels.float(), weight=valid.float(), reduction="sum"
    )
    return total / (entropy.sum() * len(logits))
