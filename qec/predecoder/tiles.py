"""The network tile by tile: the same logits as over the whole volume, with bounded memory.

A logit depends on inputs within the network's halo only.  So each tile is computed with a halo of
that many cells and layers around it, which is then cut off.
"""

from __future__ import annotations

import itertools

import torch

from qec.config import positive_integer
from qec.predecoder.network import PreDecoderNetwork


def tiled_logits(
    network: PreDecoderNetwork,
    events: torch.Tensor,
    features: torch.Tensor,
    tile: tuple[int, int, int],
) -> torch.Tensor:
    """``network.from_static_features(events, features)``, computed in tiles.

    Args:
        events: (B, 4, T, Y, X).
        features: (1, width, T, Y, X).
        tile: layers, rows and columns of cells that a tile has, without its halo.

    Raises:
        QecError: a tile below 1.
    """
    for size in tile:
        positive_integer("tile", size)
    shape = events.shape[2:]
    cuts = [
        [_cut(start, size, extent, network.halo) for start in range(0, extent, size)]
        for size, extent in zip(tile, shape, strict=True)
    ]
    out = None
    for axes in itertools.product(*cuts):
        around, inner, core = (
            (slice(None), slice(None), *(axis[k] for axis in axes)) for k in range(3)
        )
        logits = network.from_static_features(events[around], features[around])[inner]
        if out is None:
            out = logits.new_empty(len(events), logits.shape[1], *shape)
        out[core] = logits
    return out


def _cut(start: int, size: int, extent: int, halo: int) -> tuple[slice, slice, slice]:
    """Along one axis: the tile with its halo, the tile within that, the tile."""
    end = min(start + size, extent)
    low, high = max(start - halo, 0), min(end + halo, extent)
    return slice(low, high), slice(start - low, end - low), slice(start, end)
