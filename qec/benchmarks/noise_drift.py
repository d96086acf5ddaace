"""Logical errors with tracked weights while the noise drifts.

``qec benchmark-drift [key=value ...]``, keys in conf/benchmark-drift.yaml.
Some of the circuit's rates oscillate by a factor up and down.  Every ``look`` shots the tracker
gets shots with the noise of the moment; at some looks fresh shots, with the same noise, are decoded
with the tracked weights, with weights that were learned once at the start, and with the true ones.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stim
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.matching.matcher import Matcher, matching_model
from qec.noise_learning.command import write_drift
from qec.noise_learning.drift import DriftTracker, DriftUpdate
from qec.noise_learning.error_structure import ErrorStructure
from qec.support.errors import QecError
from qec.support.files import print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.settings import distinct_values, plain_values, required_path
from qec.support.statistics import paired_ratio
from qec.support.tables import Column, print_table, ratio_text


@dataclasses.dataclass(frozen=True)
class NoiseDriftSettings:
    """conf/benchmark-drift.yaml."""

    distance: int
    basis: str
    p: float
    rates: tuple[str, ...]
    factor: float
    period: int
    shots: int
    look: int
    half_life: float
    every: int
    decoded: int
    seed: int
    out: Path


def run(settings: NoiseDriftSettings) -> tuple[dict[tuple[str, bool], np.ndarray], list[Path]]:
    """Errors, true errors and both, int64 (3,), by weights and kind of matching; files written."""
    start = _circuit(settings, 0)
    structure = ErrorStructure.of(start)
    tracker = DriftTracker(structure, settings.half_life)
    static = None
    looks: list[DriftUpdate] = []
    counts: dict[tuple[str, bool], np.ndarray] = {}
    steps = range(settings.shots // settings.look)
    for k in track(steps, "looks", console=Console(stderr=True), transient=True):
        circuit = _circuit(settings, (k + 0.5) * settings.look)
        sampler = circuit.compile_detector_sampler(seed=settings.seed + k)
        looks.append(tracker.push(sampler.sample(settings.look, bit_packed=True)))
        if static is None:
            static = looks[0].estimate.dem
        if (k + 1) % settings.every == 0:
            now = _circuit(settings, (k + 1) * settings.look)
            models = {"tracked": looks[-1].estimate.dem, "static": static}
            true = structure.to_dem(ErrorStructure.of(now).x)
            for key, found in _decode(now, true, models, settings, k).items():
                counts[key] = counts.get(key, 0) + found
    d = settings.distance
    title = (
        f"d = {d}, R = {d}, basis {settings.basis}, p = {settings.p:g}; "
        f"{', '.join(settings.rates)}: a factor of {settings.factor:g} up and down in "
        f"{settings.period} shots; half-life {settings.half_life:g} shots"
    )
    return counts, write_drift(looks, settings.out, title)


def _circuit(settings: NoiseDriftSettings, shot: float) -> stim.Circuit:
    """The experiment with the noise at a shot."""
    noise = CircuitNoise.uniform(settings.p)
    scale = settings.factor ** math.sin(2 * math.pi * shot / settings.period)
    scaled: dict[str, Any] = {}
    for name in settings.rates:
        rate = getattr(noise, name)
        scaled[name] = tuple(r * scale for r in rate) if isinstance(rate, tuple) else rate * scale
    noise = dataclasses.replace(noise, **scaled)
    code = RotatedSurfaceCode(settings.distance)
    return memory_circuit(code, noise, settings.distance, settings.basis)


def _decode(
    circuit: stim.Circuit,
    true: stim.DetectorErrorModel,
    models: dict[str, stim.DetectorErrorModel],
    settings: NoiseDriftSettings,
    look: int,
) -> dict[tuple[str, bool], np.ndarray]:
    sampler = circuit.compile_detector_sampler(seed=settings.seed + 10**6 + look)
    events, flips = sampler.sample(settings.decoded, separate_observables=True)
    split = {
        name: matching_model(model, None, "css") for name, model in {**models, "true": true}.items()
    }
    found = {}
    for correlated in (False, True):
        wrong = {
            name: Matcher(model, correlated).decode_batch(events.view(np.uint8)) != flips[:, 0]
            for name, model in split.items()
        }
        for name in models:
            pair = (wrong[name], wrong["true"], wrong[name] & wrong["true"])
            found[name, correlated] = np.array([np.count_nonzero(w) for w in pair])
    return found


def _ratio(row: tuple) -> str:
    return ratio_text(paired_ratio(*row[1].tolist()), 3)


_COLUMNS = (
    Column[tuple]("matching", lambda row: "correlated" if row[0][1] else "uncorrelated", name=True),
    Column[tuple]("weights", lambda row: row[0][0], name=True),
    Column[tuple]("errors", lambda row: str(row[1][0])),
    Column[tuple]("with the\ntrue model", lambda row: str(row[1][1])),
    Column[tuple]("ratio (95 %)", _ratio),
)


def print_counts(counts: dict[tuple[str, bool], np.ndarray]) -> None:
    """Errors with each weights over those with the true model of the moment.

    Args:
        counts: by weights and whether matching is correlated: int64 (3,), errors, those with the
            true model, and those with both.
    """
    print_table(_COLUMNS, sorted(counts.items()), "Logical errors while the noise drifts\n")


@writes_out_alone
def benchmark(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Runs the benchmark as configured by conf/benchmark-drift.yaml, and prints its table.

    Raises:
        QecError: an unknown rate, an unwritable folder.
    """
    rates = distinct_values("rates", plain_values(config)["rates"])
    known = [field.name for field in dataclasses.fields(CircuitNoise)]
    if unknown := set(rates) - set(known):
        raise QecError(f"rates={unknown.pop()!r} is unknown: use {', '.join(known)}.")
    values = {**plain_values(config), "rates": rates, "out": required_path(config, "out")}
    settings = NoiseDriftSettings(**values)
    counts, files = run(settings)
    print_counts(counts)
    print_files(files)
