"""From logits to a residual: the corrections that the pre-decoder commits, and what is left."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator

import numpy as np
import torch

from qec.circuits.lattice import SpaceTimeLattice
from qec.matching.matcher import basis_split
from qec.predecoder.backends import Runtime, network_runtime, torch_threads
from qec.predecoder.device import autocast, network_dtype, resolve_device
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.residual import Residual
from qec.predecoder.sparse_network import SparseNetwork, Terms
from qec.predecoder.threshold import PredecodeResult, check_threshold, log_odds
from qec.predecoder.unit_cells import EDGE_CHANNELS, CellGrid
from qec.support.settings import positive_integer

_CALIBRATION_SHOTS, _CALIBRATION_SEED = 256, 0  # on which int8 networks are calibrated
_SHOTS_PER_PASS = 256  # bounds the memory for activations; larger batches are cut into passes
# Five times the largest difference seen between float32 logits near a cut, of other batches,
# threads or kinds of CPU: 2e-5 in 18,000 of `swift` at d = 13, AVX2 against SSE2 (1e-6 rms).
ROUNDING = 1e-4


class Predecoder:
    """A trained network with its threshold.

    Args:
        network: log-odds of every edge.
        threshold: probability in [0.5, 1] above which an edge is committed; at 1 none is.
        name: what it is called in tables.
        digest: short hash of the checkpoint, so that results never mix different weights.
        metadata: what the checkpoint says about its training.
    """

    def __init__(
        self,
        network: PreDecoderNetwork,
        threshold: float,
        name: str = "unnamed",
        digest: str = "",
        metadata: dict | None = None,
    ) -> None:
        check_threshold(threshold)
        self.network = network.eval()
        self.threshold = threshold
        self.name = name
        self.digest = digest
        self.metadata = metadata or {}

    @classmethod
    def null(cls) -> Predecoder:
        """A pre-decoder that never commits anything: residual equals input."""
        network = PreDecoderNetwork(width=8, layers=2)
        return cls(network, 1.0, name="null", digest="null")

    def compile_for(
        self,
        lattice: SpaceTimeLattice | CellGrid,
        device: str = "cpu",
        core: tuple[int, int] | None = None,
        dtype: torch.dtype | None = None,
        backend: str = "eager",
        threads: int = 1,
    ) -> CompiledPredecoder:
        """Prepares it for one lattice.

        Args:
            lattice: with its error model; or its grid.
            device: "cpu", "cuda" or "cuda:N".
            core: layers [start, end) in which edges are committed; None: in all of them.
            dtype: float32 or bfloat16, in which the network computes; None: ``network_dtype``.
            backend: one of ``qec.predecoder.backends.BACKENDS``.
            threads: of the CPU, in which it computes.

        Raises:
            QecError: there is no such device or backend, or the two do not go together; threads
                below 1.
        """
        grid = lattice if isinstance(lattice, CellGrid) else CellGrid(lattice)
        return CompiledPredecoder(self, grid, device, core, dtype, backend, threads)


class CompiledPredecoder:
    """A pre-decoder on one lattice: detection events in, residual and logical flips out.

    Its steps are ``cells``, ``look`` and ``commit``.

    The order in which float32 products are added up depends on batch, threads and CPU.  Where that
    could decide, on a CPU, float64 does: shots with an edge within ``ROUNDING`` of the cut are
    computed again.
    """

    @torch_threads(1)
    def __init__(
        self,
        predecoder: Predecoder,
        grid: CellGrid,
        device: str,
        core: tuple[int, int] | None,
        dtype: torch.dtype | None,
        backend: str,
        threads: int,
    ) -> None:
        self.grid, self.lattice = grid, grid.lattice
        self.cut = log_odds(predecoder.threshold)
        self._threads = positive_integer("threads", threads)
        self.device = resolve_device(device)
        self.dtype = dtype or network_dtype(self.device)
        # A copy: the pre-decoder may be bound to several devices.
        self.network = copy.deepcopy(predecoder.network).to(self.device)
        self.residual = Residual(grid, self.device, core)
        # What is computed in fewer bits on purpose, or on a GPU, is taken as it comes.
        in_float32 = self.device.type == "cpu" and self.dtype == torch.float32
        self._settles = in_float32 and not backend.endswith("int8")
        with self._computing():
            self.features = self.network.static_features(grid.static.to(self.device))
        counted = backend == "eager" and self.network.sparse_on(self.device)
        self._events_dtype = torch.uint8 if counted else self.dtype
        self._run = network_runtime(
            backend, self.network, self.features, self.dtype, self._sampled, self._threads
        )
        self._sparse = self._run if isinstance(self._run, SparseNetwork) else None
        if self._sparse is not None:
            kernel = self.network.stem.shape[-1]
            self._readers = self.residual.readers(*self._sparse.readers, kernel)
            prior = grid.static[0, :EDGE_CHANNELS].movedim(0, -1).reshape(-1).numpy()
            bias = self._sparse.bias[self.residual.place % EDGE_CHANNELS]
            self._before = prior[self.residual.place] + bias

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        with (
            torch_threads(self._threads),
            torch.inference_mode(),
            autocast(self.device, self.dtype),
        ):
            yield

    def _sampled(self) -> torch.Tensor:
        """``cells`` of shots of the error model; every time the same."""
        sampler = basis_split(self.lattice).compile_sampler(seed=_CALIBRATION_SEED)
        detectors, _, _ = sampler.sample(_CALIBRATION_SHOTS)
        return self.cells(torch.from_numpy(detectors.view(np.uint8)))

    def cells(self, detectors: torch.Tensor) -> torch.Tensor:
        """uint8 (B, num_detectors) -> (B, inputs, T, Y, X), as the network takes them."""
        with torch_threads(self._threads):
            return self._cells(detectors, self._events_dtype)

    def _cells(self, detectors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        return self.grid.pack(detectors, self.network.belief_propagation, dtype)

    def forward(self, events: torch.Tensor) -> torch.Tensor:
        """What ``cells`` returns -> log-odds (B, EDGE_CHANNELS, T, Y, X)."""
        with self._computing():
            return self._run(events)

    @functools.cached_property
    def _in_float64(self) -> Runtime:
        network = copy.deepcopy(self.network).double()
        features = network.static_features(self.grid.static.double())
        return network_runtime("eager", network, features, torch.float64, self._sampled)

    def warm_up(self) -> None:
        """Compiles and builds what only some shots need: no timing should meet it by chance."""
        if self._settles and self.cut != np.inf:
            shots = torch.ones((1, self.lattice.num_detectors), dtype=torch.uint8)
            self.residual(shots, self._settled(shots), self.cut)

    def _settled(self, detectors: torch.Tensor) -> torch.Tensor:
        """As ``forward`` of their ``cells``, but computed in float64."""
        with self._computing():
            return self._in_float64(self._cells(detectors, torch.float64)).float()

    def log_odds(self, detectors: np.ndarray) -> np.ndarray:
        """uint8 (B, num_detectors) -> float32 (B, E), of ``grid.edges``; not told: the prior's."""
        found = np.empty((len(detectors), len(self.grid.edges.ends)), dtype=np.float32)
        found[:] = self.grid.edges.log_odds
        with torch_threads(self._threads):
            for start in range(0, len(detectors), _SHOTS_PER_PASS):
                part = slice(start, start + _SHOTS_PER_PASS)
                told = self.forward(self.cells(self._upload(detectors[part])))
                log_odds = told.movedim(1, -1).flatten(1).float().cpu().numpy()
                found[part, self.grid.predicted] = log_odds[:, self.grid.place]
        return found

    def predict(self, events: torch.Tensor) -> torch.Tensor | Terms:
        """What ``commit`` takes: as ``forward``, or that before it is added up."""
        if self._sparse is None:
            return self.forward(events)
        with self._computing():
            return self._sparse.terms(events)

    def commit(
        self, detectors: torch.Tensor, told: torch.Tensor | Terms
    ) -> tuple[np.ndarray, np.ndarray]:
        """What ``residual`` makes of the edges above the threshold, as arrays.

        Args:
            detectors: uint8 (B, num_detectors).
            told: as ``predict`` returned it.

        Returns:
            uint8 (B, num_detectors), the events that are left, and uint8 (B,), the logical flips.
        """
        if self.cut == np.inf:
            return detectors.cpu().numpy(), np.zeros(len(detectors), dtype=np.uint8)
        margin = ROUNDING if self._settles else 0.0
        if isinstance(told, Terms):
            found = self.residual.of_terms(
                detectors, told, self._readers, self._before, self.cut, margin
            )
        else:
            found = self.residual(detectors, told, self.cut, margin)
        left, flips, close = (part.cpu().numpy() for part in found)
        shots = np.flatnonzero(close)
        if len(shots):
            settled = self.residual(detectors[shots], self._settled(detectors[shots]), self.cut)
            left[shots], flips[shots] = (part.numpy() for part in settled[:2])
        return left, flips

    def apply(self, detectors: np.ndarray) -> PredecodeResult:
        """uint8 (B, num_detectors) -> what committing leaves of them."""
        left = np.empty_like(detectors)
        flips = np.empty(len(detectors), dtype=np.uint8)
        with torch_threads(self._threads):
            for start in range(0, len(detectors), _SHOTS_PER_PASS):
                part = slice(start, start + _SHOTS_PER_PASS)
                shots = self._upload(detectors[part])
                left[part], flips[part] = self.commit(shots, self.predict(self.cells(shots)))
        return PredecodeResult(left, flips)

    def committed_edges(self, shot: np.ndarray) -> np.ndarray:
        """The edges that ``apply`` commits in one shot.

        Args:
            shot: uint8 (num_detectors,).

        Returns:
            int64 (k, 2), detectors; -1 where an edge ends on the boundary.
        """
        detectors = self._upload(shot[None])
        told = self._settled(detectors) if self._settles else self.forward(self.cells(detectors))
        flat = told.movedim(1, -1).flatten().float().cpu().numpy().astype(np.float64)
        ends = self.residual.ends[flat[self.residual.place] > self.cut]
        return np.where(ends < self.lattice.num_detectors, ends, -1)

    def _upload(self, detectors: np.ndarray) -> torch.Tensor:
        shots = torch.from_numpy(detectors)
        if self.device.type == "cuda":  # from pinned memory the copy runs beside the host
            shots = shots.pin_memory()
        return shots.to(self.device, non_blocking=True)
