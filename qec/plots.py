"""Figures of sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from qec.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.results import Row

_PANEL = ("b", "noise", "o")  # metadata that tells the panels apart


def plot_ler(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Writes ler.png and ler.svg: logical error rate per round with 95 % intervals.

    One panel per basis, noise and orientation; over p where several are given, else over the
    distance; one line per decoder, and per further axis that varies.  Circuit files stand side by
    side in one panel.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels: dict[str, list[Row]] = {}
    for row in rows:
        title = ", ".join(str(row.metadata[key]) for key in _PANEL if key in row.metadata)
        panels.setdefault(title, []).append(row)
    names = list(dict.fromkeys(row.decoder for row in rows))

    figure = Figure(figsize=(5.5 * len(panels), 4.8), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    explained = None
    for axes_k, (title, members) in zip(axes, panels.items(), strict=True):
        _draw_panel(axes_k, members, names)
        axes_k.set_title(title)
        if (labels := axes_k.get_legend_handles_labels()[1]) != explained:
            axes_k.legend(fontsize="small")
        explained = labels
    axes[0].set_ylabel("logical error rate per round")

    paths = [folder / "ler.png", folder / "ler.svg"]
    for path in paths:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
    return paths


def _draw_panel(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Draws the rows of one noise model; a decoder's colour is its place in ``names``."""
    if "circuit" in rows[0].metadata:
        axis = "circuit"
    else:  # a noise model from a file has no p
        axis = "p" if len({row.metadata.get("p") for row in rows}) > 1 else "d"
    lines: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.metadata[axis]):
        lines.setdefault((row.decoder, _line_label(row, axis)), []).append(row)
    details = list(dict.fromkeys(detail for _, detail in lines))
    for (decoder, detail), points in lines.items():
        rates = [row.per_round for row in points]
        axes.errorbar(
            [_place(row, axis) for row in points],
            [rate.value or float("nan") for rate in rates],  # no errors: nothing to draw
            yerr=[
                [rate.value - rate.low for rate in rates],
                [rate.high - rate.value for rate in rates],
            ],
            color=f"C{names.index(decoder) % 10}",
            marker="osD^vPX"[details.index(detail) % 7],
            markersize=4,
            linestyle="none" if axis == "circuit" else "-",
            capsize=2,
            linewidth=1,
            label=f"{decoder}{detail}",
        )
    axes.set_yscale("log")
    if axis == "p":
        axes.set(xlabel="noise strength p", xscale="log")
    elif axis == "d":
        axes.set(xlabel="code distance d", xticks=sorted({row.metadata["d"] for row in rows}))
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    axes.grid(True, which="both", linewidth=0.3)


def _place(row: Row, axis: str) -> float | str:
    return Path(row.metadata[axis]).stem if axis == "circuit" else row.metadata[axis]


def _line_label(row: Row, axis: str) -> str:
    """What tells the lines of one decoder apart."""
    d, r = row.metadata["d"], row.metadata["r"]
    parts = [f"d = {d}"] if axis == "p" else []
    parts += [f"R = {r}"] if r != d and axis != "circuit" else []
    return "".join(f", {part}" for part in parts)
