"""What learned weights cost in logical errors, next to the weights of the true model.

``qec benchmark-weights [key=value ...]``, keys in conf/benchmark-weights.yaml.
Every draw of noise is learned by every method from the same shots; then matching with the true
model, with the uniform guess that the methods start from, and with each learned model decode the
same fresh shots.  One row per draw, method and kind of matching goes to draws.csv as soon as the
draw is done; a benchmark that was interrupted does what is missing.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import itertools
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from qec.noise_learning.error_structure import ErrorStructure
from qec.noise_learning.learn import METHODS, NoiseLearner
from qec.noise_learning.random_noise import KINDS, draw_channels, vary
from qec.support.errors import QecError, first_line
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.process_pool import results, worker_count
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path
from qec.support.statistics import Estimate, paired_ratio
from qec.support.tables import Column, print_table, ratio_text

GUESS = "uniform guess"
_BATCH = 20000


@dataclasses.dataclass(frozen=True)
class Job:
    """One draw of noise."""

    kind: str
    distance: int
    draw: int


@dataclasses.dataclass(frozen=True)
class WeightsRecord:
    """One method on one draw, one kind of matching.

    Attributes:
        kind, distance, draw: the draw; "channels", "location" or "site".
        method, learned_from: how the model was learned, and from how many shots.
        seconds: that took, moments included.
        correlated: the kind of matching.
        shots, errors, true_errors, both: of the evaluation: shots that matching with the learned
            model, with the true one, with both decodes wrongly.
    """

    kind: str
    distance: int
    draw: int
    method: str
    learned_from: int
    seconds: float
    correlated: bool
    shots: int
    errors: int
    true_errors: int
    both: int


@dataclasses.dataclass(frozen=True)
class LearnedWeightsSettings:
    """conf/benchmark-weights.yaml, checked."""

    distance: tuple[int, ...]
    kind: tuple[str, ...]
    shots: tuple[int, ...]
    methods: tuple[str, ...]
    p: tuple[float, float]
    basis: str
    spread: float
    draws: int
    min_cost: float
    target_errors: int
    max_shots: int
    seed: int
    num_workers: int
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> LearnedWeightsSettings:
        """Raises QecError where a value makes no sense."""
        values = plain_values(config)
        for key in ("distance", "kind", "shots", "methods"):
            values[key] = distinct_values(key, values[key])
        for key, known in (("kind", KINDS), ("methods", METHODS)):
            if unknown := set(values[key]) - set(known):
                raise QecError(f"{key}={unknown.pop()!r} is unknown: use {', '.join(known)}.")
        for key in ("draws", "target_errors", "max_shots"):
            positive_integer(key, values[key])
        if not isinstance(values["p"], list) or len(values["p"]) != 2:
            raise QecError(f"p={values['p']} must be two numbers, the ends of a range.")
        values["p"] = tuple(values["p"])
        values["num_workers"] = worker_count(values["num_workers"])
        values["out"] = required_path(config, "out")
        return cls(**values)

    def jobs(self) -> Iterator[Job]:
        """Every combination of kind, distance and draw."""
        for kind in self.kind:
            for distance in self.distance:
                for draw in range(self.draws):
                    yield Job(kind, distance, draw)


# One draw ----------------------------------------------------------------------------------------


def run(settings: LearnedWeightsSettings, job: Job) -> list[WeightsRecord]:
    """Learns and evaluates one draw; seeds depend on the job alone."""
    guess = ErrorStructure.of(_guess(settings, job))
    circuit, true = _draw(settings, job, guess)
    models: dict[tuple[str, int], stim.DetectorErrorModel] = {(GUESS, 0): guess.model}
    seconds = {(GUESS, 0): 0.0}
    sampler = circuit.compile_detector_sampler(seed=_seed(settings, job, 1))
    events = sampler.sample(max(settings.shots), bit_packed=True)
    for shots in settings.shots:
        for method in settings.methods:
            start = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                estimate = NoiseLearner(guess).update(events[:shots]).estimate(method)
            models[method, shots] = estimate.dem
            seconds[method, shots] = time.perf_counter() - start
    evaluation = _evaluate(circuit, true, models, settings, _seed(settings, job, 2))
    return [
        WeightsRecord(
            job.kind,
            job.distance,
            job.draw,
            method,
            shots,
            round(seconds[method, shots], 3),
            correlated,
            *evaluation[method, shots, correlated],
        )
        for method, shots in models
        for correlated in (False, True)
    ]


def _guess(settings: LearnedWeightsSettings, job: Job) -> stim.Circuit:
    p = float(np.sqrt(settings.p[0] * settings.p[1]))
    code = RotatedSurfaceCode(job.distance)
    return memory_circuit(code, CircuitNoise.uniform(p), job.distance, settings.basis)


def _draw(
    settings: LearnedWeightsSettings, job: Job, guess: ErrorStructure
) -> tuple[stim.Circuit, stim.DetectorErrorModel]:
    """The first draw for which the guess costs enough with either kind of matching.

    Draws without that have no power: any weights would do.
    """
    rng = np.random.default_rng(_seed(settings, job, 0))
    few = dataclasses.replace(
        settings, target_errors=400, max_shots=min(settings.max_shots, 60_000)
    )
    while True:
        noise = draw_channels(float(np.exp(rng.uniform(*np.log(settings.p)))), rng)
        code = RotatedSurfaceCode(job.distance)
        circuit = memory_circuit(code, noise, job.distance, settings.basis)
        if job.kind != "channels":
            circuit = vary(circuit, settings.spread, rng, by=job.kind)
        true = guess.to_dem(ErrorStructure.of(circuit).x)
        counts = _evaluate(circuit, true, {(GUESS, 0): guess.model}, few, int(rng.integers(2**62)))
        if all(
            counts[GUESS, 0, correlated][1] > settings.min_cost * counts[GUESS, 0, correlated][2]
            for correlated in (False, True)
        ):
            return circuit, true


def _evaluate(
    circuit: stim.Circuit,
    true: stim.DetectorErrorModel,
    models: dict[tuple[str, int], stim.DetectorErrorModel],
    settings: LearnedWeightsSettings,
    seed: int,
) -> dict[tuple[str, int, bool], tuple[int, int, int, int]]:
    """(shots, errors, true errors, both) by method, learned shots and kind of matching."""
    split = {key: matching_model(m, None, "css") for key, m in [*models.items(), (None, true)]}
    matchers = {
        (key, correlated): Matcher(model, correlated)
        for key, model in split.items()
        for correlated in (False, True)
    }
    sampler = circuit.compile_detector_sampler(seed=seed)
    totals: dict[tuple, np.ndarray] = {
        (key, correlated): np.zeros(3, dtype=np.int64)
        for key in models
        for correlated in (False, True)
    }
    shots = 0
    while shots < settings.max_shots:
        events, flips = sampler.sample(_BATCH, separate_observables=True)
        events, flips = events.view(np.uint8), flips[:, 0]
        wrong = {key: m.decode_batch(events) != flips for key, m in matchers.items()}
        for key, correlated in totals:
            mine, truth = wrong[key, correlated], wrong[None, correlated]
            totals[key, correlated] += [mine.sum(), truth.sum(), (mine & truth).sum()]
        shots += _BATCH
        if min(total[1] for total in totals.values()) >= settings.target_errors:
            break
    return {(*key, correlated): (shots, *t.tolist()) for (key, correlated), t in totals.items()}


def _seed(settings: LearnedWeightsSettings, job: Job, what: int) -> int:
    key = (settings.seed, KINDS.index(job.kind), job.distance, job.draw, what)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 2)


# All of them -------------------------------------------------------------------------------------


@writes_out_alone
def benchmark(config: DictConfig, _: Sequence[str] = ()) -> list[WeightsRecord]:
    """Runs the draws that draws.csv lacks, and prints the table of all.

    Raises:
        QecError: a value of conf/benchmark-weights.yaml that makes no sense, an unwritable folder.
    """
    settings = LearnedWeightsSettings.from_config(config)
    path = settings.out / "draws.csv"
    records = read_records(path)
    learned = itertools.product(settings.methods, settings.shots)
    wanted = set(itertools.product([(GUESS, 0), *learned], (False, True)))
    have: dict[Job, set] = {}
    for r in records:
        found = ((r.method, r.learned_from), r.correlated)
        have.setdefault(Job(r.kind, r.distance, r.draw), set()).add(found)
    missing = [job for job in settings.jobs() if not wanted <= have.get(job, set())]
    again = set(missing)  # rows of a draw that was not finished
    records = [r for r in records if Job(r.kind, r.distance, r.draw) not in again]
    work = results(functools.partial(run, settings), missing, settings.num_workers)
    console = Console(stderr=True)
    for _job, added in track(work, "draws", len(missing), console=console, transient=True):
        records += added
        _write(path, records)
    jobs = set(settings.jobs())
    records = [r for r in records if Job(r.kind, r.distance, r.draw) in jobs]
    print_tables(records)
    print_files([path])
    return records


_FIELDS = dataclasses.fields(WeightsRecord)
_TYPES: dict[Any, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": {"True": True, "False": False}.__getitem__,
}


def read_records(path: Path) -> list[WeightsRecord]:
    """Rows of an earlier run.

    Raises:
        QecError: the file is of another kind, or has a row that cannot be right.
    """
    if not path.exists():
        return []
    try:
        header, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
        if header != [f.name for f in _FIELDS]:
            raise ValueError("it has other columns")
        return _paired([_record(row) for row in rows])
    except (ValueError, KeyError, OSError, csv.Error) as error:
        raise QecError(
            f"{path} is no file of this benchmark, or damaged ({first_line(error)}): delete it, or "
            "choose another out=."
        ) from error


def _record(row: list[str]) -> WeightsRecord:
    """The record of a row; ValueError or KeyError where it cannot be one."""
    found = WeightsRecord(*(_TYPES[f.type](v) for f, v in zip(_FIELDS, row, strict=True)))
    counts = (found.both, min(found.errors, found.true_errors), found.shots)
    right = 0 <= counts[0] <= counts[1] and max(found.errors, found.true_errors) <= counts[2]
    right = right and found.shots < 2**53
    right = right and 0 <= found.seconds < math.inf and found.learned_from >= 0
    if not right or found.kind not in KINDS:
        raise ValueError(f"it has a row {','.join(row)}")
    return found


def _paired(records: list[WeightsRecord]) -> list[WeightsRecord]:
    """Those of which there is one for either kind of matching; others are sampled again.

    Raises:
        ValueError: a row that stands twice.
    """
    seen: dict[tuple, set[bool]] = {}
    for r in records:
        found = seen.setdefault(_key(r), set())
        if r.correlated in found:
            raise ValueError(f"{','.join(map(str, _key(r)))} stands twice")
        found.add(r.correlated)
    return [r for r in records if len(seen[_key(r)]) == 2]


def _key(r: WeightsRecord) -> tuple:
    return r.kind, r.distance, r.draw, r.method, r.learned_from


def _write(path: Path, records: list[WeightsRecord]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([f.name for f in _FIELDS])
        writer.writerows(dataclasses.astuple(r) for r in records)


def pooled(records: list[WeightsRecord]) -> Estimate:
    """Ratio of the errors of all draws together to those of the true models."""
    sums = (sum(getattr(r, name) for r in records) for name in ("errors", "true_errors", "both"))
    return paired_ratio(*sums)


_COLUMNS: tuple[Column[list[WeightsRecord]], ...] = (
    Column[list[WeightsRecord]]("noise", lambda draws: draws[0].kind, name=True),
    Column("d", lambda draws: str(draws[0].distance)),
    Column("method", lambda draws: draws[0].method, name=True),
    Column("learned\nfrom", lambda draws: str(draws[0].learned_from)),
    Column("draws", lambda draws: str(len(draws))),
    Column("errors", lambda draws: str(sum(r.errors for r in draws))),
    Column("with the\ntrue model", lambda draws: str(sum(r.true_errors for r in draws))),
    Column("ratio (95 %)", lambda draws: ratio_text(pooled(draws), 3)),
    Column("worst\ndraw", lambda draws: f"{max(pooled([r]).value for r in draws):.3f}"),
    Column("seconds", lambda draws: f"{np.median([r.seconds for r in draws]):.2f}"),
)


def print_tables(records: list[WeightsRecord]) -> None:
    """Logical errors over those of the true model: all draws together, and the worst draw."""
    in_order = sorted(records, key=lambda r: (KINDS.index(r.kind), r.distance, r.learned_from))
    for correlated, matching in enumerate(("Uncorrelated", "Correlated")):
        groups: dict[tuple, list[WeightsRecord]] = {}
        for r in in_order:
            if r.correlated == bool(correlated):
                groups.setdefault((r.kind, r.distance, r.method, r.learned_from), []).append(r)
        print_table(
            _COLUMNS,
            list(groups.values()),
            f"{matching} matching: logical errors over those with the true model\n",
        )
