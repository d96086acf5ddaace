"""What the figures of all commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from qec.support.files import atomic_path
from qec.support.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.png and name.svg; QecError where the folder cannot be written to."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return paths


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, as matplotlib wants them."""
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
