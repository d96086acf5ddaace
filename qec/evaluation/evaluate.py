"""`qec evaluate`: the accuracy table of a checkpoint, each point sampled as long as it needs."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import sinter
from omegaconf import DictConfig

from qec.circuits.experiment_grid import Grid
from qec.circuits.lattice import SpaceTimeLattice
from qec.evaluation.collect import collect, print_run, shots_of
from qec.evaluation.collected_rows import read_collected
from qec.evaluation.gain_over_matching import BASELINES, Accuracy, markdown, report
from qec.evaluation.paired_sampler import PairedSampler
from qec.evaluation.plots import plot_gains, plot_reliability
from qec.evaluation.reliability import Reliability, reliability
from qec.evaluation.sweep_table import point_title, write_stats
from qec.predecoder.checkpoint import load_predecoder
from qec.support.errors import QecError
from qec.support.files import atomic_path
from qec.support.folder_lock import writes_out_alone
from qec.support.process_pool import worker_count
from qec.support.settings import plain_values, positive_integer, required_path

_GROWTH = 4
"""A point's shots grow at most by this factor before its intervals are looked at again."""


@writes_out_alone
def evaluate(config: DictConfig, command: Sequence[str] = ("qec", "evaluate")) -> list[Accuracy]:
    """Runs an evaluation as configured by conf/evaluate.yaml; writes its files, prints its tables.

    Raises:
        QecError: a value that makes no sense, no such checkpoint, an unwritable folder.
    """
    started = time.monotonic()
    settings = EvaluateSettings.from_config(config)
    sampler = settings.sampler()
    tasks = list(sampler.tasks(settings.grid.points(), max_shots=settings.max_shots))
    collected = settings.out / "collected.csv"
    known = read_collected(collected)

    stats = sample_until_tight(settings, tasks, known)
    points = [Accuracy.from_stats(stats[task.strong_id()]) for task in tasks]
    tables = [settings.out / name for name in ("stats.csv", "accuracy.txt", "accuracy.md")]
    write_stats([row for point in points for row in point.rows.values()], tables[0])
    text = report(points, settings.precision)
    for path, content in zip(tables[1:], (text, markdown(points)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")
    plots = plot_gains(points, settings.out)
    plots += plot_reliability(
        diagrams(settings, points), points[0].metadata["predecoder"], settings.out
    )
    print(text)
    print_run(
        tasks,
        known,
        stats,
        started=started,
        workers=settings.num_workers,
        files=[collected, *tables, *plots],
        command=command,
    )
    return points


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """The values of conf/evaluate.yaml, whose comments say what each key means, validated."""

    grid: Grid
    predecoder: str
    device: str
    precision: float
    min_shots: int
    max_shots: int
    batch: int
    num_workers: int
    reliability_shots: int
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> EvaluateSettings:
        """Checks the values.

        Raises:
            QecError: a value of the wrong type or out of range.
        """
        values = plain_values(config)
        if isinstance(values["rounds"], list):
            raise QecError(f"rounds={values['rounds']} is not supported: give one value, or null.")
        factor = positive_integer("rounds_per_distance", values["rounds_per_distance"])
        if factor > 1 and values["rounds"] is not None:
            raise QecError("rounds and rounds_per_distance exclude each other: give one.")
        precision = values["precision"]
        number = isinstance(precision, int | float) and not isinstance(precision, bool)
        if not number or not 0 < precision < 1:
            raise QecError(f"precision={precision!r} is not supported: use a number in (0, 1).")
        counts = ("min_shots", "max_shots", "batch", "reliability_shots")
        return cls(
            grid=Grid.from_values(values),
            predecoder=str(values["predecoder"]),
            device=str(values["device"]),
            precision=precision,
            num_workers=worker_count(values["num_workers"]),
            out=required_path(config, "out"),
            **{key: positive_integer(key, values[key]) for key in counts},
        )

    def sampler(self) -> PairedSampler:
        """The sampler of the pre-decoder and of what it is compared with."""
        names, baselines = tuple(BASELINES), tuple(BASELINES.values())
        return PairedSampler(names, self.predecoder, self.batch, baselines, device=self.device)


# The stopping rule -------------------------------------------------------------------------------


def sample_until_tight(
    settings: EvaluateSettings, tasks: Sequence[sinter.Task], known: Mapping[str, sinter.TaskStats]
) -> dict[str, sinter.TaskStats]:
    """Samples each task until ``next_target`` asks for no more; statistics by strong id.

    Sinter itself can only stop at a number of shots or errors.  So it is run in rounds over the
    unfinished tasks, and every round ends in collected.csv: nothing else is needed to resume.
    Looking at the intervals repeatedly makes those of stopped points cover a little less than
    95 %; at the hundreds of errors that a tight interval takes, the difference is small.

    Args:
        known: what ``settings.out / "collected.csv"`` holds.

    Raises:
        QecError: as raised in a worker.
    """
    stats = dict(known)
    while True:
        unfinished = []
        for task in tasks:
            target = next_target(stats.get(task.strong_id()), settings)
            if target > shots_of(stats, [task]):
                grown = copy.copy(task)  # the options are no part of the task's identity
                grown.collection_options = sinter.CollectionOptions(max_shots=target)
                unfinished.append(grown)
        if not unfinished:
            return stats
        stats |= collect(
            unfinished,
            settings.sampler(),
            settings.out / "collected.csv",
            stats,
            num_workers=settings.num_workers,
            label=f"{len(tasks) - len(unfinished)} of {len(tasks)} points done; shots",
        )


def next_target(stat: sinter.TaskStats | None, settings: EvaluateSettings) -> int:
    """Shots that a point should have before its intervals are looked at next.

    Returns:
        the shots that it has, where both intervals are tight or ``max_shots`` is reached; else what
        the square-root law predicts, at most ``_GROWTH`` times the shots so far.
    """
    shots = 0 if stat is None else stat.shots
    if shots < settings.min_shots:
        return max(shots, min(settings.min_shots, settings.max_shots))
    excess = Accuracy.from_stats(stat).width / settings.precision
    if excess <= 1:
        return shots
    growth = min(1.05 * excess**2, _GROWTH)  # 5 % more than predicted: another round costs as much
    target = max(math.ceil(shots * growth), shots + settings.batch)
    return max(shots, min(target, settings.max_shots))


# Reliability -------------------------------------------------------------------------------------


def diagrams(settings: EvaluateSettings, points: Sequence[Accuracy]) -> dict[str, Reliability]:
    """One reliability diagram per noise: middle distance, largest p, first basis; by title."""
    grid = settings.grid
    middle = sorted(grid.distance)[len(grid.distance) // 2]
    strengths = [point.metadata["p"] for point in points if "p" in point.metadata]
    one = dataclasses.replace(
        grid,
        distance=(middle,),
        p=(max(strengths),) if strengths else (),  # rates of files have no p
        basis=grid.basis[:1],
    )
    predecoder = load_predecoder(settings.predecoder)
    return {
        point_title(metadata): reliability(
            SpaceTimeLattice.from_dem(dem), predecoder, settings.reliability_shots
        )
        for _, dem, metadata in one.points()
    }
