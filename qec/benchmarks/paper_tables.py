"""An evaluation next to the paper's figures: ``qec paper-factors out/m1/accuracy``.

The paper is arXiv:2604.12841.  Its factor of improvement is LER(uncorrelated PyMatching) over
LER(network, then uncorrelated PyMatching), X basis, as many rounds as the distance, uniform noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from omegaconf import DictConfig

from qec.evaluation.collected_rows import read_collected
from qec.evaluation.gain_over_matching import NETWORK
from qec.evaluation.sweep_table import SweepRow, rows_of
from qec.support.errors import QecError
from qec.support.settings import required_path
from qec.support.tables import Column, print_table, ratio_text

PAPER = {
    "Fast (M1)": {
        0.006: {5: 1.28, 9: 1.25, 13: 1.26, 17: 1.28, 21: 1.33, 31: 1.40},
        0.003: {5: 1.43, 9: 1.11, 13: 0.88, 17: 0.81, 21: 0.67},
    },
    "Accurate (M4)": {
        0.006: {5: 1.44, 9: 1.66, 13: 1.76, 17: 1.98, 21: 2.26, 31: 3.12},
        0.003: {5: 1.71, 9: 1.90, 13: 1.32, 17: 1.17, 21: 1.31},
    },
}
"""The paper's factors of improvement, by noise strength and distance, read off its figure."""


def rows_at(folder: Path) -> list[SweepRow]:
    """A row per point of an evaluation of uniform noise, X, R = d.

    Raises:
        QecError: there is no such evaluation.
    """
    stats = read_collected(folder / "collected.csv", repair=False)
    found = [
        row
        for stat in stats.values()
        for row in rows_of(stat)
        if row.decoder == NETWORK
        and (row.metadata["noise"], row.metadata["b"]) == ("uniform", "X")
        and row.metadata["r"] == row.metadata["d"]
    ]
    if not found:
        raise QecError(f"{folder} holds no evaluation in uniform noise, basis X, R = d.")
    return sorted(found, key=lambda row: (row.metadata["p"], row.metadata["d"]))


def _paper(figures: dict[float, dict[int, float]]) -> Callable[[SweepRow], str]:
    return lambda row: str(figures.get(row.metadata["p"], {}).get(row.metadata["d"], ""))


COLUMNS = (
    Column[SweepRow]("p", lambda row: f"{row.metadata['p']:g}"),
    Column("d", lambda row: str(row.metadata["d"])),
    Column("shots", lambda row: str(row.shots)),
    Column("errors:\nmatching", lambda row: str(row.baseline_errors)),
    Column("with the\nnetwork", lambda row: str(row.errors)),
    Column("fewer errors\n(95 %)", lambda row: ratio_text(row.gain)),
    *(Column(name.replace(" (", "\n("), _paper(figures)) for name, figures in PAPER.items()),
)


def compare(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Prints the table of conf/paper-factors.yaml's evaluation; raises as ``rows_at``."""
    print_table(COLUMNS, rows_at(required_path(config, "evaluation")))
    print("Fast and Accurate: the factors of improvement of arXiv:2604.12841")
