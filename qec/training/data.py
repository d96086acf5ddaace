"""Training batches, made on the fly: detection events in, the edges that have fired out."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from qec.predecoder.labelled_shots import LabelledSampler
from qec.support.child_processes import end_with_parent, signals_blocked
from qec.support.errors import QecError
from qec.training.distributed import SINGLE_PROCESS, ProcessGroup
from qec.training.mixture import Source, source_of
from qec.training.settings import TrainSettings

_KEPT = 64  # samplers that a worker keeps: two pools of the mixture, some MB each


class Batch(NamedTuple):
    """Tensors of one training step; all shots share one error model.

    Attributes:
        events: (B, inputs of the network, T, Y, X), uint8 or, with beliefs, float16.
        static: float32 (1, STATIC_CHANNELS, T, Y, X).
        labels: uint8 (B, EDGE_CHANNELS, T, Y, X), whether each edge has fired.
        valid: bool (EDGE_CHANNELS, T, Y, X), where there is an edge.
    """

    events: torch.Tensor
    static: torch.Tensor
    labels: torch.Tensor
    valid: torch.Tensor


def sampler_of(source: Source) -> LabelledSampler:
    """What draws its shots; errors as of ``Source.lattice`` and ``LabelledSampler``."""
    return LabelledSampler(source.lattice())


class BatchStream(IterableDataset):
    """A process's share of batches first .. last - 1.

    Batch number i depends on (seed, i) alone, whatever the number of workers or a resume, and its
    shards, each with a seed of its own, are dealt out to the processes.
    """

    def __init__(
        self,
        settings: TrainSettings,
        first: int,
        last: int,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.settings, self.first, self.last = settings, first, last
        self.processes = processes

    def __iter__(self) -> Iterator[Batch | QecError]:
        """Batches; bad input ends them as an item, since a worker can only raise its traceback."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        sampler = functools.lru_cache(_KEPT)(sampler_of)
        for step in range(self.first + worker, self.last, workers):
            try:
                yield self.batch(step, sampler)
            except QecError as error:
                yield error
                return

    def batch(self, step: int, sampler: Callable[[Source], LabelledSampler] = sampler_of) -> Batch:
        """This process's share of batch ``step``; QecError where its model cannot be sampled."""
        rng = np.random.default_rng([self.settings.seed, step, 0])
        shards = self.settings.shards
        seeds = rng.integers(2**62, size=shards)[self.processes.rank :: self.processes.size]
        drawn = sampler(source_of(self.settings, step))
        parts = [drawn.sample(self.settings.batch // shards, int(seed)) for seed in seeds]
        events, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        iterations = self.settings.model.get("belief_propagation", 0)
        dtype = torch.float16 if iterations else torch.uint8
        seen = drawn.grid.pack(events, iterations, dtype)
        return Batch(seen, drawn.grid.static, labels, drawn.grid.valid)


def check_mixture(settings: TrainSettings) -> None:
    """Draws from the models of ``model_of``, or from the first ones of the mixture.

    Raises:
        QecError: a file that is no such model, or noise so strong that Stim refuses it.
    """
    if settings.model_of:
        for file in settings.model_of:
            sampler_of(Source(file=file))
        return
    d, p = min(settings.distances), max(settings.ps)
    for noise in sorted(set(settings.noises)):
        source = Source(distance=d, rounds=settings.rounds or d, noise=noise, p=p)
        for with_cz in {False, settings.with_cz > 0}:
            sampler_of(dataclasses.replace(source, with_cz=with_cz, spread=settings.spread))


def batches(
    settings: TrainSettings, first: int, last: int, processes: ProcessGroup = SINGLE_PROCESS
) -> Iterator[Batch]:
    """Shares of batches first .. last - 1 in order, made ahead by ``settings.workers`` workers.

    Raises:
        QecError: an error model of the mixture that cannot be sampled.
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
            raise QecError(str(item))  # `item` and its frame would keep the workers for ever
        yield item


def _start_worker(_: int) -> None:
    end_with_parent(at_once=False)
    torch.set_num_threads(1)
    # Python reports an error of the thread that hands tensors over, when Ctrl-C ends its peer, to
    # this hook; an error in a batch does not come here.
    sys.excepthook = lambda *_: None
