"""`qec benchmark`: time per round of each step, for every decoder, next to the machine's limits."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import multiprocessing
import queue
import shlex
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig
from rich.progress import Progress

from qec.benchmarks.plots import plot_steps
from qec.benchmarks.step_timer import STEPS, Profiler
from qec.circuits.experiment_grid import Grid
from qec.decoding.decoder import named_decoder, unpacked
from qec.decoding.decoder_names import check_decoder_name, has_predecoder
from qec.support import child_processes as child
from qec.support.errors import QecError
from qec.support.figures import machine
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.process_pool import available_cores
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path
from qec.support.tables import Column, print_table, three_digits

_BATCHES = 16  # different ones, in turn
_TURNS = 5  # of each decoder
_NETWORK = ("predecoder", "backend", "precision")  # what a decoder with a network varies in


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings:
    """conf/benchmark.yaml, checked."""

    grid: Grid
    batch: tuple[int, ...]
    threads: tuple[int, ...]
    decoders: tuple[str, ...]
    networks: tuple[dict[str, str], ...]
    workers: int
    seconds: float
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> BenchmarkSettings:
        """Raises QecError where a value makes no sense."""
        values = plain_values(config)
        for key in ("batch", "threads", "decoders", *_NETWORK):
            values[key] = distinct_values(key, values[key])
        for key in ("batch", "threads"):
            for value in values[key]:
                positive_integer(key, value)
        for name in values["decoders"]:
            check_decoder_name(name)
        seconds = values["seconds"]
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds <= 0:
            raise QecError(f"seconds={seconds!r} is not supported: use a positive number.")
        if values["workers"] is None:
            values["workers"] = len(available_cores())
        return cls(
            grid=Grid.from_values(values),
            batch=values["batch"],
            threads=values["threads"],
            decoders=values["decoders"],
            networks=tuple(
                dict(zip(_NETWORK, chosen, strict=True))
                for chosen in itertools.product(*(values[key] for key in _NETWORK))
            ),
            workers=positive_integer("workers", values["workers"]),
            seconds=float(seconds),
            out=required_path(config, "out"),
        )


@dataclasses.dataclass(frozen=True)
class TimedPoint:
    """What is timed.

    Attributes:
        circuit, model: as text.
        metadata: d, r, p, b, noise, batch (shots at a time), threads (of each process).
        decoder: as in ``named_decoder``.
        network: its further arguments: predecoder, backend, precision; empty without a network.
        seconds: for which it is decoded, at least.
    """

    circuit: str
    model: str
    metadata: dict
    decoder: str
    network: dict[str, str]
    seconds: float

    @property
    def point(self) -> tuple[str, str, dict]:
        """What cases have in common that differ by their decoder only."""
        return self.circuit, self.model, self.metadata


@dataclasses.dataclass(frozen=True)
class Timing:
    """A case, timed in several processes at once.

    Attributes:
        metadata, decoder, network: of the case.
        steps: microseconds per round and shot of each of ``STEPS``, all processes together: the
            mean of their times over their number.
        handed_on: fraction of the shots whose whole syndrome a cascade's last stage decoded.
        limit: the same for the network at the rate of a matrix product, or of a copy of its
            activations if that takes longer; nan without a network.
        rates: multiply-adds per second and bytes per second of a process, measured before.
        dtype: the network's number format; empty without one.
    """

    metadata: dict
    decoder: str
    network: dict[str, str]
    steps: dict[str, float]
    handed_on: float
    limit: float
    rates: tuple[float, float]
    dtype: str

    @property
    def total(self) -> float:
        """Microseconds per round and shot of all steps together."""
        return sum(self.steps.values())


@writes_out_alone
def benchmark(config: DictConfig, command: Sequence[str] = ("qec", "benchmark")) -> list[Timing]:
    """Times the decoders as configured by conf/benchmark.yaml; prints and writes the results.

    Raises:
        QecError: a value that makes no sense; a process that died.
    """
    settings = BenchmarkSettings.from_config(config)
    sizes = itertools.product(settings.batch, settings.threads)
    cases = [
        TimedPoint(
            *(str(circuit), str(dem), {**metadata, "batch": batch, "threads": threads}),
            *(name, network, settings.seconds),
        )
        for (circuit, dem, metadata), (batch, threads) in itertools.product(
            settings.grid.points(), sizes
        )
        for name in settings.decoders
        for network in (settings.networks if has_predecoder(name) else ({},))
    ]
    timings = run(cases, settings.workers)
    with atomic_path(settings.out / "benchmark.json") as temporary:
        content = {
            "command": list(command),
            "processes": settings.workers,
            "cores": len(available_cores()),
            "timings": [{**dataclasses.asdict(t), "total": t.total} for t in timings],
        }
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    plots = plot_steps(timings, settings.out, machine(settings.workers))
    print_tables(timings, settings.workers)
    print_files([settings.out / "benchmark.json", *plots])
    print(f"same settings: {shlex.join(command)}")
    return timings


def run(cases: Sequence[TimedPoint], workers: int) -> list[Timing]:
    """Times every case in ``workers`` processes at once.

    Raises:
        QecError: a process died, or the decoder cannot be built.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    processes: list[BaseProcess] = []
    found: list[list] = [[] for _ in cases]
    try:
        for k in range(workers):
            processes.append(child.start(_work, (cases, k), (barrier, results)))
        with Progress(transient=True) as progress:
            for _ in progress.track(range(len(cases) * workers), description="timing"):
                index, timing = _next(results, processes)
                found[index].append(timing)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [_together(timings) for timings in found]


def _next(results: multiprocessing.Queue, processes: Sequence) -> tuple[int, Timing]:
    while True:
        try:
            index, timing = results.get(timeout=1)
        except queue.Empty:
            dead = [p for p in processes if p.exitcode not in (None, 0)]
            if dead:
                raise QecError(
                    f"a process died (exit code {dead[0].exitcode}): out of memory? Try a smaller "
                    "batch, or fewer workers."
                ) from None
            continue
        if isinstance(timing, QecError):
            raise timing
        return index, timing


def _work(
    barrier: Barrier, results: multiprocessing.Queue, cases: Sequence[TimedPoint], seed: int
) -> None:
    numbered = itertools.groupby(enumerate(cases), key=lambda entry: entry[1].point)
    for _, group in numbered:
        numbers, members = zip(*group, strict=True)
        try:
            timings = _time(members, barrier, seed)
        except QecError as error:
            results.put((numbers[0], error))
            return
        for entry in zip(numbers, timings, strict=True):
            results.put(entry)


def _time(cases: Sequence[TimedPoint], barrier: Barrier, seed: int) -> list[Timing]:
    """Times decoders of one point, on the same shots, turn by turn: the machine's speed changes."""
    circuit, model, metadata = cases[0].point
    sampler = stim.Circuit(circuit).compile_detector_sampler(seed=seed)
    batches = [sampler.sample(metadata["batch"], bit_packed=True) for _ in range(_BATCHES)]
    dem = stim.DetectorErrorModel(model)
    running = [_Running(case, dem, batches, barrier) for case in cases]
    for _ in range(_TURNS):
        for one in running:
            barrier.wait()
            one.profiler.run(one.case.seconds / _TURNS)
    return [one.timing() for one in running]


class _Running:
    """A case with its decoder."""

    def __init__(
        self,
        case: TimedPoint,
        dem: stim.DetectorErrorModel,
        batches: list[np.ndarray],
        barrier: Barrier,
    ) -> None:
        self.case = case
        threads = case.metadata["threads"]
        decoder = named_decoder(case.decoder, dem, **case.network, threads=threads)
        rounds = case.metadata["r"]
        self._limit, self._rates, self._dtype = np.nan, (np.nan, np.nan), ""
        if decoder.predecoder is not None:  # matching on its weights keeps it to itself
            import torch

            from qec.benchmarks.roofline import Roofline
            from qec.predecoder.backends import torch_threads

            bound = decoder.predecoder
            barrier.wait()
            with torch_threads(threads):
                roofline = Roofline.measured(bound.dtype)
            events = torch.from_numpy(unpacked(batches[0], decoder.num_detectors, packed=True))
            self._limit = 1e6 * roofline.seconds(bound, bound.cells(events)) / rounds
            self._rates = (roofline.multiply_adds, roofline.bytes)
            self._dtype = str(bound.dtype).removeprefix("torch.")
        self.profiler = Profiler(decoder, batches, rounds)

    def timing(self) -> Timing:
        """After its turns."""
        case, found = self.case, self.profiler.profile()
        return Timing(
            *(case.metadata, case.decoder, case.network, found.steps, found.handed_on),
            *(self._limit, self._rates, self._dtype),
        )


def _together(timings: Sequence[Timing]) -> Timing:
    """The processes of a case as one machine."""
    n = len(timings)
    return dataclasses.replace(
        timings[0],
        steps={step: sum(t.steps[step] for t in timings) / n**2 for step in STEPS},
        handed_on=sum(t.handed_on for t in timings) / n,
        limit=sum(t.limit for t in timings) / n**2,
        rates=tuple(np.mean([t.rates for t in timings], axis=0).tolist()),
    )


_BASELINES = {
    "over\nuncorrelated": "pymatching-css",
    "over\nmemory checks": "pymatching-memory-css",
    "over\ncorrelated": "pymatching-correlated-css",
}


def print_tables(timings: Sequence[Timing], workers: int) -> None:
    """Two tables per point: steps, and the total over those of matching alone."""
    for title, group in itertools.groupby(timings, key=_point):
        members = list(group)
        print_table(
            _STEPS, members, f"{title}; {workers} processes, {len(available_cores())} cores\n"
        )
        totals = {t.decoder: t.total for t in members}
        ratios = [
            Column(head, functools.partial(lambda whole, t: f"{t.total / whole:.2f}", totals[name]))
            for head, name in _BASELINES.items()
            if name in totals
        ]
        print_table((_DECODER, *ratios, *_MACHINE), members)


def _point(t: Timing) -> str:
    return " ".join(f"{key}={value}" for key, value in t.metadata.items() if key != "o")


def _decoder(t: Timing) -> str:
    return " ".join([t.decoder, *t.network.values()])


def _step(step: str) -> Column[Timing]:
    return Column(step, lambda t: three_digits(t.steps[step]) if t.steps[step] else "")


_DECODER = Column[Timing]("decoder", _decoder, name=True)
_TOTAL = Column[Timing]("us per round\ntotal", lambda t: three_digits(t.total))
_STEPS = (
    *(_DECODER, *map(_step, STEPS), _TOTAL),
    Column("handed\non", lambda t: f"{t.handed_on:.1%}" if has_predecoder(t.decoder) else ""),
)
_MACHINE: tuple[Column[Timing], ...] = (
    Column[Timing](
        "network: of\nits limit", lambda t: f"{t.limit / t.steps['network']:.0%}" if t.dtype else ""
    ),
    Column("GMAC/s\nat most", lambda t: f"{t.rates[0] / 1e9:.0f}" if t.dtype else ""),
    Column("number\nformat", lambda t: t.dtype),
)
