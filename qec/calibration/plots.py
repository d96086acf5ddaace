"""The figures of `qec calibrate`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from qec.calibration.confidence_against_errors import LEAST_ERRORS, Bin, Calibration, Selected
from qec.support.figures import MARKERS, decoder_colors, error_bars, legend_below, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BAND = 1.5
"""Observed and predicted odds should agree within this factor."""


def plot_reliability(found: Sequence[Calibration], title: str, folder: Path) -> list[Path]:
    """Writes reliability.png and .svg: observed against predicted odds, raw and corrected.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(10.5, 5.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    kinds = {"raw": "gap as it is", "corrected": "gap times slope, second half of the shots"}
    shown = {kind: [_shown(getattr(one, kind)) for one in found] for kind in kinds}
    drawn = [b.predicted for decoders in shown.values() for bins in decoders for b in bins]
    ends = np.array([min(drawn, default=0.1) / 2, 2 * max(drawn, default=1.0)])
    colors = decoder_colors(one.decoder for one in found)
    for axes_k, (kind, head) in zip(axes, kinds.items(), strict=True):
        for one, marker, bins in zip(found, itertools.cycle(MARKERS), shown[kind], strict=False):
            _draw_bins(axes_k, bins, colors[one.decoder], marker, _label(one))
        axes_k.plot(ends, ends, color="black", linewidth=0.8, zorder=0)
        label = f"within a factor of {BAND:g}"
        axes_k.fill_between(ends, ends / BAND, ends * BAND, color="0.88", zorder=-1, label=label)
        axes_k.set(xscale="log", yscale="log", xlabel="predicted odds of an error")
        axes_k.set_title(head, fontsize="medium")
        axes_k.grid(True, linewidth=0.3)
    axes[0].set_ylabel("observed odds of an error")
    figure.suptitle(_title(found, title))
    caption = (
        f"Bars: 95 % intervals. Bins of one nat of the gap with {LEAST_ERRORS} errors or more."
    )
    legend_below(figure, caption)
    return save_figure(figure, folder, "reliability")


def _title(found: Sequence[Calibration], title: str) -> str:
    return f"{title}, {found[0].shots:,} shots"


def _shown(bins: Sequence[Bin]) -> list[Bin]:
    return [b for b in bins if b.errors >= LEAST_ERRORS and b.errors < b.shots]


def _label(one: Calibration) -> str:
    return f"{one.decoder}, slope {one.slope.value:.2f}"


def _draw_bins(axes: Axes, bins: Sequence[Bin], color: str, marker: str, label: str) -> None:
    observed = [b.observed for b in bins]
    axes.errorbar(
        [b.predicted for b in bins],
        [odds.value for odds in observed],
        yerr=error_bars(observed) if bins else None,
        color=color,
        marker=marker,
        markersize=4,
        capsize=2,
        linewidth=1,
        label=label,
    )


def plot_post_selection(found: Sequence[Calibration], title: str, folder: Path) -> list[Path]:
    """Writes post_selection.png and .svg: logical error rate against share of shots discarded.

    Shaded: 95 % intervals, as far as ``LEAST_ERRORS`` errors are left.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(7.5, 5.4), layout="constrained")
    axes = figure.subplots()
    colors = decoder_colors(one.decoder for one in found)
    for one in found:
        _draw_curve(axes, one.selected, colors[one.decoder], one.decoder)
        x, y, *_ = _points(one.reference)
        axes.plot(x, y, color=colors[one.decoder], linestyle="--", linewidth=1)
    axes.plot([], [], color="0.4", label="discarded by the decoder's own gap")
    label = "discarded by the gap of uncorrelated matching"
    axes.plot([], [], color="0.4", linestyle="--", label=label)
    axes.set(
        yscale="log",
        xlabel="shots discarded, least sure first, %",
        ylabel="logical error rate of the shots kept",
        title=_title(found, title),
    )
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.4)
    axes.set_xticks([0, 0.1, 1, 5, 10, 20, 50], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlim(left=0)
    axes.grid(True, linewidth=0.3)
    legend_below(figure, f"Shaded: 95 % intervals, as far as {LEAST_ERRORS} errors are left.")
    return save_figure(figure, folder, "post_selection")


def _draw_curve(axes: Axes, curve: Sequence[Selected], color: str, label: str) -> None:
    x, y, low, high = _points(curve)
    axes.plot(x, y, color=color, linewidth=1.2, label=label)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _points(curve: Sequence[Selected]) -> np.ndarray:
    """Per cent discarded, rate and the ends of its interval, as long as errors are enough."""
    rates = {point.discarded: point.rate for point in curve if point.errors >= LEAST_ERRORS}
    rows = [(100 * k / curve[0].shots, r.value, r.low, r.high) for k, r in rates.items()]
    return np.array(rows).reshape(-1, 4).T
