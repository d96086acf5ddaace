"""`qec sweep`: logical error rates of several decoders over a grid, paired on the same shots.

Sinter runs the worker processes, the CSV file and its resumption.  One ``PairedSampler`` takes the
place of sinter's sample-then-decode loop: each batch of shots is sampled once and decoded by every
decoder, so that differences between decoders are not drowned in sampling noise.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
import io
import itertools
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sinter
import stim
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.config import required_path
from qec.dataset import load_circuit, load_noise
from qec.decoder import DECODER_NAMES, named_decoder
from qec.errors import QecError, first_line
from qec.files import atomic_path, make_folder
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.noise import CircuitNoise
from qec.plots import plot_ler
from qec.results import Row, has_predecoder, print_tables, rows_of, write_stats

SAMPLER = "paired"
"""The name under which the sampler stands in the decoder column of collected.csv."""


# The job -----------------------------------------------------------------------------------------


def sweep(config: DictConfig, command: Sequence[str] = ("qec", "sweep")) -> list[Row]:
    """Runs a sweep as configured by conf/sweep.yaml; writes its files and prints its table.

    Raises:
        QecError: a value that makes no sense, an unreadable circuit, an unwritable folder.
    """
    started = time.monotonic()
    settings = Settings.from_config(config)
    points = list(tasks(settings))
    make_folder(settings.out)
    collected = settings.out / "collected.csv"
    known = _read_collected(collected)
    ids = [task.strong_id() for task in points]
    before = sum(known[key].shots for key in ids if key in known)

    found = _collect(settings, points, collected, before)
    rows = [row for key in ids if key in found for row in rows_of(found[key], settings.decoders)]
    write_stats(rows, settings.out / "stats.csv")
    plots = plot_ler(rows, settings.out)
    print_tables(rows)
    new = sum(found[key].shots for key in ids if key in found) - before
    seconds = time.monotonic() - started
    print(f"{new} new shots, {before} resumed, {seconds:.0f} s in all,")
    print(f"worker processes: {settings.num_workers}, cores: {len(_cores())}")
    print(f"files: {collected} stats.csv {' '.join(path.name for path in plots)}")
    print(f"same settings, fresh shots (nothing is seeded; give a new out=): {shlex.join(command)}")
    return rows


def _collect(
    settings: Settings, points: list[sinter.Task], collected: Path, before: int
) -> dict[str, sinter.TaskStats]:
    """Runs sinter under a progress bar; all statistics, resumed ones included, by strong id."""
    columns = [TextColumn("shots"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=settings.max_shots * len(points), completed=before)
        try:
            stats = sinter.collect(
                num_workers=settings.num_workers,
                tasks=points,
                save_resume_filepath=collected,
                progress_callback=lambda news: progress.advance(
                    bar, sum(stat.shots for stat in news.new_stats)
                ),
                max_shots=settings.max_shots,
                max_errors=settings.max_errors,
                custom_decoders={SAMPLER: settings.sampler()},
                allowed_cpu_affinity_ids=_cores(),
            )
        except (RuntimeError, ValueError) as error:  # sinter's wrapping of a worker's exception
            if isinstance(error.__cause__, QecError):
                raise error.__cause__ from error
            raise
    return {stat.strong_id: stat for stat in stats}


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _read_collected(path: Path) -> dict[str, sinter.TaskStats]:
    """Rows of an earlier run by task; refuses a file that sinter could not append to.

    A line that a killed job left unfinished is dropped from the file: its shots are sampled again.
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
    if whole != text:
        with atomic_path(path) as temporary:
            temporary.write_text(whole)
    return {stat.strong_id: stat for stat in stats}


def _columns(text: str) -> list[str]:
    return [name.strip() for name in text.partition("\n")[0].split(",")]


# What to sample ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of conf/sweep.yaml, validated; the axes of the grid as tuples."""

    distance: tuple[int, ...]
    rounds: tuple[int | None, ...]
    p: tuple[float, ...]
    basis: tuple[str, ...]
    noise: tuple[str, ...]
    orientation: tuple[str, ...]
    perfect_final_round: bool
    circuit: tuple[str, ...]
    decoders: tuple[str, ...]
    predecoder: str
    max_shots: int
    max_errors: int | None
    batch: int
    num_workers: int
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> Settings:
        values = OmegaConf.to_container(config)
        axes = ("distance", "rounds", "p", "basis", "noise", "orientation", "circuit", "decoders")
        for key in axes:
            value = values[key] if isinstance(values[key], list) else [values[key]]
            if any(isinstance(item, list | dict) for item in value):
                raise QecError(f"{key}={value} is nested: give one value, or a list of values.")
            values[key] = tuple(dict.fromkeys(value))
        values["circuit"] = tuple(str(path) for path in values["circuit"] if path is not None)
        for key in axes:
            if not values[key] and key != "circuit":
                raise QecError(f"{key} is empty: give at least one value.")
        for p in values["p"]:
            if p == 0:
                raise QecError("p=0 leaves nothing to decode: give a noise strength above 0.")
        for name in values["decoders"]:
            if name not in DECODER_NAMES:
                raise QecError(f"decoder {name!r} is unknown: use {', '.join(DECODER_NAMES)}.")
        if values["num_workers"] is None:
            values["num_workers"] = len(_cores())
        for key in ("max_shots", "batch", "num_workers", "max_errors"):
            value = values[key]
            if key == "max_errors" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise QecError(f"{key}={value!r} is not supported: use an integer >= 1.")
        if not isinstance(values["perfect_final_round"], bool):
            raise QecError("perfect_final_round must be true or false.")
        values["predecoder"] = str(values["predecoder"])
        values["out"] = required_path(config, "out")
        return cls(**values)

    def sampler(self) -> PairedSampler:
        return PairedSampler(self.decoders, self.predecoder, self.batch)


def tasks(settings: Settings) -> Iterator[sinter.Task]:
    """One sinter task per grid point or circuit file."""
    shared: dict[str, object] = {"decoders": list(settings.decoders)}
    if any(has_predecoder(name) for name in settings.decoders):
        from qec.predecoder.checkpoint import load_predecoder

        predecoder = load_predecoder(settings.predecoder)
        # In the task's identity, so that a retrained checkpoint starts new rows.
        shared["predecoder"] = f"{predecoder.name}@{predecoder.digest}"
    sampled = _circuit_files(settings) if settings.circuit else _grid(settings)
    for circuit, dem, metadata in sampled:
        yield sinter.Task(
            circuit=circuit,
            detector_error_model=dem,
            decoder=SAMPLER,
            json_metadata={**metadata, **shared},
        )


_Point = tuple[stim.Circuit, stim.DetectorErrorModel, dict]


def _grid(settings: Settings) -> Iterator[_Point]:
    models = [_noise_models(str(name), settings.p) for name in settings.noise]
    seen = set()
    for family, orientation, basis, d, rounds in itertools.product(
        models, settings.orientation, settings.basis, settings.distance, settings.rounds
    ):
        code, r = RotatedSurfaceCode(d, orientation), d if rounds is None else rounds
        for label, p, noise in family:
            strength = {} if p is None else {"p": p}
            metadata = {"d": d, "r": r, **strength, "b": basis, "noise": label, "o": orientation}
            if settings.perfect_final_round:
                metadata["perfect_final_round"] = True
            if (point := tuple(metadata.items())) in seen:
                continue
            seen.add(point)
            circuit = memory_circuit(
                code, noise, r, basis, perfect_final_round=settings.perfect_final_round
            )
            yield circuit, detector_error_model(circuit), metadata


def _noise_models(
    name: str, strengths: Sequence[float]
) -> list[tuple[str, float | None, CircuitNoise]]:
    """Label, strength and model: of a named family for each strength, or of a file, without one."""
    if Path(name).suffix not in (".yaml", ".yml"):
        return [(name, p, CircuitNoise.named(name, p)) for p in strengths]
    noise = load_noise(name)
    # The rates are in the task's identity, so that an edited file starts new rows.
    digest = hashlib.sha256(repr(noise).encode()).hexdigest()[:8]
    return [(f"{Path(name).name}@{digest}", None, noise)]


def _circuit_files(settings: Settings) -> Iterator[_Point]:
    for path in settings.circuit:
        circuit = load_circuit(path)
        dem = detector_error_model(circuit)
        try:
            lattice = SpaceTimeLattice.from_dem(dem)
        except QecError as error:
            raise QecError(f"{path}: {error}") from error
        yield circuit, dem, {"d": lattice.distance, "r": lattice.rounds, "circuit": path}


# The sampler in sinter's workers -----------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PairedSampler(sinter.Sampler):
    """Samples shots once and decodes them with several decoders.

    Attributes:
        decoders: their names; ``errors`` of the returned statistics are those of the first.
        predecoder: name or path of the checkpoint of those that have a pre-decoder.
        batch: shots at a time.
    """

    decoders: tuple[str, ...]
    predecoder: str
    batch: int

    def compiled_sampler_for_task(self, task: sinter.Task) -> CompiledPairedSampler:
        if any(has_predecoder(name) for name in self.decoders):
            from qec.sinter_plugin import limit_threads_in_workers  # imports torch

            limit_threads_in_workers()
        return CompiledPairedSampler(self, task)


class CompiledPairedSampler(sinter.CompiledSampler):
    """``PairedSampler`` for one circuit.  Custom counts, all additive:

    events: detection events sampled;
    errors:NAME: shots that NAME predicts wrongly;
    both:NAME: shots that NAME and the first decoder predict wrongly;
    events_left:NAME: detection events that NAME hands to matching;
    predecode_ns:NAME, match_ns:NAME: nanoseconds spent.  Decoders that share a pre-decoder run
    the network once and each report its time.
    """

    def __init__(self, sampler: PairedSampler, task: sinter.Task) -> None:
        self.batch = sampler.batch
        self.stim_sampler = task.circuit.compile_detector_sampler()
        self.decoders = {
            name: named_decoder(name, task.detector_error_model, predecoder=sampler.predecoder)
            for name in sampler.decoders
        }
        self.sample(min(64, self.batch))  # first calls set things up: keep them out of the timings

    def handles_throttling(self) -> bool:
        return True

    def sample(self, suggested_shots: int) -> sinter.AnonTaskStats:
        started = time.perf_counter()
        shots = min(suggested_shots, self.batch)
        dets, flips = self.stim_sampler.sample(shots, separate_observables=True)
        dets, truth = dets.view(np.uint8), flips[:, 0].view(np.uint8)
        counts = collections.Counter(events=int(dets.sum()))
        residuals: dict[bool, tuple[np.ndarray, np.ndarray, int]] = {}
        baseline = None
        for name, decoder in self.decoders.items():
            shared = has_predecoder(name)
            if shared not in residuals:
                start = time.perf_counter_ns()
                predecoded = decoder.predecode(dets)
                residuals[shared] = (*predecoded, time.perf_counter_ns() - start)
            residual, committed, predecode_ns = residuals[shared]
            start = time.perf_counter_ns()
            matched = decoder.match(residual)
            counts[f"match_ns:{name}"] = time.perf_counter_ns() - start
            counts[f"predecode_ns:{name}"] = predecode_ns
            counts[f"events_left:{name}"] = int(residual.sum())
            wrong = (matched ^ committed) != truth
            baseline = wrong if baseline is None else baseline
            counts[f"errors:{name}"] = int(wrong.sum())
            counts[f"both:{name}"] = int((wrong & baseline).sum())
        return sinter.AnonTaskStats(
            shots=shots,
            errors=int(baseline.sum()),
            seconds=time.perf_counter() - started,
            custom_counts=counts,
        )
