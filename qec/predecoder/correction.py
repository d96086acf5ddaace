"""From logits to a residual: the corrections that the pre-decoder commits, and what is left."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from qec.config import positive_integer
from qec.errors import QecError
from qec.lattice import UNFAMILIAR, SpaceTimeLattice
from qec.matching import basis_split
from qec.predecoder.grid import CellGrid
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.network_gap import NetworkGap
from qec.predecoder.precision import autocast, network_dtype, resolve_device
from qec.predecoder.residual import Residual, incidence
from qec.predecoder.rule import CommitRule, CommitRules, Predecoded
from qec.predecoder.runtime import Runtime, network_runtime, torch_threads
from qec.predecoder.tiles import tiled_logits

_CALIBRATION_SHOTS, _CALIBRATION_SEED = 256, 0  # on which int8 networks are calibrated
_SHOTS_PER_PASS = 256  # bounds the memory for activations; larger batches are cut into passes
# Five times the largest difference seen between float32 logits near a cut, of other batches,
# threads or kinds of CPU: 2e-5 in 18,000 of `swift` at d = 13, AVX2 against SSE2 (1e-6 rms).
ROUNDING = 1e-4


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
        dtype: torch.dtype | None = None,
        backend: str = "eager",
        threads: int = 1,
    ) -> BoundPredecoder:
        """Prepares it for one lattice.

        Args:
            device: "cpu", "cuda" or "cuda:N".
            core: layers [start, end) in which chain bits are committed; None: in all of them.
            tile: as in ``qec.predecoder.tiles.tiled_logits``; None: the whole volume at once.
            dtype: float32 or bfloat16, in which the network computes; None: ``network_dtype``.
            backend: one of ``qec.predecoder.runtime.BACKENDS``; with tiles, eager.
            threads: of the CPU, in which it computes.

        Raises:
            QecError: there is no such device or backend, or the two do not go together; threads
                below 1; networks know no lattices like this one.
        """
        if lattice.unfamiliar:
            raise QecError(f"{UNFAMILIAR}: {lattice.unfamiliar}. Decode it without a pre-decoder.")
        return BoundPredecoder(self, lattice, device, core, tile, dtype, backend, threads)


class BoundPredecoder:
    """A pre-decoder on one lattice: detection events in, residual and logical flips out.

    Its steps are ``cells``, ``forward``, ``commit`` and, for rules with a gap, ``gap``.

    The order in which float32 products are added up depends on batch, threads and CPU.  Where that
    could decide, on a CPU, float64 does: shots with a logit within ``ROUNDING`` of a cut, or a gap
    that close to a limit, are computed again.
    """

    @torch_threads(1)
    def __init__(
        self,
        predecoder: Predecoder,
        lattice: SpaceTimeLattice,
        device: str,
        core: tuple[int, int] | None,
        tile: tuple[int, int, int] | None,
        dtype: torch.dtype | None,
        backend: str,
        threads: int,
    ) -> None:
        self.lattice = lattice
        self.grid = CellGrid(lattice)
        if core is not None:
            self.grid.valid[:, : core[0]] = False
            self.grid.valid[:, core[1] :] = False
        if tile is not None and backend != "eager":
            raise QecError(f"tiles run with backend=eager only, not {backend}.")
        self._tile = tile
        self._threads = positive_integer("threads", threads)
        self.device = resolve_device(device)
        self.dtype = dtype or network_dtype(self.device)
        # A copy: the pre-decoder may be bound to several devices.
        self.network = copy.deepcopy(predecoder.network).to(self.device)
        self.incidence = incidence(self.grid)
        self.residual = Residual(self.incidence, self.device)
        # What is computed in fewer bits on purpose, or on a GPU, is taken as it comes.
        in_float32 = self.device.type == "cpu" and self.dtype == torch.float32
        self._settles = in_float32 and not backend.endswith("int8")
        with self._computing():
            static = self.grid.static.to(self.device)
            self.features = self.network.stem_static(static)
        counted = backend == "eager" and tile is None and self.network.sparse_on(self.device)
        self._events_dtype = torch.uint8 if counted else self.dtype
        self._run = network_runtime(
            backend, self.network, self.features, self.dtype, self._sampled, self._threads
        )

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with (
            torch_threads(self._threads),
            torch.inference_mode(),
            autocast(self.device, self.dtype),
        ):
            yield

    def _sampled(self) -> torch.Tensor:
        """Events (B, 4, T, Y, X) of shots of the error model; every time the same."""
        sampler = basis_split(self.lattice).compile_sampler(seed=_CALIBRATION_SEED)
        detectors, _, _ = sampler.sample(_CALIBRATION_SHOTS)
        return self.cells(torch.from_numpy(detectors.view(np.uint8)))

    def cells(self, detectors: torch.Tensor) -> torch.Tensor:
        """uint8 (B, num_detectors) -> events (B, 4, T, Y, X), as the network takes them."""
        return self.grid.pack_events(detectors).to(self._events_dtype)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        """events (B, 4, T, Y, X) -> logits (B, 12, T, Y, X)."""
        with self._computing():
            if self._tile is None:
                return self._run(events)
            return tiled_logits(self.network, events, self.features, self._tile)

    @functools.cached_property
    def _in_float64(self) -> Runtime:
        network = copy.deepcopy(self.network).double()
        features = network.stem_static(self.grid.static.double())
        if self._tile is not None:
            return lambda events: tiled_logits(network, events, features, self._tile)
        return network_runtime("eager", network, features, torch.float64, self._sampled)

    def _settle(self, detectors: torch.Tensor, logits: torch.Tensor, shots: np.ndarray) -> None:
        """Puts the logits of some shots, by their numbers, in the place of what float32 gave."""
        with self._computing():
            events = self.grid.pack_events(detectors[shots]).double()
            logits[shots] = self._in_float64(events).float()

    def logits(self, detectors: torch.Tensor) -> torch.Tensor:
        """uint8 (B, num_detectors) -> logits (B, 12, T, Y, X)."""
        return self.forward(self.cells(detectors))

    def commit(
        self, detectors: torch.Tensor, logits: torch.Tensor, cuts: Sequence[float]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """What ``residual`` makes of the chain bits with logits above each cut, as arrays.

        Logits of shots that have one close to a cut are replaced by what float64 gives.
        """
        if min(cuts) == math.inf:
            nothing = detectors.cpu().numpy(), np.zeros(len(detectors), dtype=np.uint8)
            return [nothing] * len(cuts)
        margin = ROUNDING if self._settles else 0.0
        left, flips, close = self.residual.with_close(detectors, logits, cuts, margin)
        left, flips = left.cpu().numpy(), flips.cpu().numpy()
        shots = np.flatnonzero(close.cpu().numpy())
        if len(shots):
            self._settle(detectors, logits, shots)
            settled = self.residual(detectors[shots], logits[shots], cuts)
            left[:, shots], flips[:, shots] = (part.numpy() for part in settled)
        return list(zip(left, flips, strict=True))

    def apply(
        self, detectors: np.ndarray, *rules: CommitRule, limits: Sequence[float] = ()
    ) -> list[Predecoded]:
        """Commits corrections by each of some rules, running the network once.

        Args:
            detectors: uint8 (B, num_detectors).
            limits: nats, with which the network's gap will be compared.
        """
        with torch_threads(self._threads):
            return self._apply(detectors, rules, limits)

    def _apply(
        self, detectors: np.ndarray, rules: Sequence[CommitRule], limits: Sequence[float]
    ) -> list[Predecoded]:
        cuts = [cut for rule in rules for cut in (rule.cut, *rule.other_cuts)]
        left = {cut: np.empty_like(detectors) for cut in cuts}
        committed = {cut: np.empty(len(detectors), dtype=np.uint8) for cut in left}
        sure = np.full(len(detectors), np.inf, dtype=np.float32)
        gap, asked = sure.copy(), any(rule.doubt for rule in rules)
        for start in range(0, len(detectors), _SHOTS_PER_PASS):
            part = slice(start, start + _SHOTS_PER_PASS)
            shots = self._upload(detectors[part])
            logits = self.logits(shots)
            for cut, found in zip(left, self.commit(shots, logits, list(left)), strict=True):
                left[cut][part], committed[cut][part] = found
            if asked:
                gap[part] = self._settled_gap(shots, logits, limits)

        def look(cut: float, gap: np.ndarray) -> Predecoded:
            return Predecoded(left[cut], committed[cut], gap)

        done = []
        for rule in rules:
            doubts = gap if rule.doubt else sure
            others = tuple(look(cut, doubts) for cut in rule.other_cuts)
            done.append(look(rule.cut, doubts)._replace(others=others))
        return done

    def gap(self, logits: torch.Tensor) -> np.ndarray:
        """logits (B, 12, T, Y, X) -> float32 (B,), as ``NetworkGap``."""
        return self._network_gap(logits)

    def _settled_gap(
        self, detectors: torch.Tensor, logits: torch.Tensor, limits: Sequence[float]
    ) -> np.ndarray:
        gap = self.gap(logits)
        if self._settles:
            from_limits = np.abs(gap[:, None] - np.array(limits))
            shots = np.flatnonzero((from_limits < ROUNDING).any(axis=1))
            if len(shots):
                self._settle(detectors, logits, shots)
                gap[shots] = self.gap(logits[shots])
        return gap

    @functools.cached_property
    def _network_gap(self) -> NetworkGap:
        return NetworkGap(self.lattice, self.incidence, self.device)

    def _upload(self, detectors: np.ndarray) -> torch.Tensor:
        shots = torch.from_numpy(detectors)
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the host
            shots = shots.pin_memory()
        return shots.to(self.device, non_blocking=True)
