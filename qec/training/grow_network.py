"""Starting a wider or deeper network from a trained one, whose outputs it first reproduces.

What the small network has learned carries over, so that the large one need not learn it again
(function-preserving growth: Chen, Goodfellow and Shlens, arXiv:1511.05641; here without copying
channels: new channels start at random and nothing old listens to them yet).
"""

from __future__ import annotations

from typing import Any

import torch

from qec.predecoder.network import PreDecoderNetwork
from qec.support.errors import QecError


def grow(small: PreDecoderNetwork, large: PreDecoderNetwork) -> None:
    """Overwrites the freshly initialised ``large`` so that it computes what ``small`` does.

    Raises:
        QecError: ``large`` is narrower or shallower, differs in anything else, gains layers without
            being residual, or is separable or active_only and not the same.
    """
    old, new = _shape(small), _shape(large)
    if old == new:
        large.load_state_dict(small.state_dict())
        return
    kept = ("kernel", "activation", "residual", "active_only", "separable", "belief_propagation")
    changed = any(new[key] != old[key] for key in kept)
    smaller = new["width"] < old["width"] or new["layers"] < old["layers"]
    deeper = new["layers"] > old["layers"]
    fixed = small.separable or small.active_only
    if changed or smaller or fixed or (deeper and not large.residual):
        raise QecError(
            f"a network of {old} cannot grow into one of {new}: keep all but width and layers, and "
            "make it wider or (if residual) deeper, never smaller; separable or active_only ones "
            "do not grow."
        )
    with torch.no_grad():
        _embed(small.stem, large.stem)
        large.stem_static.within.load_state_dict(small.stem_static.within.state_dict())
        _embed(small.stem_static.around, large.stem_static.around)
        _embed(small.head, large.head)
        if small.belief_propagation:
            large.trust.copy_(small.trust)
        for k, conv in enumerate(large.hidden):
            _embed(small.hidden[k] if k < len(small.hidden) else None, conv, old["width"])


def _shape(network: PreDecoderNetwork) -> dict[str, Any]:
    outputs, _, kernel, *_ = network.stem.shape
    return {
        "width": outputs,
        "layers": len(network.hidden) + 2,
        "kernel": kernel,
        "activation": network.activation.__name__,
        "residual": network.residual,
        "active_only": network.active_only,
        "separable": network.separable,
        "belief_propagation": network.belief_propagation,
    }


def _embed(small: Any, large: Any, width: int = 0) -> None:
    """Old outputs read old inputs as before; new outputs keep their random weights.

    Without ``small``, a new layer: the first ``width`` outputs add nothing to the residual stream.
    """
    weight = large.weight.view(large.shape)
    outputs, inputs = small.shape[:2] if small else (width, 0)
    weight[:outputs] = 0
    large.bias[:outputs] = 0
    if small:
        weight[:outputs, :inputs] = small.weight.view(small.shape)
        large.bias[:outputs] = small.bias
