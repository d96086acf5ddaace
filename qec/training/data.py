"""Training batches, made on the fly: detection events in, the teacher's canonical chains out."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qec.chain import canonicalise
from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.lattice import SpaceTimeLattice
from qec.noise import CircuitNoise
from qec.predecoder.grid import CellGrid
from qec.sampling import FrameSampler
from qec.training.teacher import MatchingTeacher


class Batch(NamedTuple):
    """Tensors of one training step; all shots share one circuit.

    Attributes:
        events: uint8 (B, 4, T, Y, X).
        static: float32 (1, 8, T, Y, X).
        labels: uint8 (B, 12, T, Y, X).
        valid: bool (12, T, Y, X).
    """

    events: torch.Tensor
    static: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor


class Source(NamedTuple):
    """One circuit of the training mixture."""

    distance: int
    rounds: int
    orientation: str
    basis: str
    noise: str
    p: float
    labels: str  # "matching" (the teacher's correction) or "frames" (the sampled error)


class Labeller:
    """Makes batches of one source."""

    def __init__(self, source: Source) -> None:
        circuit = memory_circuit(
            RotatedSurfaceCode(source.distance, source.orientation),
            CircuitNoise.named(source.noise, source.p),
            source.rounds,
            source.basis,
        )
        lattice = SpaceTimeLattice.from_circuit(circuit)
        self.circuit = circuit
        self.grid = CellGrid(lattice)
        self._teacher = MatchingTeacher(lattice) if source.labels == "matching" else None
        self._frames = FrameSampler(circuit, lattice) if self._teacher is None else None

    def batch(self, shots: int, seed: int) -> Batch:
        """Draws ``shots`` (a multiple of 64) shots, reproducibly by ``seed``."""
        if self._teacher is not None:
            sampler = self.circuit.compile_detector_sampler(seed=seed)
            detectors = sampler.sample(shots).astype(np.uint8)
            chain = self._teacher.label(detectors)
        else:
            drawn = self._frames.sample(shots, seed)
            detectors = np.unpackbits(drawn.detectors, axis=1, bitorder="little").T
            chain = canonicalise(drawn.chain, self.grid.lattice)
        events = self.grid.pack_events(torch.from_numpy(np.ascontiguousarray(detectors)))
        return Batch(events, self.grid.static, self.grid.pack_chain(chain), self.grid.valid)


class BatchStream(IterableDataset):
    """Batch number i depends on (seed, i) alone, whatever the number of workers or a resume."""

    def __init__(self, cfg, first: int, last: int, rank: int = 0, world: int = 1) -> None:
        self.cfg, self.first, self.last, self.rank, self.world = cfg, first, last, rank, world

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        if info:
            torch.set_num_threads(1)
        labeller = functools.lru_cache(maxsize=256)(Labeller)
        for step in range(self.first + worker, self.last, workers):
            yield self.batch(step, labeller)

    def batch(self, step: int, labeller=Labeller) -> Batch:
        rng = np.random.default_rng([self.cfg.seed, step, self.rank])
        source = draw_source(self.cfg, rng)
        return labeller(source).batch(self.cfg.batch // self.world, int(rng.integers(2**62)))


def draw_source(cfg, rng: np.random.Generator) -> Source:
    """Draws one circuit of the mixture that ``cfg`` describes (see conf/train.yaml)."""
    distance = int(rng.choice(cfg.distances))
    rounds = cfg.rounds or distance
    return Source(
        distance=distance,
        rounds=int(rounds),
        orientation=str(rng.choice(cfg.orientations)),
        basis=str(rng.choice(["X", "Z"])),
        noise=str(rng.choice(cfg.noises)),
        p=float(rng.choice(cfg.ps)),
        labels=cfg.labels,
    )


def batches(cfg, first: int, last: int) -> DataLoader:
    """Batches first .. last - 1 in order, made ahead by ``cfg.workers`` processes."""
    return DataLoader(
        BatchStream(cfg, first, last),
        batch_size=None,
        num_workers=cfg.workers,
        prefetch_factor=4 if cfg.workers else None,
        pin_memory=cfg.device != "cpu",
    )
