"""A grown network computes what the small one does."""

from __future__ import annotations

import pytest
import torch

from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.unit_cells import STATIC_CHANNELS
from qec.support.errors import QecError
from qec.training.grow_network import grow


def _inputs() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(5)
    events = (torch.rand(3, 4, 4, 3, 3, generator=rng) < 0.2).float()
    return events, torch.rand(1, STATIC_CHANNELS, 4, 3, 3, generator=rng)


@pytest.mark.parametrize(("width", "layers"), [(8, 4), (12, 4), (8, 6), (11, 7)])
@torch.no_grad()
def test_outputs_are_kept_and_new_channels_are_alive(width, layers):
    torch.manual_seed(1)
    small, large = PreDecoderNetwork(8, 4), PreDecoderNetwork(width, layers)
    for conv in small.hidden:
        conv.bias.normal_()
    grow(small, large)
    torch.testing.assert_close(large(*_inputs()), small(*_inputs()))
    if width > 8:
        assert all((conv.weight[8:] != 0).any() for conv in large.hidden)
        large.head.weight.normal_()
        assert not torch.allclose(large(*_inputs()), small(*_inputs()))


@pytest.mark.parametrize(
    "other",
    [
        {"width": 6},
        {"layers": 3},
        {"kernel": 5},
        {"activation": "gelu"},
        {"residual": False},
        {"active_only": True},
    ],
)
def test_what_cannot_grow_is_refused(other):
    small = PreDecoderNetwork(8, 4)
    with pytest.raises(QecError, match="cannot grow"):
        grow(small, PreDecoderNetwork(**{"width": 8, "layers": 4, **other}))


def test_plain_networks_do_not_deepen():
    with pytest.raises(QecError, match="cannot grow"):
        grow(PreDecoderNetwork(8, 4, residual=False), PreDecoderNetwork(8, 5, residual=False))
