"""The figures of `qec realtime`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from qec.support.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.realtime.report import Report


def plot_latency(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes latency.png and latency.svg: the share of windows that take longer, a panel a decoder.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels = _by_decoder(reports)
    figure = Figure(figsize=(8, 0.8 + 2.6 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), squeeze=False, sharex=True)[:, 0]
    for axes, (name, runs) in zip(rows, panels.items(), strict=True):
        for k, r in enumerate(runs):
            values = np.sort(r.latencies_us[r.latencies_us > 0])
            if len(values):
                share = 1 - np.arange(len(values)) / len(values)
                axes.step(values, share, where="post", color=f"C{k}", label=_run_label(r))
                axes.set(xscale="log", yscale="log")
                if r.period_us > 0:
                    axes.axvline(r.period_us * r.commit, color=f"C{k}", linestyle=":")
        axes.set(title=name, ylabel="share of windows")
        axes.grid(True, linewidth=0.3)
        _legend_beside(axes)
    rows[-1].set_xlabel(
        "longer from the last round to the decision than, us\n"
        "(dotted: as long as the rounds take that a window commits)"
    )
    figure.suptitle(title, fontsize="medium")
    return save_figure(figure, folder, "latency")


def plot_load(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes load.png and load.svg: median and 99th percentile of the latency against the period.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for k, (name, runs) in enumerate(_by_decoder(reports).items()):
        runs = sorted((r for r in runs if r.period_us > 0 and r.decided), key=lambda r: r.period_us)
        if not runs:
            continue
        for column, style in ((0, "-"), (2, "--")):
            x = [r.period_us for r in runs]
            y = [r.latency_us["all"][column] for r in runs]
            label = name if column == 0 else None
            axes.plot(x, y, style, color=f"C{k}", label=label)
            for r, us in zip(runs, y, strict=True):
                face = f"C{k}" if r.stable else "white"
                axes.plot(r.period_us, us, "o", color=f"C{k}", markerfacecolor=face)
    if axes.lines:
        axes.set(xscale="log", yscale="log")
        periods = sorted({r.period_us for r in reports if r.period_us > 0})
        axes.set_xticks(periods, [f"{us:.3g}" for us in periods])
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("us between rounds (filled: keeps up)")
    axes.set_ylabel("us from the last round to the decision\n(solid: median, dashed: 99 %)")
    axes.set_title(title, fontsize="medium")
    axes.grid(True, linewidth=0.3)
    _legend_beside(axes)
    return save_figure(figure, folder, "load")


def plot_backlog(reports: Sequence[Report], folder: Path, title: str) -> list[Path]:
    """Writes backlog.png and backlog.svg: rounds that wait to be decided, a panel a decoder.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels = _by_decoder(reports)
    figure = Figure(figsize=(7, 0.8 + 2.6 * len(panels)), layout="constrained")
    rows = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axes, (name, runs) in zip(rows, panels.items(), strict=True):
        for r in runs:
            if r.period_us > 0 and len(r.backlog):
                seconds, waiting = r.backlog.T
                axes.plot(seconds / seconds[-1], waiting, linewidth=1, label=_run_label(r))
        axes.set(title=name, yscale="symlog", ylabel="rounds not decided", ylim=(0, None))
        axes.grid(True, linewidth=0.3)
        _legend_beside(axes)
    rows[-1].set_xlabel("share of the run's rounds that have arrived")
    figure.suptitle(title, fontsize="medium")
    return save_figure(figure, folder, "backlog")


def _by_decoder(reports: Sequence[Report]) -> dict[str, list[Report]]:
    panels: dict[str, list[Report]] = {}
    for r in reports:
        panels.setdefault(r.decoder, []).append(r)
    return panels


def _legend_beside(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))


def _run_label(r: Report) -> str:
    when = f"every {r.period_us:.3g} us" if r.period_us else "all at once"
    return when if r.deadline_us is None else f"{when}, due {r.deadline_us:g} us"
