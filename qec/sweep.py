"""`qec sweep`: logical error rates of several decoders over a grid, paired on the same shots.

Sinter runs the worker processes, the CSV file and its resumption.  One ``PairedSampler`` takes the
place of sinter's sample-then-decode loop: each batch of shots is sampled once and decoded by every
decoder, so that differences between decoders are not drowned in sampling noise.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import itertools
import math
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import sinter
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.dataset import load_circuit
from qec.decoder import DECODER_NAMES, named_decoder
from qec.errors import QecError
from qec.files import atomic_path, make_folder
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.noise import CircuitNoise
from qec.plots import plot_ler
from qec.stats import Estimate, PairedRatio, error_rate, error_rate_per_round, paired_ratio

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
    found = {stat.strong_id: stat for stat in stats}
    rows = [row for key in ids if key in found for row in _rows(found[key], settings.decoders)]

    with atomic_path(settings.out / "stats.csv") as temporary:
        lines = [sinter.CSV_HEADER, *(row.to_task_stats().to_csv_line() for row in rows)]
        temporary.write_text("\n".join(lines) + "\n")
    plots = plot_ler(rows, settings.out)
    print_tables(rows)
    new = sum(found[key].shots for key in ids if key in found) - before
    seconds = time.monotonic() - started
    print(f"{new} new shots, {before} resumed, {seconds:.0f} s in all,")
    print(f"worker processes: {settings.num_workers}, cores: {len(_cores())}")
    print(f"files: {collected} stats.csv {' '.join(path.name for path in plots)}")
    print(f"to reproduce: {shlex.join(command)}")
    return rows


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _read_collected(path: Path) -> dict[str, sinter.TaskStats]:
    """Rows of an earlier run by task; refuses a file that sinter could not append to."""
    if not path.exists():
        return {}
    try:
        text = path.read_bytes()
        if not text.endswith(b"\n"):  # killed while writing: that row is sampled again
            with atomic_path(path) as temporary:
                temporary.write_bytes(text[: text.rfind(b"\n") + 1])
        stats = sinter.stats_from_csv_files(path)
    except (ValueError, KeyError, TypeError, OSError, csv.Error) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise QecError(
            f"{path} cannot be resumed ({reason}): repair or delete it, or choose another out=."
        ) from error
    return {stat.strong_id: stat for stat in stats}


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
        values["num_workers"] = values["num_workers"] or len(_cores())
        for key in ("max_shots", "batch", "num_workers", "max_errors"):
            value = values[key]
            if key == "max_errors" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise QecError(f"{key}={value!r} is not supported: use an integer >= 1.")
        if not isinstance(values["perfect_final_round"], bool):
            raise QecError("perfect_final_round must be true or false.")
        values["predecoder"] = str(values["predecoder"])
        values["out"] = Path(str(values["out"]))
        return cls(**values)

    def sampler(self) -> PairedSampler:
        return PairedSampler(self.decoders, self.predecoder, self.batch)


def tasks(settings: Settings) -> Iterator[sinter.Task]:
    """One sinter task per grid point or circuit file."""
    shared: dict[str, object] = {"decoders": list(settings.decoders)}
    if any(_has_predecoder(name) for name in settings.decoders):
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


def _grid(settings: Settings):
    seen = set()
    for noise, orientation, basis, d, rounds, p in itertools.product(
        settings.noise,
        settings.orientation,
        settings.basis,
        settings.distance,
        settings.rounds,
        settings.p,
    ):
        r = d if rounds is None else rounds
        if (point := (noise, orientation, basis, d, r, p)) in seen:
            continue
        seen.add(point)
        circuit = memory_circuit(
            RotatedSurfaceCode(d, orientation),
            CircuitNoise.named(noise, p),
            r,
            basis,
            perfect_final_round=settings.perfect_final_round,
        )
        metadata = {"d": d, "r": r, "p": p, "b": basis, "noise": noise, "o": orientation}
        if settings.perfect_final_round:
            metadata["perfect_final_round"] = True
        yield circuit, detector_error_model(circuit), metadata


def _circuit_files(settings: Settings):
    for path in settings.circuit:
        circuit = load_circuit(path)
        dem = detector_error_model(circuit)
        try:
            lattice = SpaceTimeLattice.from_dem(dem)
        except QecError as error:
            raise QecError(f"{path}: {error}") from error
        yield circuit, dem, {"d": lattice.distance, "r": lattice.rounds, "circuit": path}


# The sampler in sinter's workers -----------------------------------------------------------------


def _has_predecoder(name: str) -> bool:
    return name.startswith("predecoder+")


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
        if any(_has_predecoder(name) for name in self.decoders):
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
            shared = _has_predecoder(name)
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


# Results -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """One decoder at one grid point, next to the baseline decoder on the same shots.

    Attributes:
        task_id: sinter's strong id of the grid point.
        metadata: what was sampled (d, r, p, b, noise, ...) and decoded with (predecoder).
        decoder, baseline: names.
        shots, errors: of the decoder.
        baseline_errors, both_errors: shots that the baseline, that both predict wrongly.
        predecode_ns, match_ns: time spent on all shots.
        events, events_left: detection events before and after the pre-decoder, all shots.
    """

    task_id: str
    metadata: dict
    decoder: str
    baseline: str
    shots: int
    errors: int
    baseline_errors: int
    both_errors: int
    predecode_ns: int
    match_ns: int
    events: int
    events_left: int

    @property
    def per_shot(self) -> Estimate:
        return error_rate(self.errors, self.shots)

    @property
    def per_round(self) -> Estimate:
        return error_rate_per_round(self.errors, self.shots, self.metadata["r"])

    @property
    def gain(self) -> PairedRatio:
        """LER(baseline) / LER(decoder)."""
        return paired_ratio(self.baseline_errors, self.errors, self.both_errors)

    def to_task_stats(self) -> sinter.TaskStats:
        """An ordinary sinter row; its seconds are those of decoding alone."""
        counted = ("baseline_errors", "both_errors", "predecode_ns", "match_ns")
        counted += ("events", "events_left")
        return sinter.TaskStats(
            strong_id=f"{self.task_id}:{self.decoder}",
            decoder=self.decoder,
            json_metadata={**self.metadata, "baseline": self.baseline},
            shots=self.shots,
            errors=self.errors,
            seconds=(self.predecode_ns + self.match_ns) / 1e9,
            custom_counts=collections.Counter({key: getattr(self, key) for key in counted}),
        )


def _rows(stat: sinter.TaskStats, decoders: Sequence[str]) -> Iterator[Row]:
    counts = stat.custom_counts
    for name in decoders:
        dropped = {"decoders"} if _has_predecoder(name) else {"decoders", "predecoder"}
        yield Row(
            task_id=stat.strong_id,
            metadata={k: v for k, v in stat.json_metadata.items() if k not in dropped},
            decoder=name,
            baseline=decoders[0],
            shots=stat.shots,
            errors=counts[f"errors:{name}"],
            baseline_errors=counts[f"errors:{decoders[0]}"],
            both_errors=counts[f"both:{name}"],
            predecode_ns=counts[f"predecode_ns:{name}"],
            match_ns=counts[f"match_ns:{name}"],
            events=counts["events"],
            events_left=counts[f"events_left:{name}"],
        )


def print_tables(rows: Sequence[Row]) -> None:
    """Prints one table per grid point."""
    console = Console(markup=False, highlight=False)
    console.width = max(console.width, 140)  # below that rich would cut numbers short
    for _, group in itertools.groupby(rows, key=lambda row: row.task_id):
        members = list(group)
        first = members[0]
        table = Table(
            title=f"{_title(first.metadata)}: {first.shots} shots",
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        table.add_column("\ndecoder", no_wrap=True)
        for header in (
            "\nerrors",
            "LER per shot\n(95 %)",
            "LER per\nround",
            "ratio to baseline\n(95 %, paired)",
            "matching\nus/round",
            "network\nus/round",
            "events per shot\nbefore > after",
        ):
            table.add_column(header, justify="right", no_wrap=True)
        for row in members:
            shot_rounds = row.shots * row.metadata["r"] * 1000
            gain = row.gain
            paired = f"{gain.value:.2f} ({gain.low:.2f}-{gain.high:.2f})"
            table.add_row(
                row.decoder,
                str(row.errors),
                _scientific(row.per_shot),
                f"{row.per_round.value:.2e}",
                "baseline" if row.decoder == row.baseline else paired,
                f"{row.match_ns / shot_rounds:.2f}",
                f"{row.predecode_ns / shot_rounds:.2f}" if _has_predecoder(row.decoder) else "",
                f"{row.events / row.shots:.2f} > {row.events_left / row.shots:.2f}",
            )
        console.print(table)
    if rows:
        console.print(f"LER: logical error rate; ratio: LER({rows[0].baseline}) / LER(decoder)")


def _title(metadata: dict) -> str:
    if "circuit" in metadata:
        return f"{metadata['circuit']} (d={metadata['d']} R={metadata['r']})"
    perfect = ", perfect final round" if metadata.get("perfect_final_round") else ""
    return "d={d} R={r} p={p:g} basis {b}, {noise} noise, {o}".format(**metadata) + perfect


def _scientific(rate: Estimate) -> str:
    """``4.45e-2 (4.17-4.75)``: the interval shares the exponent of the value."""
    exponent = math.floor(math.log10(rate.value or rate.high))
    value, low, high = (x / 10**exponent for x in (rate.value, rate.low, rate.high))
    return f"{value:.2f}e{exponent} ({low:.2f}-{high:.2f})"
