"""Logical error counts of several decoders on the same shots, in sinter's worker processes.

Sinter runs the workers, the CSV file and its resumption.  One ``PairedSampler`` takes the place of
its sample-then-decode loop: each batch of shots is sampled once and decoded by every decoder, so
that differences between decoders are not drowned in sampling noise.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import itertools
import shlex
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import sinter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qec.decoder import Decoder, has_predecoder, named_decoders
from qec.errors import QecError, first_line
from qec.fallback import Matched
from qec.files import atomic_path
from qec.job_array import record_seed
from qec.points import Point
from qec.pool import available_cores

SAMPLER = "paired"
"""The name under which the sampler stands in the decoder column of collected.csv."""


# The sampler in sinter's workers -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairedSampler(sinter.Sampler):
    """Samples shots once and decodes them with several decoders.

    Attributes:
        decoders: their names; ``errors`` of the returned statistics are those of the first.
        predecoder: name or path of the checkpoint of those that have a pre-decoder, or several:
            each of those decoders is then there once for each, as in ``rows``.
        batch: shots at a time.
        baselines: for each row the one that it is compared with, shot by shot; empty: the first.
        seeds: where each worker notes the seed of its shots; None: they are not known.
    """

    decoders: tuple[str, ...]
    predecoder: str | tuple[str, ...]
    batch: int
    baselines: tuple[str, ...] = ()
    seeds: Path | None = None

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
        seed = None if sampler.seeds is None else record_seed(sampler.seeds, task.strong_id())
        self.stim_sampler = task.circuit.compile_detector_sampler(seed=seed)
        rows, self.groups, made = sampler.rows(), [], {}
        for checkpoint in dict.fromkeys(path for _, path in rows.values()):
            group = {row: name for row, (name, path) in rows.items() if path == checkpoint}
            network = {} if checkpoint is None else {"predecoder": checkpoint}
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


def collect(
    tasks: Sequence[sinter.Task],
    sampler: PairedSampler,
    collected: Path,
    known: Mapping[str, sinter.TaskStats],
    *,
    num_workers: int,
    elsewhere: Mapping[str, sinter.TaskStats] = MappingProxyType({}),
    label: str = "shots",
) -> dict[str, sinter.TaskStats]:
    """Runs sinter under a progress bar until each task has the shots that its options ask for.

    Args:
        tasks: from ``sampler.tasks``.
        collected: the CSV file that is resumed and appended to.
        known: all that is already there, for the bar.
        elsewhere: what of it is not in ``collected``.
        label: stands in front of the bar.

    Returns:
        all statistics, resumed ones included, by strong id.

    Raises:
        QecError: as raised in a worker.
    """
    columns = [TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with (
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
        tempfile.NamedTemporaryFile("w", suffix=".csv") as existing,
    ):
        lines = [sinter.CSV_HEADER, *(stat.to_csv_line() for stat in elsewhere.values())]
        print(*lines, sep="\n", file=existing, flush=True)
        total = sum(task.collection_options.max_shots for task in tasks)
        bar = progress.add_task("", total=total, completed=shots_of(known, tasks))
        try:
            stats = sinter.collect(
                num_workers=num_workers,
                tasks=tasks,
                save_resume_filepath=collected,
                existing_data_filepaths=[existing.name],
                progress_callback=lambda news: progress.advance(
                    bar, sum(stat.shots for stat in news.new_stats)
                ),
                custom_decoders={SAMPLER: sampler},
                allowed_cpu_affinity_ids=available_cores(),
            )
        except (RuntimeError, ValueError) as error:  # sinter's wrapping of a worker's exception
            if isinstance(error.__cause__, QecError):
                raise error.__cause__ from error
            raise
    return {stat.strong_id: stat for stat in stats}


def read_collected(path: Path, *, repair: bool = True) -> dict[str, sinter.TaskStats]:
    """Rows of an earlier run by task; refuses a file that sinter could not append to.

    A line that a killed job left unfinished is passed over: its shots are sampled again.  With
    ``repair`` it is dropped from the file, which nobody else may be writing to then.

    Raises:
        QecError: a file that cannot be read, or whose columns are not sinter's.
    """
    if not path.exists():
        return {}
    try:
        text = path.read_text()
        whole = text[: text.rfind("\n") + 1]
        if sinter.CSV_HEADER.startswith(text):  # empty, or killed in the header
            whole = sinter.CSV_HEADER + "\n"
        if _columns(whole) != _columns(sinter.CSV_HEADER):
            raise ValueError("its columns are not those of sinter")
        stats = sinter.read_stats_from_csv_files(io.StringIO(whole))
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        raise QecError(
            f"{path} cannot be resumed ({first_line(error)}): repair or delete it, or choose "
            "another out=."
        ) from error
    if repair and whole != text:
        with atomic_path(path) as temporary:
            temporary.write_text(whole)
    return {stat.strong_id: stat for stat in stats}


def added(*parts: Mapping[str, sinter.TaskStats]) -> dict[str, sinter.TaskStats]:
    """Statistics by strong id, added up by sinter where several have the same."""
    total: dict[str, sinter.TaskStats] = {}
    for strong_id, stat in itertools.chain.from_iterable(part.items() for part in parts):
        total[strong_id] = total[strong_id] + stat if strong_id in total else stat
    return total


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.partition("\n")[0].split(",")]


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
