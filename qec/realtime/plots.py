"""The figures of `qec realtime`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from qec.support.figures import decoder_colors, legend_below, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.realtime.report import Report


_US = "\N{MICRO SIGN}s"
_COLUMNS = 3  # of panels, side by side


def plot_latency(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes latency.png and latency.svg: the share of windows that take longer, a panel a period.

    Raises:
        QecError: the folder cannot be written to.
    """
    colors = decoder_colors(r.decoder for r in reports)
    figure, panels = _panels(reports, title)
    for axes, runs in panels:
        for r in runs:
            values = np.sort(r.latencies_us[r.latencies_us > 0])
            if len(values):
                share = 1 - np.arange(len(values)) / len(values)
                axes.step(values, share, where="post", color=colors[r.decoder], label=r.decoder)
            if r.period_us > 0:
                axes.axvline(r.period_us * r.commit, color=colors[r.decoder], linestyle=":")
        axes.set(xscale="log", yscale="log")
    figure.supxlabel(f"from the last round to the decision, {_US}", fontsize="medium")
    figure.supylabel("share of windows that take longer", fontsize="medium")
    legend_below(figure, "Dotted: as long as the rounds take that a window commits.")
    return save_figure(figure, folder, "latency")


def plot_load(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes load.png and load.svg: median and 99th percentile of the latency against the period.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(7, 5.2), layout="constrained")
    axes = figure.subplots()
    shown = sorted((r for r in reports if r.period_us > 0 and r.decided), key=lambda r: r.period_us)
    for decoder, color in decoder_colors(r.decoder for r in reports).items():
        runs = [r for r in shown if r.decoder == decoder]
        axes.plot([], [], color=color, linewidth=3, label=decoder)
        for column, style in ((0, "-"), (2, "--")):
            x = [r.period_us for r in runs]
            y = [r.latency_us["all"][column] for r in runs]
            axes.plot(x, y, style, color=color)
            for r, us in zip(runs, y, strict=True):
                face = color if r.stable else "white"
                axes.plot(r.period_us, us, "o", color=color, markerfacecolor=face)
    legend: tuple[tuple[str, dict[str, Any]], ...] = (
        ("median", {"linestyle": "-"}),
        ("99 % of the windows", {"linestyle": "--"}),
        ("keeps up", {"marker": "o", "linestyle": "none"}),
        ("falls behind", {"marker": "o", "linestyle": "none", "markerfacecolor": "white"}),
    )
    for label, marks in legend:
        axes.plot([], [], color="0.4", label=label, **marks)
    if shown:
        axes.set(xscale="log", yscale="log")
        periods = sorted({r.period_us for r in shown})
        axes.set_xticks(periods, [f"{us:.3g}" for us in periods])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(f"{_US} between rounds")
    axes.set_ylabel(f"from the last round to the decision, {_US}")
    axes.set_title(title, fontsize="medium")
    axes.grid(True, linewidth=0.3)
    legend_below(figure)
    return save_figure(figure, folder, "load")


def plot_backlog(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes backlog.png and backlog.svg: rounds that wait to be decided, a panel a period.

    Raises:
        QecError: the folder cannot be written to.
    """
    colors = decoder_colors(r.decoder for r in reports)
    arriving = [r for r in reports if r.period_us > 0 and len(r.backlog)]
    figure, panels = _panels(arriving, title)
    for axes, runs in panels:
        for r in runs:
            seconds, waiting = r.backlog.T
            label = r.decoder
            axes.plot(seconds / seconds[-1], waiting, linewidth=1, color=colors[label], label=label)
        axes.set(yscale="symlog", ylim=(0, None))
    figure.supxlabel("share of the run's rounds that have arrived", fontsize="medium")
    figure.supylabel("rounds not decided", fontsize="medium")
    legend_below(figure)
    return save_figure(figure, folder, "backlog")


def _panels(
    reports: Sequence[Report], title: str
) -> tuple[Figure, list[tuple[Axes, list[Report]]]]:
    """A figure with a panel for every period and deadline, all of one frame, and their runs."""
    panels: dict[str, list[Report]] = {}
    for r in sorted(reports, key=lambda r: r.period_us):
        panels.setdefault(_run_label(r), []).append(r)
    columns = min(max(len(panels), 1), _COLUMNS)
    lines = -(-len(panels) // columns) or 1
    size = (max(2.8 * columns + 0.6, 5.5), 2.3 * lines + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).flat
    found: list[tuple[Axes, list[Report]]] = []
    pairs: Any = itertools.zip_longest(grid, panels.items(), fillvalue=("", []))
    for axes, (name, runs) in pairs:
        axes.set_title(name, fontsize="small")
        axes.grid(True, linewidth=0.3)
        if runs:
            found.append((axes, runs))
        else:
            axes.set_axis_off()
    for axes, _ in found[-columns:]:  # the last ones of their columns
        axes.tick_params(labelbottom=True)
    figure.suptitle(title, fontsize="medium")
    return figure, found


def _run_label(r: Report) -> str:
    when = f"a round every {r.period_us:.3g} {_US}" if r.period_us else "all at once"
    return when if r.deadline_us is None else f"{when}, due {r.deadline_us:g} {_US}"
