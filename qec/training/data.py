"""Training batches, made on the fly: detection events in, the teacher's canonical chains out."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qec.chain import canonicalise
from qec.child import end_with_parent, signals_blocked
from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.errors import QecError
from qec.lattice import SpaceTimeLattice
from qec.noise import CircuitNoise
from qec.predecoder.grid import CellGrid
from qec.sampling import FrameSampler
from qec.training.processes import ALONE, Processes
from qec.training.settings import TrainSettings
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
    """A process's share of batches first .. last - 1.

    Batch number i depends on (seed, i) alone, whatever the number of workers or a resume, and its
    shards, each with a seed of its own, are dealt out to the processes.
    """

    def __init__(
        self, settings: TrainSettings, first: int, last: int, processes: Processes = ALONE
    ) -> None:
        self.settings, self.first, self.last = settings, first, last
        self.processes = processes

    def __iter__(self) -> Iterator[Batch | QecError]:
        """Batches; bad input ends them as an item, since a worker can only raise its traceback."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        labeller = functools.cache(Labeller)  # every source comes again: forget none
        for step in range(self.first + worker, self.last, workers):
            try:
                yield self.batch(step, labeller)
            except QecError as error:
                yield error
                return

    def batch(self, step: int, labeller: Callable[[Source], Labeller] = Labeller) -> Batch:
        """This process's share of batch ``step``; QecError where its circuit cannot be labelled."""
        # The 0 keeps the batches, and so the results, of earlier versions.
        rng = np.random.default_rng([self.settings.seed, step, 0])
        source = draw_source(self.settings, rng)
        shards = self.settings.shards
        seeds = rng.integers(2**62, size=shards)[self.processes.rank :: self.processes.size]
        make = labeller(source).batch
        parts = [make(self.settings.batch // shards, int(seed)) for seed in seeds]
        return parts[0]._replace(
            events=torch.cat([part.events for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
        )


def draw_source(settings: TrainSettings, rng: np.random.Generator) -> Source:
    """Draws one circuit of the mixture that ``settings`` describes."""
    distance = int(rng.choice(settings.distances))
    return Source(
        distance=distance,
        rounds=settings.rounds or distance,
        orientation=str(rng.choice(settings.orientations)),
        basis=str(rng.choice(["X", "Z"])),
        noise=str(rng.choice(settings.noises)),
        p=float(rng.choice(settings.ps)),
        labels=settings.labels,
    )


def check_mixture(settings: TrainSettings) -> None:
    """Labels the smallest circuit of each noise at its strongest.

    Raises:
        QecError: noise so strong that Stim or the teacher refuses it.
    """
    d, orientation = min(settings.distances), settings.orientations[0]
    for noise in sorted(set(settings.noises)):
        p, rounds = max(settings.ps), settings.rounds or d
        Labeller(Source(d, rounds, orientation, "X", noise, p, settings.labels))


def batches(
    settings: TrainSettings, first: int, last: int, processes: Processes = ALONE
) -> Iterator[Batch]:
    """Shares of batches first .. last - 1 in order, made ahead by ``settings.workers`` workers.

    Raises:
        QecError: a circuit of the mixture that cannot be labelled.
    """
    loader = DataLoader(
        BatchStream(settings, first, last, processes),
        batch_size=None,
        num_workers=settings.workers,
        prefetch_factor=4 if settings.workers else None,
        worker_init_fn=_start_worker,
        pin_memory=settings.device != "cpu",
    )
    with signals_blocked():
        items = iter(loader)
    for item in items:
        if isinstance(item, QecError):
            raise item
        yield item


def _start_worker(_: int) -> None:
    end_with_parent(at_once=False)
    torch.set_num_threads(1)
    # Python reports an error of the thread that hands tensors over, when Ctrl-C ends its peer, to
    # this hook; an error in a batch does not come here.
    sys.excepthook = lambda *_: None
