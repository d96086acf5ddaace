"""Figures of sweeps and evaluations."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator

from qec.evaluation.gain_over_matching import GAINS
from qec.support.figures import error_bars, save_figure
from qec.support.statistics import error_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.evaluation.gain_over_matching import Accuracy
    from qec.evaluation.reliability import Reliability
    from qec.evaluation.sweep_table import SweepRow

_PANEL = ("b", "noise", "o")  # metadata that tells the panels apart


def plot_ler(rows: Sequence[SweepRow], folder: Path) -> list[Path]:
    """Writes ler.png and ler.svg: logical error rate per round with 95 % intervals.

    One panel per basis, noise and orientation; over p where several are given, else over the
    distance; one line per decoder, and per further axis that varies.  Circuit files stand side by
    side in one panel.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels: dict[str, list[SweepRow]] = {}
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

    return save_figure(figure, folder, "ler")


def _draw_panel(axes: Axes, rows: Sequence[SweepRow], names: Sequence[str]) -> None:
    """Draws the rows of one noise model; a decoder's colour is its place in ``names``."""
    if "circuit" in rows[0].metadata:
        axis = "circuit"
    else:  # a noise model from a file has no p
        axis = "p" if len({row.metadata.get("p") for row in rows}) > 1 else "d"
    lines: dict[tuple[str, str], list[SweepRow]] = {}
    for row in sorted(rows, key=lambda row: row.metadata[axis]):
        lines.setdefault((row.decoder, _line_label(row, axis)), []).append(row)
    details = list(dict.fromkeys(detail for _, detail in lines))
    for (decoder, detail), points in lines.items():
        rates = [row.per_round for row in points]
        axes.errorbar(
            [_place(row, axis) for row in points],
            [rate.value or float("nan") for rate in rates],  # no errors: nothing to draw
            yerr=error_bars(rates),
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


def _place(row: SweepRow, axis: str) -> float | str:
    return Path(row.metadata[axis]).stem if axis == "circuit" else row.metadata[axis]


def _line_label(row: SweepRow, axis: str) -> str:
    """What tells the lines of one decoder apart."""
    d, r = row.metadata["d"], row.metadata["r"]
    parts = [f"d = {d}"] if axis == "p" else []
    parts += [f"R = {r}"] if r != d and axis != "circuit" else []
    return "".join(f", {part}" for part in parts)


# Evaluations -------------------------------------------------------------------------------------

_WIDEST = 0.5  # relative half-width of the intervals that are drawn: wider ones hide the others


def plot_gains(points: Sequence[Accuracy], folder: Path) -> list[Path]:
    """Writes accuracy.png and accuracy.svg: both gains over the distance, with 95 % intervals.

    One column of panels per noise and basis, one line per p.  Points whose interval is wider than
    +- 50 % are left out.

    Raises:
        QecError: the folder cannot be written to.
    """
    columns: dict[str, list[Accuracy]] = {}
    for point in points:
        columns.setdefault("{noise}, basis {b}".format(**point.metadata), []).append(point)
    strengths = list(dict.fromkeys(point.metadata.get("p") for point in points))
    figure = Figure(figsize=(3.6 * len(columns) + 1, 7), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    for decoder, matching, row in zip(
        GAINS, ("PyMatching", "correlated PyMatching"), axes, strict=True
    ):
        row[0].set_ylabel(f"{decoder}:\ntimes fewer logical errors than\n{matching}")
        for axes_k, members in zip(row, columns.values(), strict=True):
            _draw_gain(axes_k, decoder, members, strengths)
    for axes_k, title in zip(axes[0], columns, strict=True):
        axes_k.set_title(title)
    for axes_k in axes[1]:
        distances = sorted({point.metadata["d"] for point in points})
        axes_k.set(xlabel="code distance d", xticks=distances)
    axes[0][0].legend(fontsize="small")
    figure.suptitle(f"Pre-decoder {points[0].metadata['predecoder']}")
    return save_figure(figure, folder, "accuracy")


def _draw_gain(
    axes: Axes, decoder: str, points: Sequence[Accuracy], strengths: Sequence[float | None]
) -> None:
    """Draws the gain in one noise and basis; the colour of a p is its place in ``strengths``."""
    axes.axhline(1, color="black", linewidth=0.8)
    for k, p in enumerate(strengths):
        line = [
            (point.metadata["d"], point.gain(decoder))
            for point in sorted(points, key=lambda point: point.metadata["d"])
            if point.metadata.get("p") == p and point.gain(decoder).relative_half_width <= _WIDEST
        ]
        gains = [gain for _, gain in line]
        axes.errorbar(
            [d for d, _ in line],
            [gain.value for gain in gains],
            yerr=error_bars(gains),
            color=f"C{k % 10}",
            marker="osD^vPX"[k % 7],
            markersize=4,
            capsize=2,
            linewidth=1,
            label="rates of the file" if p is None else f"p = {p:g}",
        )
    axes.set_yscale("log")
    # Gains span less than a decade, where ticks at powers of ten say little.
    axes.yaxis.set_major_locator(MaxNLocator(8))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(True, linewidth=0.3)


def plot_reliability(
    diagrams: Mapping[str, Reliability], predecoder: str, folder: Path
) -> list[Path]:
    """Writes reliability.png and reliability.svg, a panel per diagram, both axes in logits.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(4.6 * len(diagrams) + 0.5, 5.6), layout="constrained")
    axes = figure.subplots(1, len(diagrams), squeeze=False, sharey=True)[0]
    for axes_k, (title, diagram) in zip(axes, diagrams.items(), strict=True):
        _draw_reliability(axes_k, diagram)
        axes_k.set_title(title, fontsize="small")
    axes[0].set_ylabel("observed frequency")
    caption = (
        f"Probabilities that the network of {predecoder} predicts for the edges of the matching "
        "graph, against the frequency with which they fire. Bars: 95 % intervals as if edges were "
        "independent. Bins where none has fired, or all have, are left out."
    )
    lines = textwrap.fill(caption, 75 * len(diagrams))
    figure.supxlabel(lines, fontsize="small", ha="left", x=0.01)
    return save_figure(figure, folder, "reliability")


def _draw_reliability(axes: Axes, diagram: Reliability) -> None:
    shown = (diagram.observed > 0) & (diagram.observed < diagram.edges)
    predicted = diagram.predicted[shown] / diagram.edges[shown]
    counts = zip(diagram.observed[shown].tolist(), diagram.edges[shown].tolist(), strict=True)
    rates = [error_rate(observed, bits) for observed, bits in counts]
    ends = np.array([1e-5, 1 - 1e-5])
    axes.plot(*2 * [1 / (1 + np.exp(-np.linspace(-12, 12, 99)))], color="black", linewidth=0.8)
    axes.errorbar(
        predicted,
        [rate.value for rate in rates],
        yerr=error_bars(rates),
        marker="o",
        markersize=3,
        capsize=2,
        linewidth=1,
        label=f"{diagram.shots} shots, mean deviation {diagram.calibration_error:.1e}",
    )
    axes.axvline(
        diagram.threshold,
        color="C1",
        linestyle=":",
        label=f"committed above {diagram.threshold:g}",
    )
    axes.set(xscale="logit", yscale="logit", xlim=ends, ylim=ends, xlabel="predicted probability")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(lambda *_: "")
    axes.grid(True, linewidth=0.3)
    axes.legend(fontsize="small", loc="upper left")
