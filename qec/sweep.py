"""`qec sweep`: logical error rates of several decoders over a grid, paired on the same shots."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sinter
from omegaconf import DictConfig, OmegaConf

from qec.config import distinct_values, positive_integer, required_path
from qec.dataset import load_circuit, load_dem
from qec.decoder import DECODER_NAMES
from qec.errors import QecError
from qec.files import make_folder
from qec.lattice import SpaceTimeLattice, detector_error_model
from qec.paired import (
    PairedSampler,
    collect,
    print_run,
    read_collected,
    worker_count,
)
from qec.plots import plot_ler
from qec.points import Grid, Point
from qec.results import Row, print_tables, rows_of, write_stats


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
    known = read_collected(collected)

    found = collect(points, settings.sampler(), collected, known, num_workers=settings.num_workers)
    ids = [task.strong_id() for task in points]
    rows = [row for key in ids if key in found for row in rows_of(found[key])]
    write_stats(rows, settings.out / "stats.csv")
    plots = plot_ler(rows, settings.out)
    print_tables(rows)
    print_run(
        points,
        known,
        found,
        started=started,
        workers=settings.num_workers,
        files=f"{collected} stats.csv {' '.join(path.name for path in plots)}",
        command=command,
    )
    return rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The values of conf/sweep.yaml, validated; ``circuit`` files take the place of the grid."""

    grid: Grid
    circuit: tuple[str, ...]
    weights: str | None
    decoders: tuple[str, ...]
    predecoder: str
    max_shots: int
    max_errors: int | None
    batch: int
    num_workers: int
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> Settings:
        """Checks the values.

        Raises:
            QecError: a value of the wrong type or out of range.
        """
        values = OmegaConf.to_container(config)
        grid = Grid.from_values(values)
        circuit = () if values["circuit"] == [] else distinct_values("circuit", values["circuit"])
        decoders = distinct_values("decoders", values["decoders"])
        for name in decoders:
            if name not in DECODER_NAMES:
                raise QecError(f"decoder {name!r} is unknown: use {', '.join(DECODER_NAMES)}.")
        if (max_errors := values["max_errors"]) is not None:
            positive_integer("max_errors", max_errors)
        return cls(
            grid=grid,
            circuit=tuple(str(path) for path in circuit if path is not None),
            weights=None if values["weights"] is None else str(values["weights"]),
            decoders=decoders,
            predecoder=str(values["predecoder"]),
            out=required_path(config, "out"),
            max_errors=max_errors,
            num_workers=worker_count(values["num_workers"]),
            **{key: positive_integer(key, values[key]) for key in ("max_shots", "batch")},
        )

    def sampler(self) -> PairedSampler:
        return PairedSampler(self.decoders, self.predecoder, self.batch)


def tasks(settings: Settings) -> Iterator[sinter.Task]:
    """One sinter task per grid point or circuit file; QecError where one cannot be made."""
    points = _circuit_files(settings) if settings.circuit else settings.grid.points()
    if settings.weights is not None:
        points = _with_weights(points, settings.weights)
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


def _circuit_files(settings: Settings) -> Iterator[Point]:
    for path in settings.circuit:
        circuit = load_circuit(path)
        dem = detector_error_model(circuit)
        try:
            lattice = SpaceTimeLattice.from_dem(dem)
        except QecError as error:
            raise QecError(f"{path}: {error}") from error
        yield circuit, dem, {"d": lattice.distance, "r": lattice.rounds, "circuit": path}
