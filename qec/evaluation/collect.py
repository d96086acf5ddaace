"""Paired sampling in worker processes, until each task has the shots that it asks for.

Tasks, statistics and the CSV file are sinter's.  Its workers are not: they would outlive a parent
that is killed, and it would wait for ever for one of them that is.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import sinter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qec.evaluation.collected_rows import added, append_row, check_metadata
from qec.evaluation.job_array import record_seed
from qec.evaluation.paired_sampler import PairedSampler
from qec.support.files import print_files
from qec.support.journal import append_text
from qec.support.process_pool import Workers, available_cores

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
        assert self._compiled is not None  # the first order has a task
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
        self.task = task
        self.workers: set[int] = set()
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
    files: Iterable[Path],
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
    print_files(files)
    if command is not None:
        again = shlex.join(command)
        print(f"same settings, fresh shots (seeds are drawn anew; give a new out=): {again}")
