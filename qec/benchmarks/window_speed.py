"""Time of decoding in windows: ``qec benchmark-window-speed``.

Recorded shots in one batch, on one core: windows, the same decoder over the whole history, and, of
matching, the windows of stabilizer-qec where that is installed.  All in turn, several times; the
least time counts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import stim
from omegaconf import DictConfig

from qec.benchmarks.window_errors import MATCHING, checked_decoders, named_window_decoder
from qec.circuits.experiment_grid import Grid
from qec.circuits.lattice import SpaceTimeLattice
from qec.decoding.decoder import named_decoder
from qec.matching.matcher import basis_split
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.settings import plain_values, positive_integer, required_path
from qec.support.tables import Column, print_table, three_digits

_TURNS = 5
Decode = Callable[[np.ndarray], Any]


@dataclasses.dataclass(frozen=True)
class WindowSpeed:
    """A decoder at a point.

    Attributes:
        us_per_round: microseconds: ``whole`` history, ``windows``, and windows of ``peer``.
        errors: logical errors of the same ones.
    """

    metadata: dict
    decoder: str
    commit: int
    buffer: int
    shots: int
    us_per_round: dict[str, float]
    errors: dict[str, int]


@writes_out_alone
def benchmark(config: DictConfig, _: Sequence[str] = ()) -> list[WindowSpeed]:
    """Runs as configured by conf/benchmark-windows.yaml, of whose shots a ``batch`` is decoded.

    Raises:
        QecError: a value that makes no sense, a checkpoint that cannot be loaded.
    """
    values = plain_values(config)
    decoders = checked_decoders(values)
    shots = positive_integer("batch", values["batch"])
    path, found = required_path(config, "out") / "window_speed.json", []
    for circuit, dem, metadata in Grid.from_values(values).points():
        sampler = circuit.compile_detector_sampler(seed=values["seed"])
        events, flips = sampler.sample(shots, separate_observables=True)
        commit, buffer = (values[key] or metadata["d"] for key in ("commit", "buffer"))
        windows = {"commit": commit, "buffer": buffer, "parallel": values["parallel"]}
        for name in decoders:
            of_model = name, dem, values["predecoder"]
            ways: dict[str, Decode] = {
                "whole": named_decoder(*of_model).decode_batch,
                "windows": named_window_decoder(*of_model, **windows).decode_batch,
            }
            if name in MATCHING and importlib.util.find_spec("stabilizer_qec"):
                mode = "parallel" if values["parallel"] else "sliding"
                correlated = name == MATCHING[1]
                ways["peer"] = _stabilizer_windows(dem, commit, buffer, mode, correlated)
            spent, errors = _timed(ways, events.view(np.uint8), flips)
            us = {way: 1e6 * s / shots / metadata["r"] for way, s in spent.items()}
            found.append(WindowSpeed(metadata, name, commit, buffer, shots, us, errors))
            with atomic_path(path) as temporary:
                rows = [dataclasses.asdict(row) for row in found]
                temporary.write_text(json.dumps(rows, indent=1) + "\n")
    print_speeds(found)
    print_files([path])
    return found


def _stabilizer_windows(
    dem: stim.DetectorErrorModel, commit: int, buffer: int, mode: str, correlated: bool
) -> Decode:
    """stabilizer-qec's windows on the basis-split model, which keeps the time of detectors."""
    import stabilizer_qec

    lattice = SpaceTimeLattice.from_dem(dem)
    times = [f"detector({t}) D{k}" for k, t in enumerate(lattice.layer.tolist())]
    decoder = stabilizer_qec.WindowMatching(
        "\n".join([str(basis_split(lattice)), *times]),
        commit=commit,
        buffer=buffer,
        mode=mode,
        enable_correlations=correlated,
    )
    return lambda events: decoder.decode_batch(events.view(np.bool_), threads=1)


def _timed(
    ways: dict[str, Decode], events: np.ndarray, flips: np.ndarray
) -> tuple[dict[str, float], dict[str, int]]:
    """Seconds and logical errors of each."""
    errors = {
        way: int(np.count_nonzero(decode(events)[:, 0] != flips[:, 0]))
        for way, decode in ways.items()
    }
    spent = dict.fromkeys(ways, float("inf"))
    for _ in range(_TURNS):
        for way, decode in ways.items():
            start = time.perf_counter()
            decode(events)
            spent[way] = min(spent[way], time.perf_counter() - start)
    return spent, errors


def _us(way: str) -> Callable[[WindowSpeed], str]:
    return lambda row: three_digits(row.us_per_round[way]) if way in row.us_per_round else ""


_COLUMNS: tuple[Column[WindowSpeed], ...] = (
    Column[WindowSpeed]("d", lambda row: str(row.metadata["d"])),
    Column("p", lambda row: str(row.metadata.get("p", ""))),
    Column("decoder", lambda row: row.decoder, name=True),
    Column("commit +\nbuffer", lambda row: f"{row.commit}+{row.buffer}"),
    Column("whole\nhistory", _us("whole")),
    Column("windows", _us("windows")),
    Column(
        "windows over\nhistory",
        lambda row: f"{row.us_per_round['windows'] / row.us_per_round['whole']:.2f}",
    ),
    Column("stabilizer-qec's\nwindows", _us("peer")),
)


def print_speeds(found: Sequence[WindowSpeed]) -> None:
    """A row per decoder and point."""
    print_table(_COLUMNS, found)
    print("us per round on one core; the least of five times of a batch of recorded shots")
