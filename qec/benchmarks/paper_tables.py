"""An evaluation next to the paper's figures: ``qec paper-factors out/m1/accuracy``.

The paper is arXiv:2604.12841.  Its factor of improvement is LER(uncorrelated PyMatching) over
LER(network, then uncorrelated PyMatching), X basis, as many rounds as the distance, uniform noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from qec.evaluation.collected_rows import read_collected
from qec.evaluation.gain_over_matching import FACTORS
from qec.evaluation.sweep_table import rows_of
from qec.support.errors import QecError
from qec.support.settings import required_path

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


def table(folder: Path) -> Table:
    """A row per point of an evaluation of uniform noise, X, R = d.

    Raises:
        QecError: there is no such evaluation.
    """
    stats = read_collected(folder / "collected.csv", repair=False)
    rows = [row for stat in stats.values() for row in rows_of(stat)]
    found = {
        (row.metadata["p"], row.metadata["d"]): row
        for row in rows
        if row.decoder == FACTORS["F"]
        and (row.metadata["noise"], row.metadata["b"]) == ("uniform", "X")
        and row.metadata["r"] == row.metadata["d"]
    }
    if not found:
        raise QecError(f"{folder} holds no evaluation in uniform noise, basis X, R = d.")
    made = Table("p", "d", "shots", "errors: matching, network", "factor (95 %)", *PAPER)
    for (p, d), row in sorted(found.items()):
        gain = row.gain
        made.add_row(
            f"{p:g}",
            str(d),
            str(row.shots),
            f"{row.baseline_errors}, {row.errors}",
            f"{gain.value:.2f} ({gain.low:.2f}-{gain.high:.2f})",
            *(str(figures.get(p, {}).get(d, "")) for figures in PAPER.values()),
        )
    return made


def compare(config: DictConfig, _: Sequence[str] = ()) -> None:
    """Prints the table of conf/paper-factors.yaml's evaluation; raises as ``table``."""
    Console(width=100).print(table(required_path(config, "evaluation")))
