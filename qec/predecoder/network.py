"""The pre-decoder network: a residual 3D convolution over space-time cells."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from qec.matching.belief_propagation import SUREST
from qec.predecoder.layers import ACTIVATIONS, CubeConv, EndsConv, SeparableConv, StaticStem
from qec.predecoder.sparse_network import SparseNetwork
from qec.predecoder.unit_cells import (
    EDGE_CHANNELS,
    EVENT_CHANNELS,
    MEMORY_EVENTS,
)

_PER_BELIEF = 4.0  # nats that a belief is worth, where it is not cut off


class PreDecoderNetwork(nn.Module):
    """Detection events -> log-odds that each edge of the matching graph has fired.

    The network adds to the log-odds that the error model gives: what it says nothing about stays
    as likely as before.

    Args:
        width: channels.
        layers: convolutions from input to output; the receptive radius is
            ``layers * (kernel // 2)`` cells (twice that many plaquettes) and layers in time.
        kernel: odd kernel size.
        activation: "relu", "gelu" or "silu".
        residual: add each hidden layer to its input.
        active_only: have features in cells with events of memory checks only.  Edges are told by
            the cells of their ends.  On CPUs such a network computes nothing elsewhere
            (``qec.predecoder.sparse_network``).
        separable: hidden layers are ``SeparableConv``.
        belief_propagation: iterations (``qec.matching.belief_propagation``) whose result it sees
            beside the events, and corrects; 0: it sees events alone.

    Raises:
        ValueError: width or layers too small, or a kernel that is even, or too small for the edges
            of a network with active_only, which sees events alone.
    """

    def __init__(
        self,
        width: int = 64,
        layers: int = 6,
        kernel: int = 3,
        activation: str = "relu",
        residual: bool = True,
        active_only: bool = False,
        separable: bool = False,
        belief_propagation: int = 0,
    ) -> None:
        super().__init__()
        if active_only and (kernel == 1 or belief_propagation):
            raise ValueError("active_only needs a kernel of 3 or more and no belief_propagation")
        if width < 1 or layers < 2 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                f"width={width} must be >= 1, layers={layers} >= 2 and kernel={kernel} odd"
            )
        self.activation = ACTIVATIONS[activation]
        self.residual = residual
        self.active_only = active_only
        self.separable = separable
        self.belief_propagation = belief_propagation
        self.inputs = EVENT_CHANNELS + (EDGE_CHANNELS if belief_propagation else 0)
        self.stem = CubeConv(self.inputs, width, kernel)
        # What does not depend on the shot enters apart, so that a decoder computes it once.
        self.stem_static = StaticStem(width, kernel)
        gain = (layers - 2) ** -0.5 if residual and layers > 2 else 1.0
        self.hidden = nn.ModuleList(
            SeparableConv(width, kernel, activation, gain)
            if separable
            else CubeConv(width, width, kernel, gain=gain)
            for _ in range(layers - 2)
        )
        head = EndsConv if active_only else functools.partial(CubeConv, outputs=EDGE_CHANNELS)
        self.head = head(width, kernel=kernel, gain=0.1)
        if belief_propagation:
            # By how much to believe it, for each kind of edge.
            self.trust = nn.Parameter(torch.ones(EDGE_CHANNELS, 1, 1, 1))

    def forward(self, events: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        """What the network tells of shots of one error model.

        Args:
            events: (B, inputs, T, Y, X), any floating dtype: events, and beliefs if it sees any,
                as ``CellGrid.pack``.
            static: float32 (1 or B, STATIC_CHANNELS, T, Y, X), as ``CellGrid.static``.

        Returns:
            (B, EDGE_CHANNELS, T, Y, X), log-odds in nats.
        """
        return self.from_static_features(events, self.static_features(static))

    def static_features(self, static: torch.Tensor) -> torch.Tensor:
        """(1, width + EDGE_CHANNELS, T, Y, X): what the first layer adds, and the priors."""
        return torch.cat([self.stem_static(static), static[:, :EDGE_CHANNELS]], dim=1)

    def from_static_features(self, events: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """As ``forward``, with ``static_features(static)`` computed before."""
        if self.sparse_on(events.device) and not torch.compiler.is_compiling():
            return SparseNetwork(self, features, events.dtype)(events)
        return self.dense_logits(events, features)

    def dense_logits(self, events: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """As ``from_static_features``, by convolutions over all cells."""
        static, prior = features[:, :-EDGE_CHANNELS], features[:, -EDGE_CHANNELS:]
        h = self.stem(self._seen(events, prior)) + static
        if self.active_only:
            active = self.active(events)[:, None].to(h.dtype)
            h = h * active
        for conv in self.hidden:
            update = conv(self.activation(h))
            if self.active_only:
                update = update * active
            h = h + update if self.residual else update
        told = self.head(self.activation(h)) + prior
        if self.belief_propagation:
            told = told + _PER_BELIEF * self.trust * events[:, EVENT_CHANNELS:]
        return told

    def _seen(self, events: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """What the first layer sees: beliefs as probabilities, nearly 0 where nothing happens."""
        if not self.belief_propagation:
            return events
        belief = events[:, EVENT_CHANNELS:] / 2
        log_odds = prior + 2 * _PER_BELIEF * torch.atanh(belief.clamp(-SUREST, SUREST))
        # Of the square root of the odds: small probabilities are told apart, too.
        likely = 2 * torch.sigmoid(log_odds / 2)
        return torch.cat([events[:, :EVENT_CHANNELS], likely.to(events.dtype)], dim=1)

    def sparse_on(self, device: torch.device) -> bool:
        """Whether it is computed on active cells alone (``qec.predecoder.sparse_network``)."""
        return self.active_only and device.type == "cpu"

    def active(self, events: torch.Tensor) -> torch.Tensor:
        """events (B, 4, T, Y, X) -> bool (B, T, Y, X), the cells that have features."""
        return events[:, MEMORY_EVENTS].ne(0).any(dim=1)

    def extra_repr(self) -> str:
        """What the shapes of the layers do not tell."""
        name = self.activation.__name__
        return (
            f"activation={name}, residual={self.residual}, active_only={self.active_only}, "
            f"separable={self.separable}, belief_propagation={self.belief_propagation}"
        )

    @property
    def reach(self) -> int:
        """Layers between a logit and the farthest events that it depends on."""
        return self.halo + self.belief_propagation

    @property
    def halo(self) -> int:
        """Cells, and layers, between a logit and the farthest of the inputs of the network."""
        return (len(self.hidden) + 2) * (self.stem.shape[-1] // 2)

    def multiply_adds_per_site(self) -> float:
        """Multiply-adds per data qubit and round (a cell holds four data qubits)."""
        return sum(conv.weight.numel() for conv in self.convolutions()) / 4

    def convolutions(self) -> list[CubeConv]:
        """From events to logits; what does not depend on the shot stays out."""
        layers: Any = self.hidden
        hidden = [part for layer in layers for part in layer.parts()]
        return [self.stem, *hidden, self.head]

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights for Muon: of hidden convolutions that mix channels."""
        return [conv.weight for conv in self.convolutions()[1:-1] if conv.groups == 1]
