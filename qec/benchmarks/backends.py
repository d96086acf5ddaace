"""Time of the pre-decoder on each backend: ``qec benchmark-backends``.

Commits and residual are included.  The backends take turns on the same shots, so that a busy
machine slows all of them.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch
from omegaconf import DictConfig

from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.predecoder.checkpoint import load_predecoder
from qec.support.errors import QecError
from qec.support.settings import distinct_values, plain_values, positive_integer
from qec.support.tables import Column, print_table

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclasses.dataclass(frozen=True)
class BackendTime:
    """A backend at a distance.

    Attributes:
        time_ratio: median over batches of its time over that of the first backend.
        changed_shots: shots whose output differs from the first backend's.
    """

    distance: int
    backend: str
    time_ratio: float
    changed_shots: int


def benchmark(config: DictConfig, _: Sequence[str] = ()) -> list[BackendTime]:
    """Runs as configured by conf/benchmark-backends.yaml; prints a table.

    Raises:
        QecError: a value that makes no sense, a backend that is not there.
    """
    values = plain_values(config)
    if values["dtype"] not in _DTYPES:
        raise QecError(f"dtype={values['dtype']!r} is not supported: use {', '.join(_DTYPES)}.")
    for key in ("batch", "batches", "threads"):
        positive_integer(key, values[key])
    rows = [
        row
        for distance in distinct_values("distance", values["distance"])
        for row in _at_distance(distance, values)
    ]
    print_table(columns(rows[0].backend), rows)
    return rows


def columns(first: str) -> tuple[Column[BackendTime], ...]:
    """Of the table; ``first`` is the backend that the others are compared with."""
    return (
        Column("d = R", lambda row: str(row.distance)),
        Column("backend", lambda row: row.backend, name=True),
        Column(f"time over\n{first}", lambda row: f"{row.time_ratio:.2f}"),
        Column("shots with\nanother output", lambda row: str(row.changed_shots)),
    )


def _at_distance(distance: int, values: dict) -> list[BackendTime]:
    noise = CircuitNoise.uniform(values["p"])
    circuit = memory_circuit(RotatedSurfaceCode(distance), noise, distance, values["basis"])
    lattice = SpaceTimeLattice.from_circuit(circuit)
    predecoder = load_predecoder(values["predecoder"])
    dtype = _DTYPES[values["dtype"]]
    bound = {
        name: predecoder.compile_for(lattice, dtype=dtype, backend=name, threads=values["threads"])
        for name in distinct_values("backends", values["backends"])
    }
    seconds: dict[str, list[float]] = {name: [] for name in bound}
    changed = dict.fromkeys(bound, 0)
    sampler = circuit.compile_detector_sampler()
    for batch in range(values["batches"] + 1):
        shots = sampler.sample(values["batch"]).view(np.uint8)
        first = None
        for name, runner in bound.items():
            start = time.perf_counter()
            residual, flips = runner.apply(shots)
            if batch:  # the first one sets things up
                seconds[name].append(time.perf_counter() - start)
            output = np.column_stack([flips, residual])
            first = output if first is None else first
            changed[name] += int((output != first).any(axis=1).sum())
    baseline = next(iter(seconds.values()))
    return [
        BackendTime(
            distance,
            name,
            statistics.median(t / b for t, b in zip(found, baseline, strict=True)),
            changed[name],
        )
        for name, found in seconds.items()
    ]
