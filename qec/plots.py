"""Figures of sweeps and evaluations."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, MaxNLocator, NullLocator

from qec.files import atomic_path
from qec.stats import error_rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.accuracy import Accuracy
    from qec.benchmark.command import Timing
    from qec.noise_learning.estimator import NoiseEstimate
    from qec.noise_learning.tracking import Look
    from qec.realtime.report import Report
    from qec.reliability import Reliability
    from qec.results import Row
    from qec.stats import Estimate

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

    return save_figure(figure, folder, "ler")


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.png and name.svg; QecError where the folder cannot be written to."""
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
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


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, as matplotlib wants them."""
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]


def _place(row: Row, axis: str) -> float | str:
    return Path(row.metadata[axis]).stem if axis == "circuit" else row.metadata[axis]


def _line_label(row: Row, axis: str) -> str:
    """What tells the lines of one decoder apart."""
    d, r = row.metadata["d"], row.metadata["r"]
    parts = [f"d = {d}"] if axis == "p" else []
    parts += [f"R = {r}"] if r != d and axis != "circuit" else []
    return "".join(f", {part}" for part in parts)


# Evaluations -------------------------------------------------------------------------------------

_WIDEST = 0.5  # relative half-width of the intervals that are drawn: wider ones hide the others


def plot_factors(points: Sequence[Accuracy], folder: Path) -> list[Path]:
    """Writes accuracy.png and accuracy.svg: F and C over the distance, with 95 % intervals.

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
    for name, against, row in zip("FC", ("uncorrelated", "correlated"), axes, strict=True):
        row[0].set_ylabel(f"{name}, over {against} matching")
        for axes_k, members in zip(row, columns.values(), strict=True):
            _draw_factor(axes_k, name, members, strengths)
    for axes_k, title in zip(axes[0], columns, strict=True):
        axes_k.set_title(title)
    for axes_k in axes[1]:
        distances = sorted({point.metadata["d"] for point in points})
        axes_k.set(xlabel="code distance d", xticks=distances)
    axes[0][0].legend(fontsize="small")
    figure.suptitle(f"{points[0].metadata['predecoder']}: factor by which it lowers the LER")
    return save_figure(figure, folder, "accuracy")


def _draw_factor(
    axes: Axes, name: str, points: Sequence[Accuracy], strengths: Sequence[float | None]
) -> None:
    """Draws F or C of one noise and basis; the colour of a p is its place in ``strengths``."""
    axes.axhline(1, color="black", linewidth=0.8)
    for k, p in enumerate(strengths):
        line = [
            (point.metadata["d"], point.factor(name))
            for point in sorted(points, key=lambda point: point.metadata["d"])
            if point.metadata.get("p") == p and point.factor(name).relative_half_width <= _WIDEST
        ]
        factors = [factor for _, factor in line]
        axes.errorbar(
            [d for d, _ in line],
            [factor.value for factor in factors],
            yerr=error_bars(factors),
            color=f"C{k % 10}",
            marker="osD^vPX"[k % 7],
            markersize=4,
            capsize=2,
            linewidth=1,
            label="rates of the file" if p is None else f"p = {p:g}",
        )
    axes.set_yscale("log")
    # Factors span less than a decade, where ticks at powers of ten say little.
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


# Noise learning ----------------------------------------------------------------------------------


def plot_rates(
    estimate: NoiseEstimate, other: np.ndarray, is_reference: bool, folder: Path
) -> list[Path]:
    """Writes rates.png and rates.svg: learned probabilities of the mechanisms against others.

    Args:
        estimate: what was learned.
        other: float64 (m,), probabilities to compare with.
        is_reference: whether they are the true ones, or the structure's own.

    Raises:
        QecError: the folder cannot be written to.
    """
    size = estimate.structure.size
    figure = Figure(figsize=(5.6, 5), layout="constrained")
    axes = figure.subplots()
    shown = other > 0
    for k in np.unique(size):
        same = shown & (size == k)
        label = "1 detector" if k == 1 else f"{k} detectors"
        style = {"marker": ".", "markersize": 3, "linestyle": "none"}
        axes.plot(other[same], estimate.probability[same], label=label, **style)
    ends = np.array([other[shown].min(), other.max()])
    axes.plot(ends, ends, color="black", linewidth=0.8)
    name = "reference" if is_reference else "structure's own"
    axes.set(xscale="log", yscale="log", xlabel=f"probability, {name}")
    axes.set_ylabel(f"probability, learned ({estimate.method}, {estimate.shots:.0f} shots)")
    axes.grid(True, linewidth=0.3)
    axes.legend(fontsize="small", title="mechanisms that flip")
    return save_figure(figure, folder, "rates")


_MOST_LINES = 8  # parameters whose drift is drawn


def plot_drift(looks: Sequence[Look], folder: Path) -> list[Path]:
    """Writes drift.png and drift.svg: event rate, alarms and strengths of parameters over shots.

    Only the parameters that changed most are drawn.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    rate, strength = figure.subplots(2, 1, sharex=True)
    shots = [look.shots for look in looks]
    rate.plot(shots, [look.event_rate for look in looks], marker=".", linewidth=1)
    rate.set_ylabel("detection events per detector")
    for look in looks:
        if len(look.changed):
            rate.axvline(look.shots, color="C3", linestyle=":", linewidth=1)
    parameters = [look.estimate.parameters for look in looks]
    table = {name: [found[name] for found in parameters] for name in parameters[0]}
    logs = {name: np.log(values) for name, values in table.items()}
    most = sorted(logs, key=lambda name: -np.ptp(logs[name]))[:_MOST_LINES]
    for name in most:
        strength.plot(shots, table[name], linewidth=1, label=name)
    strength.set(yscale="log", xlabel="shots", ylabel="strength over the structure's")
    strength.legend(fontsize="x-small", ncols=2)
    for axes in (rate, strength):
        axes.grid(True, linewidth=0.3)
    return save_figure(figure, folder, "drift")


# Real time ---------------------------------------------------------------------------------------


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


# Benchmark ---------------------------------------------------------------------------------------


def plot_steps(timings: Sequence[Timing], folder: Path) -> list[Path]:
    """Writes steps.png and steps.svg: time per round of each step, stacked, a bar per decoder.

    Raises:
        QecError: the folder cannot be written to.
    """
    shown = ("d", "r", "p", "noise", "b", "batch", "threads")
    varied = [k for k in shown if len({str(t.metadata.get(k)) for t in timings}) > 1]
    networks = [t.network for t in timings if t.network]
    several = {k for n in networks for k in n if any(n[k] != m[k] for m in networks)}
    labels = [
        ", ".join(
            [*(f"{k}={t.metadata.get(k)}" for k in varied), t.decoder]
            + [value for key, value in t.network.items() if key in several]
        )
        for t in timings
    ]
    figure = Figure(figsize=(8, 1.2 + 0.3 * len(timings)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(timings))
    for step in timings[0].steps:
        width = np.array([t.steps[step] for t in timings])
        axes.barh(labels, width, left=left, label=step)
        left += width
    axes.invert_yaxis()
    axes.set_xlabel("microseconds per round")
    axes.legend(fontsize="small")
    return save_figure(figure, folder, "steps")
