"""Figures of sweeps and evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator

from qec.evaluation.gain_over_matching import GAINS
from qec.evaluation.scaling import common_title
from qec.support.figures import (
    MARKERS,
    PALETTE,
    decoder_colors,
    error_bars,
    legend_below,
    save_figure,
)
from qec.support.statistics import error_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.evaluation.gain_over_matching import Accuracy
    from qec.evaluation.reliability import Reliability
    from qec.evaluation.scaling import Scaling
    from qec.evaluation.sweep_table import SweepRow

_WIDEST = 0.5  # relative half-width of the intervals that are drawn: wider ones hide the others


def plot_ler(rows: Sequence[SweepRow], found: Sequence[Scaling], folder: Path) -> list[Path]:
    """Writes ler.png and ler.svg: logical error rates with 95 % intervals.

    One panel per basis, noise, orientation and number of rounds.  Rates per round over p where
    several are given, else over the distance; a line per decoder and distance.  Circuit files stand
    side by side in one panel.  Beside them, where ``found`` has them: the error suppression over p,
    and the thresholds.  Those are crossings of rates per shot, which are drawn then.

    Args:
        rows: of one sweep, not empty.
        found: ``scalings`` of the rows.
        folder: where to.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels: dict[str, list[SweepRow]] = {}
    for row in rows:
        panels.setdefault(common_title(row, rows), []).append(row)
    colors = decoder_colors(row.decoder for row in rows)
    crossing = any(one.threshold is not None for one in found)
    across, down = (1, len(panels)) if found else (len(panels), 1)
    size = (9.5 if found else max(4.6 * across, 6.0), 4.6 * down + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(2 * down, 2 if found else across, height_ratios=[3, 2] * down)
    first = None
    for k, (title, members) in enumerate(panels.items()):
        top, left = (2 * k, 0) if found else (0, k)
        axes = figure.add_subplot(grid[top : top + 2, left], sharey=first)
        first = first or axes
        _draw_rates(axes, members, colors, per_shot=crossing)
        axes.set_title(title, fontsize="medium")
        if left == 0:
            axes.set_ylabel(f"logical error rate per {'shot' if crossing else 'round'}")
        here = [one for one in found if one.title == title]
        if here:
            below = top + 1 if crossing else top + 2
            _draw_suppression(figure.add_subplot(grid[top:below, 1], sharex=axes), here, colors)
        if here and crossing:
            _draw_thresholds(figure.add_subplot(grid[top + 1, 1], sharex=axes), here, colors)
    caption = "Bars: 95 % intervals."
    if crossing:
        caption += (
            " Threshold: where the error rates per shot of all distances cross. The suppression is "
            "of rates per round, and near (d + 2) / d there."
        )
    legend_below(figure, caption)
    return save_figure(figure, folder, "ler")


def _draw_rates(
    axes: Axes, rows: Sequence[SweepRow], colors: Mapping[str, str], *, per_shot: bool
) -> None:
    if "circuit" in rows[0].metadata:
        axis = "circuit"
    else:  # a noise model from a file has no p
        axis = "p" if len({row.metadata.get("p") for row in rows}) > 1 else "d"
    lines: dict[tuple[str, int], list[SweepRow]] = {}
    for row in sorted(rows, key=lambda row: row.metadata[axis]):
        distance = row.metadata["d"] if axis == "p" else 0
        lines.setdefault((row.decoder, distance), []).append(row)
    distances = sorted({distance for _, distance in lines})
    for (decoder, distance), points in lines.items():
        rates = [row.per_shot if per_shot else row.per_round for row in points]
        axes.errorbar(
            [_place(row, axis) for row in points],
            [rate.value or float("nan") for rate in rates],  # no errors: nothing to draw
            yerr=error_bars(rates),
            color=colors[decoder],
            marker=MARKERS[distances.index(distance) % len(MARKERS)],
            markersize=4,
            linestyle="none" if axis == "circuit" else "-",
            capsize=2,
            linewidth=1,
        )
    for decoder in dict.fromkeys(decoder for decoder, _ in lines):
        axes.plot([], [], color=colors[decoder], linewidth=3, label=decoder)
    for k, distance in enumerate(distances if axis == "p" else []):
        style: dict[str, Any] = {
            "color": "0.4",
            "marker": MARKERS[k % len(MARKERS)],
            "linestyle": "none",
        }
        axes.plot([], [], **style, label=f"d = {distance}")
    axes.set_yscale("log")
    if axis == "p":
        axes.set(xlabel="noise strength p", xscale="log")
        strengths = sorted({row.metadata["p"] for row in rows})
        axes.set_xticks(strengths, [f"{p:g}" for p in strengths])
        axes.xaxis.set_minor_locator(NullLocator())
    elif axis == "d":
        axes.set(xlabel="code distance d", xticks=sorted({row.metadata["d"] for row in rows}))
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    axes.tick_params(labelsize="small")
    axes.tick_params(which="minor", labelsize="x-small")
    axes.grid(True, which="both", linewidth=0.3)


def _place(row: SweepRow, axis: str) -> float | str:
    return Path(row.metadata[axis]).stem if axis == "circuit" else row.metadata[axis]


def _draw_suppression(axes: Axes, found: Sequence[Scaling], colors: Mapping[str, str]) -> None:
    """Lambda over p; a marker for each pair of distances."""
    pairs = sorted({pair for one in found for pair in one.suppression})
    for one in found:
        for pair, by_p in one.suppression.items():
            shown = {p: x for p, x in by_p.items() if x.relative_half_width <= _WIDEST}
            axes.errorbar(
                list(shown),
                [x.value for x in shown.values()],
                yerr=error_bars(list(shown.values())),
                color=colors[one.decoder],
                marker=_PAIR_MARKERS[pairs.index(pair) % len(_PAIR_MARKERS)],
                markersize=5,
                capsize=2,
                linewidth=1,
            )
    for k, (small, large) in enumerate(pairs):
        marker = _PAIR_MARKERS[k % len(_PAIR_MARKERS)]
        label = f"\N{GREEK CAPITAL LETTER LAMDA}, d = {small} over {large}"
        axes.plot([], [], color="0.4", marker=marker, linestyle="none", label=label)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.margins(y=0.1)
    axes.tick_params(labelsize="small")
    axes.set(xlabel="noise strength p", ylabel="error suppression \N{GREEK CAPITAL LETTER LAMDA}")
    axes.grid(True, linewidth=0.3)


_PAIR_MARKERS = "<>12348"


def _draw_thresholds(axes: Axes, found: Sequence[Scaling], colors: Mapping[str, str]) -> None:
    """Threshold of each decoder, on a line of its own."""
    for k, decoder in enumerate(colors):
        for one in found:
            if one.decoder == decoder and one.threshold is not None:
                p = one.threshold.p
                bars: dict[str, Any] = {"color": colors[decoder], "marker": "d", "capsize": 3}
                axes.errorbar([p.value], [k], xerr=error_bars([p]), **bars)
                text = f"{100 * p.value:.2f} % ({100 * p.low:.2f}-{100 * p.high:.2f})"
                axes.annotate(
                    text, (p.low, k), (-6, 0), textcoords="offset points", ha="right", va="center",
                    fontsize="x-small",
                )  # fmt: skip
    axes.set(ylim=(len(colors) - 0.5, -0.5), yticks=[], xlabel="noise strength p")
    axes.set_ylabel("threshold")
    axes.tick_params(labelsize="small")
    axes.grid(True, linewidth=0.3)


# Evaluations -------------------------------------------------------------------------------------


def plot_gains(points: Sequence[Accuracy], folder: Path) -> list[Path]:
    """Writes accuracy.png and accuracy.svg: both gains over matching, with 95 % intervals.

    One column of panels per noise and basis, one line per p, over the distance.  Points whose
    interval is wider than +- 50 % are left out.

    Raises:
        QecError: the folder cannot be written to.
    """
    columns: dict[str, list[Accuracy]] = {}
    for point in points:
        columns.setdefault("{noise}, basis {b}".format(**point.metadata), []).append(point)
    strengths = list(dict.fromkeys(point.metadata.get("p") for point in points))
    figure = Figure(figsize=(3.6 * len(columns) + 1, 7), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    peers = ("PyMatching", "correlated PyMatching")
    for decoder, matching, row in zip(GAINS, peers, axes, strict=True):
        row[0].set_ylabel(f"{decoder}:\ntimes fewer logical errors\nthan {matching}")
        for axes_k, members in zip(row, columns.values(), strict=True):
            _draw_gain(axes_k, decoder, members, strengths)
    for axes_k, title in zip(axes[0], columns, strict=True):
        axes_k.set_title(title)
    for axes_k in axes[1]:
        distances = sorted({point.metadata["d"] for point in points})
        axes_k.set(xlabel="code distance d", xticks=distances)
    legend_below(figure, "Bars: 95 % intervals, paired on the same shots.")
    figure.suptitle(f"network {points[0].metadata['predecoder']}")
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
            color=PALETTE[k % len(PALETTE)],
            marker=MARKERS[k % len(MARKERS)],
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
        name = f"{title}\n{diagram.shots} shots, mean deviation {diagram.calibration_error:.1e}"
        axes_k.set_title(name, fontsize="small")
    axes[0].set_ylabel("observed frequency")
    caption = (
        f"Probabilities that the network of {predecoder} predicts for the edges of the matching "
        "graph, against the frequency with which they fire. Bars: 95 % intervals as if edges were "
        "independent. Bins where none has fired, or all have, are left out."
    )
    legend_below(figure, caption)
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
        color=PALETTE[1],
        label="edges of the matching graph",
    )
    axes.axvline(
        diagram.threshold,
        color=PALETTE[2],
        linestyle=":",
        label=f"committed above {diagram.threshold:g}",
    )
    axes.set(xscale="logit", yscale="logit", xlim=ends, ylim=ends, xlabel="predicted probability")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(lambda *_: "")
    axes.grid(True, linewidth=0.3)
