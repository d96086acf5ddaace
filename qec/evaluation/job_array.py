"""A sweep spread over the tasks of a job array: who samples what, and where it is written.

Each run of a task has files of its own in the folder <out>/array that all share, so that no two
processes, on whatever node, ever write to the same one:

    <task>-<run>.csv     sinter's rows, added up by strong id when they are read
    <task>-<run>.seeds   strong id and seed of each sampler that made them

Shots of a sweep without an array, in collected.csv and collected.seeds beside it, count as well.
Seeds are fresh at each start, from the operating system, never derived from the task's number: a
task that is run again goes on with other shots.  ``check_seeds`` refuses shots that would count
twice.
"""

from __future__ import annotations

import collections
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

import sinter

from qec.support.errors import QecError, first_line
from qec.support.journal import append_text, keep


def share(points: Iterable[sinter.Task], task: int, tasks: int) -> list[sinter.Task]:
    """The grid points of one task; all tasks get large and small ones."""
    return sorted(points, key=lambda point: -point.circuit.num_detectors)[task::tasks]


def new_row_file(folder: Path, task: int) -> Path:
    """The CSV file of a new run of a task."""
    return folder / f"{task}-{secrets.token_hex(8)}.csv"


def row_files(folder: Path) -> list[Path]:
    """The CSV files of all runs of all tasks; none if there is no such folder."""
    return sorted(folder.glob("*.csv"))


def seed_file(rows: Path) -> Path:
    """Where the seeds of a CSV file are recorded."""
    return rows.with_suffix(".seeds")


def record_seed(path: Path, strong_id: str) -> int:
    """A fresh seed for Stim, noted in a file before there are shots of it."""
    seed = secrets.randbits(63)
    append_text(path, f"{strong_id} {seed}\n")
    return seed


def check_seeds(rows: Mapping[Path, Mapping[str, sinter.TaskStats]]) -> None:
    """Makes sure that these CSV files (statistics by strong id) are of different shots.

    Raises:
        QecError: a file without a record of its seeds, or a seed that occurs twice, as in copies.
    """
    users: dict[int, list[Path]] = collections.defaultdict(list)
    for path, stats in rows.items():
        seeds = read_seeds(seed_file(path))
        if not stats.keys() <= {strong_id for strong_id, _ in seeds}:
            raise QecError(
                f"{seed_file(path)} does not say how the rows of {path.name} were seeded: remove "
                "the latter, its shots may be in another file."
            )
        for _, seed in seeds:
            users[seed].append(path)
    for seed, paths in users.items():
        if len(paths) > 1:
            names = " and ".join(sorted(path.name for path in paths))
            raise QecError(f"{names} have shots of the same seed {seed}: remove the copy.")


def read_seeds(path: Path, *, repair: bool = False) -> list[tuple[str, int]]:
    """Strong ids and the seeds of their samplers; none if there is no such file.

    A line that a killed job left unfinished is passed over, and dropped with ``repair``: there are
    no shots of its seed.

    Raises:
        QecError: a file that cannot be read, or is none of seeds.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        seeds = [(strong_id, int(seed)) for strong_id, seed in map(str.split, whole.splitlines())]
        if not all(0 <= seed < 2**63 for _, seed in seeds):
            raise ValueError("a seed out of range")
    except (ValueError, OSError) as error:
        raise QecError(
            f"{path} is damaged ({first_line(error)}): remove it and {path.stem}.csv."
        ) from error
    if repair and whole != text:
        keep(path, whole)
    return seeds
