"""`qec sweep`: logical error rates of several decoders over a grid, paired on the same shots."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import sinter
import stim
from omegaconf import DictConfig

from qec.circuits.error_model import at_most_half
from qec.circuits.experiment_grid import Grid, Point
from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.stim_files import load_circuit, load_dem
from qec.decoding.decoder_names import (
    check_decoder_name,
    has_predecoder,
    needs_lattice,
    needs_network,
)
from qec.evaluation.collect import collect, print_run
from qec.evaluation.collected_rows import added, check_metadata, read_collected
from qec.evaluation.frontier import plot_frontier
from qec.evaluation.job_array import (
    check_seeds,
    new_row_file,
    read_seeds,
    row_files,
    seed_file,
    share,
)
from qec.evaluation.paired_sampler import PairedSampler
from qec.evaluation.plots import plot_ler
from qec.evaluation.scaling import print_scalings, scalings
from qec.evaluation.sweep_table import SweepRow, point_title, print_tables, rows_of, write_stats
from qec.support.errors import QecError
from qec.support.figures import machine
from qec.support.files import make_folder, print_files
from qec.support.folder_lock import sole_writer
from qec.support.process_pool import worker_count
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path


def sweep(config: DictConfig, command: Sequence[str] = ("qec", "sweep")) -> list[SweepRow]:
    """Runs a sweep as configured by conf/sweep.yaml; writes its files and prints its table.

    As a task of a job array it does its share of the grid points and writes no tables to files.

    Raises:
        QecError: a value that makes no sense, an unreadable circuit, an unwritable folder, files of
            array tasks that cannot be added up.
    """
    started = time.monotonic()
    settings = SweepSettings.from_config(config)
    points = list(tasks(settings))
    with _writer(settings):
        return _sweep(settings, points, started, command)


def _writer(settings: SweepSettings) -> contextlib.AbstractContextManager:
    """The folder for this process alone; the tasks of an array have files of their own in it."""
    if settings.array_task is None:
        return sole_writer(settings.out)
    make_folder(settings.out)
    return contextlib.nullcontext()


def _sweep(
    settings: SweepSettings, points: list[sinter.Task], started: float, command: Sequence[str]
) -> list[SweepRow]:
    alone = settings.array_task is None or settings.array_tasks is None
    if settings.array_task is not None and settings.array_tasks is not None:
        points = share(points, settings.array_task, settings.array_tasks)
    shots = _Shots.read(settings)
    check_metadata(shots.known, points)
    found = shots.known if settings.merge else shots.collect(points, settings)

    ids = [task.strong_id() for task in points]
    rows = [row for key in ids if key in found for row in rows_of(found[key])]
    if settings.merge and not rows:
        raise QecError(f"nothing has been collected in {settings.out}: run the array tasks first.")
    print_tables(rows, settings.columns)
    tables: list[Path] = []
    if alone and (others := len(found.keys() - set(ids))):
        print(
            f"qec: warning: {settings.out} also holds {others} other grid points; table and plot "
            "show those asked for now. collected.csv keeps all: ask for them together to see them.",
            file=sys.stderr,
        )
    if alone:
        write_stats(rows, settings.out / "stats.csv")
        by_distance = scalings(rows)
        print_scalings(by_distance)
        plots = plot_ler(rows, by_distance, settings.out)
        plots += plot_frontier(rows, settings.out, machine(settings.num_workers))
        tables = [settings.out / "stats.csv", *plots]
    if settings.merge:
        missing = sum(not _is_complete(point, found) for point in points)
        print(f"grid points: {len(points)}, {missing} of them incomplete")
        print_files(tables)
        return rows
    print_run(
        points,
        shots.known,
        found,
        started=started,
        workers=settings.num_workers,
        files=[*filter(Path.exists, (shots.target, seed_file(shots.target))), *tables],
        command=command if alone else None,
    )
    return rows


@dataclasses.dataclass(frozen=True)
class _Shots:
    """What a sweep's folder holds, and what is written.

    Attributes:
        target: the CSV file that this run appends to.
        known: what there is in all files, by strong id.
    """

    target: Path
    known: Mapping[str, sinter.TaskStats]

    @classmethod
    def read(cls, settings: SweepSettings) -> _Shots:
        collected, array = settings.out / "collected.csv", settings.out / "array"
        alone = settings.array_task is None
        by_file = {path: read_collected(path, repair=False) for path in row_files(array)}
        single = read_collected(collected, repair=alone)
        known = added(single.values(), *(stats.values() for stats in by_file.values()))
        if alone:
            read_seeds(seed_file(collected), repair=True)
            if by_file:
                check_seeds({collected: single, **by_file})
            return cls(collected, known)
        make_folder(array)
        assert settings.array_task is not None
        return cls(new_row_file(array, settings.array_task), known)

    def collect(
        self, points: Sequence[sinter.Task], settings: SweepSettings
    ) -> dict[str, sinter.TaskStats]:
        return collect(
            points,
            settings.sampler(),
            self.target,
            self.known,
            num_workers=settings.num_workers,
            seeds=seed_file(self.target),
        )


def _is_complete(point: sinter.Task, found: Mapping[str, sinter.TaskStats]) -> bool:
    stat, wanted = found.get(point.strong_id()), point.collection_options
    if stat is None:
        return False
    enough_errors = wanted.max_errors is not None and stat.errors >= wanted.max_errors
    return enough_errors or stat.shots >= wanted.max_shots


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepSettings:
    """The values of conf/sweep.yaml, validated; ``circuit`` files take the place of the grid."""

    grid: Grid
    circuit: tuple[str, ...]
    weights: str | None
    decoders: tuple[str, ...]
    predecoder: tuple[str, ...]
    device: str
    max_shots: int
    max_errors: int | None
    batch: int
    num_workers: int
    out: Path
    array_task: int | None
    array_tasks: int | None
    merge: bool
    columns: str

    @classmethod
    def from_config(cls, config: DictConfig) -> SweepSettings:
        """Checks the values.

        Raises:
            QecError: a value of the wrong type or out of range.
        """
        values = plain_values(config)
        grid = Grid.from_values(values)
        circuit = () if values["circuit"] == [] else distinct_values("circuit", values["circuit"])
        decoders = distinct_values("decoders", values["decoders"])
        for name in decoders:
            check_decoder_name(name)
        if (max_errors := values["max_errors"]) is not None:
            positive_integer("max_errors", max_errors)
        task, array_tasks, merge = (values[k] for k in ("array_task", "array_tasks", "merge"))
        if not isinstance(merge, bool):
            raise QecError("merge must be true or false.")
        if (task is None) != (array_tasks is None) or (merge and task is not None):
            raise QecError(
                "give array_task= and array_tasks= together for a task of an array, or merge=true "
                "for its results."
            )
        if task is not None:
            positive_integer("array_tasks", array_tasks)
            if positive_integer("array_task", task, least=0) >= array_tasks:
                raise QecError(f"array_task={task} of array_tasks={array_tasks}: count from 0.")
        return cls(
            grid=grid,
            circuit=tuple(str(path) for path in circuit if path is not None),
            weights=None if values["weights"] is None else str(values["weights"]),
            decoders=decoders,
            predecoder=tuple(map(str, distinct_values("predecoder", values["predecoder"]))),
            device=str(values["device"]),
            out=required_path(config, "out"),
            max_errors=max_errors,
            num_workers=worker_count(values["num_workers"]),
            array_task=task,
            array_tasks=array_tasks,
            merge=merge,
            columns=str(values["columns"]),
            **{key: positive_integer(key, values[key]) for key in ("max_shots", "batch")},
        )

    def sampler(self) -> PairedSampler:
        """The sampler of all decoders."""
        return PairedSampler(self.decoders, self.predecoder, self.batch, device=self.device)


def tasks(settings: SweepSettings) -> Iterator[sinter.Task]:
    """One sinter task per grid point or circuit file; QecError where one cannot be made."""
    points = _circuit_files(settings) if settings.circuit else settings.grid.points()
    if settings.weights is not None:
        points = _with_weights(points, settings.weights)
    if any(map(has_predecoder, settings.decoders)):
        points = _with_fits(points, settings)
    return settings.sampler().tasks(
        points, max_shots=settings.max_shots, max_errors=settings.max_errors
    )


def _with_weights(points: Iterable[Point], path: str) -> Iterator[Point]:
    """The points, to be decoded with the model in a file: a learned one, say."""
    model = load_dem(path)
    label = f"{Path(path).name}@{hashlib.sha256(str(model).encode()).hexdigest()[:8]}"
    where = model.get_detector_coordinates()
    for circuit, own, metadata in points:
        if own.get_detector_coordinates() != where:
            raise QecError(
                f"weights={path} is the model of another experiment: it has "
                f"{model.num_detectors} detectors, the circuit {own.num_detectors}, and they must "
                "have the same coordinates."
            )
        yield circuit, model, {**metadata, "weights": label}


def _circuit_files(settings: SweepSettings) -> Iterator[Point]:
    for path in settings.circuit:
        circuit = load_circuit(path)
        dem = detector_error_model(circuit)
        try:
            lattice = SpaceTimeLattice.from_dem(at_most_half(dem).dem)
            size = {"d": lattice.distance, "r": lattice.rounds}
        except QecError as error:
            if any(map(needs_lattice, settings.decoders)):
                raise QecError(f"{path}: {error}") from error
            size = _size_of_any(circuit)
        yield circuit, dem, {**size, "circuit": path}


def _size_of_any(circuit: stim.Circuit) -> dict[str, int]:
    """Distance and rounds of an experiment that is no rotated surface code, as far as it tells.

    The distance is the number of the fewest errors that flip the observable unseen, each of which
    flips two detectors at most; rounds are those that detector times tell apart.
    """
    times = {where[-1] for where in circuit.get_detector_coordinates().values() if where}
    try:
        distance = len(circuit.shortest_graphlike_error())
    except ValueError:  # there is none
        distance = 0
    return {"d": distance, "r": max(len(times) - 1, 1)}


def _with_fits(points: Iterable[Point], settings: SweepSettings) -> Iterator[Point]:
    """The points; says once, not by every worker, which ones a network does not fit."""
    from qec.predecoder.checkpoint import load_predecoder  # torch only where needed
    from qec.predecoder.model_fit import bind_where_it_fits

    loaded = [load_predecoder(path) for path in settings.predecoder]
    needed = any(needs_network(name) for name in settings.decoders)
    for circuit, dem, metadata in points:
        lattice = SpaceTimeLattice.from_dem(at_most_half(dem).dem)
        with warnings.catch_warnings(record=True, action="always") as found:
            try:
                for predecoder in loaded:
                    bind_where_it_fits(predecoder, lattice, settings.device, needed=needed)
            except QecError as error:
                raise QecError(f"{point_title(metadata)}: {error}") from error
        for warning in found:
            print(f"qec: warning: {point_title(metadata)}: {warning.message}", file=sys.stderr)
        yield circuit, dem, metadata
