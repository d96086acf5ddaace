"""From logits to a residual: the corrections that the pre-decoder commits, and what is left."""

from __future__ import annotations

import copy

import numpy as np
import torch

from qec import chain as chains
from qec.lattice import SpaceTimeLattice
from qec.predecoder.grid import CellGrid
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.precision import autocast, network_dtype, resolve_device
from qec.predecoder.rule import CommitRule, CommitRules, Predecoded
from qec.predecoder.tiles import tiled_logits

_SHOTS_PER_PASS = 256  # bounds the memory for activations; larger batches are cut into passes


class Predecoder:
    """A trained network with its commit rules.

    Args:
        network: logits of the canonical chain.
        rules: what is committed, and which shots had better be matched as a whole.
        name: what it is called in tables.
        digest: short hash of the checkpoint, so that results never mix different weights.
        metadata: what the checkpoint says about its training.
    """

    def __init__(
        self,
        network: PreDecoderNetwork,
        rules: CommitRules,
        name: str = "unnamed",
        digest: str = "",
        metadata: dict | None = None,
    ) -> None:
        self.network = network.eval()
        self.rules = rules
        self.name = name
        self.digest = digest
        self.metadata = metadata or {}

    @classmethod
    def null(cls) -> Predecoder:
        """A pre-decoder that never commits anything: residual equals input."""
        network = PreDecoderNetwork(width=8, layers=2)
        return cls(network, CommitRules.same(1), name="null", digest="null")

    def bind(
        self,
        lattice: SpaceTimeLattice,
        device: str = "cpu",
        core: tuple[int, int] | None = None,
        tile: tuple[int, int, int] | None = None,
    ) -> BoundPredecoder:
        """Prepares it for one lattice.

        Args:
            device: "cpu" or "cuda".
            core: layers [start, end) in which chain bits are committed; None: in all of them.
            tile: as in ``qec.predecoder.tiles.tiled_logits``; None: the whole volume at once.

        Raises:
            QecError: there is no such device.
        """
        return BoundPredecoder(self, lattice, device, core, tile)


class BoundPredecoder:
    """A pre-decoder on one lattice: detection events in, residual and logical flips out."""

    def __init__(
        self,
        predecoder: Predecoder,
        lattice: SpaceTimeLattice,
        device: str,
        core: tuple[int, int] | None,
        tile: tuple[int, int, int] | None,
    ) -> None:
        self.lattice = lattice
        self.grid = CellGrid(lattice)
        if core is not None:
            self.grid.valid[:, : core[0]] = False
            self.grid.valid[:, core[1] :] = False
        self._tile = tile
        self.device = resolve_device(device)
        # A copy: the pre-decoder may be bound to several devices.
        self._network = copy.deepcopy(predecoder.network).to(self.device)
        self._places = tuple(torch.from_numpy(a) for a in (lattice.layer, lattice.row, lattice.col))
        with torch.inference_mode(), autocast(self.device):
            static = self.grid.static.to(self.device)
            self._features = self._network.stem_static(static)

    def logits(self, detectors: torch.Tensor) -> torch.Tensor:
        """uint8 (B, num_detectors) -> logits (B, 12, T, Y, X)."""
        with torch.inference_mode(), autocast(self.device):
            events = self.grid.pack_events(detectors).to(network_dtype(self.device))
            if self._tile is None:
                return self._network.from_static_features(events, self._features)
            return tiled_logits(self._network, events, self._features, self._tile)

    def apply(self, detectors: np.ndarray, *rules: CommitRule) -> list[Predecoded]:
        """Commits corrections by each of some rules, running the network once.

        Args:
            detectors: uint8 (B, num_detectors).
        """
        done = [
            Predecoded(np.empty_like(detectors), np.empty(len(detectors), dtype=np.uint8))
            for _ in rules
        ]
        for start in range(0, len(detectors), _SHOTS_PER_PASS):
            part = slice(start, start + _SHOTS_PER_PASS)
            shots = torch.from_numpy(detectors[part]).to(self.device)
            logits = self.logits(shots)
            for rule, (residual, committed) in zip(rules, done, strict=True):
                left, flip = self.residual(shots, (logits > rule.cut).to(torch.uint8))
                residual[part] = left.cpu().numpy()
                committed[part] = flip.cpu().numpy()
        return done

    def residual(
        self, detectors: torch.Tensor, committed: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Detection events that committed bits uint8 (B, 12, T, Y, X) leave, and logical flips."""
        chain = self.grid.unpack_chain(committed)
        explained = chains.boundary(chain, self.lattice)[self._places]
        return detectors ^ explained.T, chains.logical_parity(chain, self.lattice)
