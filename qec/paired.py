"""Logical error counts of several decoders on the same shots, in worker processes.

Each batch of shots is sampled once and decoded by every decoder, so that differences between
decoders are not drowned in sampling noise.  Tasks, statistics and the CSV file are sinter's.  Its
workers are not: they would outlive a parent that is killed, and it would wait for ever for one of
them that is.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import shlex
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sinter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qec.collected import added, append_row, check_metadata
from qec.decoder import Decoder, named_decoders
from qec.decoder_names import has_predecoder
from qec.errors import QecError
from qec.fallback import Matched
from qec.job_array import record_seed
from qec.journal import append_text
from qec.points import Point
from qec.pool import Workers, available_cores

SAMPLER = "paired"
"""The name under which the sampler stands in the decoder column of collected.csv."""


# The sampler in the workers ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairedSampler(sinter.Sampler):
    """Samples shots once and decodes them with several decoders.

    Attributes:
        decoders: their names; ``errors`` of the returned statistics are those of the first.
        predecoder: name or path of the checkpoint of those that have a pre-decoder, or several:
            each of those decoders is then there once for each, as in ``rows``.
        batch: shots at a time.
        baselines: for each row the one that it is compared with, shot by shot; empty: the first.
        seed: of the shots; None: Stim's choice.
    """

    decoders: tuple[str, ...]
    predecoder: str | tuple[str, ...]
    batch: int
    baselines: tuple[str, ...] = ()
    seed: int | None = None

    def rows(self) -> dict[str, tuple[str, str | None]]:
        """For the name of each row of results its decoder, and the checkpoint where it has one.

        The name is the decoder's; of several checkpoints it says which one, by the file's stem:
        ``predecoder[swift]+pymatching``.

        Raises:
            QecError: two checkpoints of one name.
        """
        several = (self.predecoder,) if isinstance(self.predecoder, str) else self.predecoder
        labels = {Path(path).stem: path for path in several}
        if len(labels) < len(several):
            raise QecError(
                f"predecoder={','.join(several)}: two checkpoints have one name, which tells their "
                "rows apart: rename a file."
            )
        found: dict[str, tuple[str, str | None]] = {}
        for name in self.decoders:
            if not has_predecoder(name):
                found[name] = (name, None)
                continue
            for label, path in labels.items():
                tag = f"predecoder[{label}]" if len(labels) > 1 else "predecoder"
                found[name.replace("predecoder", tag, 1)] = (name, path)
        return found

    def compiled_sampler_for_task(self, task: sinter.Task) -> CompiledPairedSampler:
        return CompiledPairedSampler(self, task)

    def tasks(
        self, points: Iterable[Point], *, max_shots: int, max_errors: int | None = None
    ) -> Iterator[sinter.Task]:
        """A sinter task per point; what decodes it is part of the task's identity.

        Raises:
            QecError: a checkpoint cannot be loaded, or as ``rows`` or ``points``.
        """
        rows = self.rows()
        shared: dict[str, object] = {"decoders": list(rows)}
        if self.baselines:
            shared["baselines"] = list(self.baselines)
        if paths := dict.fromkeys(path for _, path in rows.values() if path is not None):
            from qec.predecoder.checkpoint import load_predecoder

            # The digest, so that a retrained checkpoint starts new rows.
            loaded = [load_predecoder(path) for path in paths]
            names = [f"{predecoder.name}@{predecoder.digest}" for predecoder in loaded]
            shared["predecoder"] = names[0] if len(names) == 1 else names
        for circuit, dem, metadata in points:
            yield sinter.Task(
                circuit=circuit,
                detector_error_model=dem,
                decoder=SAMPLER,
                json_metadata={**metadata, **shared},
                collection_options=sinter.CollectionOptions(
                    max_shots=max_shots, max_errors=max_errors
                ),
            )


class CompiledPairedSampler(sinter.CompiledSampler):
    """``PairedSampler`` for one circuit.  Custom counts, all additive:

    events: detection events sampled, of the checks that decide where a pre-decoder takes part;
    errors:NAME: shots that NAME predicts wrongly;
    both:NAME: shots that NAME and its baseline predict wrongly;
    events_left:NAME: those that NAME hands to matching, of the residuals and of the shots that it
    falls back on matching as a whole;
    fallbacks:NAME: the number of those shots;
    predecode_ns:NAME, match_ns:NAME: nanoseconds of CPU time, which other work on the machine does
    not count into.  Decoders that share a checkpoint run its network once and each report its time.
    """

    def __init__(self, sampler: PairedSampler, task: sinter.Task) -> None:
        self.batch = sampler.batch
        self.stim_sampler = task.circuit.compile_detector_sampler(seed=sampler.seed)
        rows, self.groups, made = sampler.rows(), [], {}
        for checkpoint in dict.fromkeys(path for _, path in rows.values()):
            group = {row: name for row, (name, path) in rows.items() if path == checkpoint}
            network = {} if checkpoint is None else {"predecoder": checkpoint}
            with warnings.catch_warnings(action="ignore"):  # whoever made the tasks has said it
                found = named_decoders(tuple(group.values()), task.detector_error_model, **network)
            made |= {row: found[name] for row, name in group.items()}
            self.groups.append(list(group))
        self.decoders = {row: made[row] for row in rows}
        baselines = sampler.baselines or list(rows)[:1] * len(rows)
        self.baselines = dict(zip(rows, baselines, strict=True))
        lattices = (d.predecoder.lattice for d in self.decoders.values() if d.predecoder)
        everywhere = np.arange(task.circuit.num_detectors)
        self._counted = next((lattice.memory_detectors for lattice in lattices), everywhere)
        self.sample(min(64, self.batch))  # first calls set things up: keep them out of the timings

    def handles_throttling(self) -> bool:
        return True

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        started = time.perf_counter()
        shots = min(suggested_shots, self.batch)
        dets, flips = self.stim_sampler.sample(shots, separate_observables=True)
        dets, truth = dets.view(np.uint8), flips[:, 0].view(np.uint8)
        counts = collections.Counter(events=self._events(dets))
        wrong: dict[str, np.ndarray] = {}
        for names in self.groups:
            done = self._decode(dets, [self.decoders[name] for name in names])
            for name in names:
                found = done[self.decoders[name]]
                counts[f"match_ns:{name}"] = found.match_ns
                counts[f"predecode_ns:{name}"] = found.predecode_ns
                whole = dets[found.matched.fell_back]
                counts[f"fallbacks:{name}"] = len(whole)
                counts[f"events_left:{name}"] = found.events + self._events(whole)
                wrong[name] = found.matched.flips != truth
        for name, baseline in self.baselines.items():
            counts[f"errors:{name}"] = int(wrong[name].sum())
            counts[f"both:{name}"] = int((wrong[name] & wrong[baseline]).sum())
        return sinter.AnonTaskStats(
            shots=shots,
            errors=counts[f"errors:{next(iter(self.decoders))}"],
            seconds=time.perf_counter() - started,
            custom_counts=counts,
        )

    def _decode(self, dets: np.ndarray, decoders: Sequence[Decoder]) -> dict[Decoder, _Decoded]:
        """Decodes with each of them, once where it is there several times."""
        first, *others = dict.fromkeys(decoders)
        start = time.process_time_ns()
        predecoded = first.predecode_also_for(others, dets)
        predecode_ns = time.process_time_ns() - start
        done = {}
        for decoder, part in zip((first, *others), predecoded, strict=True):
            start = time.process_time_ns()
            matched = decoder.match(dets, part)
            match_ns = time.process_time_ns() - start
            events = self._events(part.residual)
            if matched.looked_again.any():
                again = matched.looked_again
                events += sum(self._events(other.residual[again]) for other in part.others)
            done[decoder] = _Decoded(matched, events, predecode_ns, match_ns)
        return done

    def _events(self, dets: np.ndarray) -> int:
        return int(dets.take(self._counted, axis=1).sum())


class _Decoded(NamedTuple):
    """What one decoder made of a batch."""

    matched: Matched
    events: int  # left by the pre-decoder, at all looks
    predecode_ns: int
    match_ns: int


# Collecting --------------------------------------------------------------------------------------

_LONGEST, _SHORTEST = 30.0, 0.5
"""Seconds of an order: at most as much work of each worker is lost when a job is killed."""


class _Order(NamedTuple):
    """What a worker is to do before it reports.

    Attributes:
        task, seed: what it turns to, and the seed of its shots; None: goes on with the same.
        shots, errors: after which it is done, whichever is first.
        seconds: after which it reports anyway.
    """

    task: sinter.Task | None
    seed: int | None
    shots: int
    errors: float
    seconds: float


class _Sampling:
    """A worker's work: samples one task after the other."""

    def __init__(self, sampler: PairedSampler) -> None:
        self._sampler = sampler
        self._compiled: sinter.CompiledSampler | None = None

    def __call__(self, order: _Order) -> sinter.AnonTaskStats:
        if order.task is not None:
            self._compiled = None  # two of them may be too large for the memory
            seeded = dataclasses.replace(self._sampler, seed=order.seed)
            self._compiled = seeded.compiled_sampler_for_task(order.task)
        done, end = sinter.AnonTaskStats(), time.monotonic() + order.seconds
        while done.shots < order.shots and done.errors < order.errors:
            done += self._compiled.sample(order.shots - done.shots)
            if time.monotonic() >= end:
                break
        return done


class _Unfinished:
    """A task that is being sampled: what it lacks, and who works on it.

    Attributes:
        workers: numbers of those whose task it is.
    """

    def __init__(self, task: sinter.Task, stat: sinter.TaskStats | None) -> None:
        self.task, self.workers = task, set()
        asked = task.collection_options
        shots, errors = (0, 0) if stat is None else (stat.shots, stat.errors)
        self.shots_left = asked.max_shots - shots
        self._errors_left = math.inf if asked.max_errors is None else asked.max_errors - errors
        self._given, self._done, self._seconds = 0, 0, 0.0

    @property
    def unfinished(self) -> bool:
        return self.shots_left > 0 and self._errors_left > 0

    @property
    def open(self) -> int:
        """Shots that nobody is at work on."""
        return self.shots_left - self._given if self.unfinished else 0

    def order(self, worker: int, most: int, seeds: Path | None) -> _Order:
        """A share of what is open, shorter the less is left, so that all end together.

        ``most``: the workers that may come to share it.
        """
        fresh, seed = worker not in self.workers, None
        if fresh and seeds is not None:
            seed = record_seed(seeds, self.task.strong_id())
        self.workers.add(worker)
        share = max(len(self.workers), most)
        shots = min(self.open, -(-self.shots_left // share))
        self._given += shots
        expected = self._seconds / self._done * self.shots_left / share if self._done else 0.0
        return _Order(
            task=self.task if fresh else None,
            seed=seed,
            shots=shots,
            errors=max(1, self._errors_left / share),
            seconds=min(max(expected / 2, _SHORTEST), _LONGEST),
        )

    def add(self, order: _Order, done: sinter.AnonTaskStats) -> sinter.TaskStats:
        """Counts what came of an order; returns its row."""
        self._given -= order.shots
        self.shots_left -= done.shots
        self._errors_left -= done.errors
        self._done += done.shots
        self._seconds += done.seconds
        return sinter.TaskStats(
            strong_id=self.task.strong_id(),
            decoder=self.task.decoder,
            json_metadata=self.task.json_metadata,
            shots=done.shots,
            errors=done.errors,
            seconds=done.seconds,
            custom_counts=done.custom_counts,
        )


def collect(
    tasks: Sequence[sinter.Task],
    sampler: PairedSampler,
    collected: Path,
    known: Mapping[str, sinter.TaskStats],
    *,
    num_workers: int,
    seeds: Path | None = None,
    label: str = "shots",
) -> dict[str, sinter.TaskStats]:
    """Samples under a progress bar until each task has the shots that its options ask for.

    Each row goes to the file as soon as it is there, so that whatever ends this early loses half
    a minute of work of each worker at most.

    Args:
        tasks: from ``sampler.tasks``.
        collected: the CSV file that is appended to; nobody else may be writing to it.
        known: what is already there, in this file or others.
        seeds: the file in which the seed of each sampler is noted; None: they are not known.
        label: stands in front of the bar.

    Returns:
        all statistics, known ones included, by strong id.

    Raises:
        QecError: as raised in a worker; a worker that died; a file that cannot be written.
    """
    check_metadata(known, tasks)
    missing = [_Unfinished(task, known.get(task.strong_id())) for task in tasks]
    missing = [progress for progress in missing if progress.open > 0]
    batches = sum(-(-progress.open // sampler.batch) for progress in missing)
    rows: list[sinter.TaskStats] = []
    if not collected.exists():
        append_text(collected, sinter.CSV_HEADER + "\n")
    columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    console = Console(stderr=True)
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar,
        Workers(min(num_workers, batches), _Sampling(sampler)) as workers,
    ):
        total = sum(task.collection_options.max_shots for task in tasks)
        shown = bar.add_task("", total=total, completed=shots_of(known, tasks))
        for row in _rows(missing, workers, seeds):
            append_row(collected, row)
            rows.append(row)
            bar.advance(shown, row.shots)
    return added(known.values(), rows)


def _rows(
    missing: Sequence[_Unfinished],
    workers: Workers[_Order, sinter.AnonTaskStats],
    seeds: Path | None,
) -> Iterator[sinter.TaskStats]:
    """Deals the work out; rows as they come.  A worker stays with a task as long as it can."""
    doing: dict[int, tuple[_Unfinished, _Order]] = {}
    while True:
        for worker in sorted(workers.idle):
            with_work = [progress for progress in missing if progress.open > 0]
            if not with_work:
                break
            own = [progress for progress in with_work if worker in progress.workers]
            progress = own[0] if own else min(with_work, key=lambda p: len(p.workers))
            for other in missing:
                if other is not progress:
                    other.workers.discard(worker)
            unfinished = sum(other.unfinished for other in missing)
            order = progress.order(worker, -(-workers.number // unfinished), seeds)
            workers.give(worker, order)
            doing[worker] = progress, order
        if not workers.busy:
            return
        for worker, done in workers.wait():
            progress, order = doing.pop(worker)
            yield progress.add(order, done)


def shots_of(stats: Mapping[str, sinter.TaskStats], tasks: Iterable[sinter.Task]) -> int:
    """Shots that ``stats`` holds of these tasks, by strong id."""
    return sum(stats[key].shots for task in tasks if (key := task.strong_id()) in stats)


def print_run(
    tasks: Sequence[sinter.Task],
    known: Mapping[str, sinter.TaskStats],
    stats: Mapping[str, sinter.TaskStats],
    *,
    started: float,
    workers: int,
    files: str,
    command: Sequence[str] | None,
) -> None:
    """Prints what a job did, where its files are, and the command that repeats it.

    Args:
        known, stats: by strong id, before the job and after it.
        started: when the job began, on ``time.monotonic()``'s clock.
        command: the one that repeats it; None: it would not.
    """
    before, seconds = shots_of(known, tasks), time.monotonic() - started
    new = shots_of(stats, tasks) - before
    print(f"{new} new shots, {before} resumed, {seconds:.0f} s in all,")
    print(f"worker processes: {workers}, cores: {len(available_cores())}")
    print(f"files: {files}")
    if command is not None:
        again = shlex.join(command)
        print(f"same settings, fresh shots (seeds are drawn anew; give a new out=): {again}")
