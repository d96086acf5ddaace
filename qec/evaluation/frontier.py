"""The figure of what decoders cost and what they gain: logical error rate against decoding time."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation

from qec.decoding.decoder_names import PEERS, has_predecoder
from qec.evaluation.sweep_table import SweepRow, describe
from qec.support.figures import error_bars, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "oD^vP*X"
_PEER_MARKERS = "oDh^v<>p"
_PACKAGE_COLORS = ("black", "teal", "darkgoldenrod", "firebrick")


def plot_frontier(rows: Sequence[SweepRow], folder: Path, machine: str) -> list[Path]:
    """Writes frontier.png and frontier.svg, with 95 % intervals; a panel per grid point.

    Distances stand side by side, everything else that varies below each other.  The decoders of a
    panel took turns on the same shots in the same process, so their times compare.  The grey stairs
    lead over those that no other one beats in both.

    Args:
        rows: of one sweep, not empty.
        folder: where to.
        machine: what the times were measured on.

    Raises:
        QecError: the folder cannot be written to.
    """
    panels: dict[tuple[str, object], list[SweepRow]] = {}
    for row in rows:
        panels.setdefault((_rest(row), _column(row)), []).append(row)
    lines = list(dict.fromkeys(rest for rest, _ in panels))
    columns = sorted({column for _, column in panels}, key=lambda c: (isinstance(c, str), c))
    names = list(dict.fromkeys(row.decoder for row in rows))
    size = (max(3.2 * len(columns) + 0.5, 6.4), 3.2 * len(lines) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(lines), len(columns), squeeze=False)
    for axes_line, rest in zip(grid, lines, strict=True):
        axes_line[0].set_ylabel("logical error rate per round")
        for axes, column in zip(axes_line, columns, strict=True):
            members = panels.get((rest, column), [])
            if not members:
                axes.set_axis_off()
                continue
            _draw(axes, members, names)
            shots, r = members[0].shots, members[0].metadata["r"]
            distance = f"d = {column}" if isinstance(column, int) else column
            axes.set_title(f"{distance}, R = {r}, {shots:,} shots", fontsize="medium")
            if len(lines) > 1:
                axes.annotate(rest, (0.02, 0.02), xycoords="axes fraction", fontsize="x-small")
    for axes in grid[-1]:
        axes.set_xlabel("decoding time, \N{MICRO SIGN}s per round")
    figure.suptitle("What accuracy costs" + (f": {lines[0]}" if len(lines) == 1 else ""))
    below = " (an arrow: no errors)" if any(not row.errors for row in rows) else ""
    peers = " Hollow: decoders of other packages." if set(names) & PEERS.keys() else ""
    caption = (
        f"Lower left is better. Bars: 95 % intervals{below}. CPU time of one core ({machine}); the "
        "decoders of a panel took turns on the same shots. Grey: no other one is both faster and "
        f"more accurate.{peers}"
    )
    _legend(
        figure, names, columns=max(2, len(columns)), title=textwrap.fill(caption, int(14 * size[0]))
    )
    return save_figure(figure, folder, "frontier")


def microseconds_per_round(row: SweepRow) -> float:
    """Decoding time, pre-decoder and matching together."""
    return (row.predecode_ns + row.match_ns) / (1000 * row.shots * row.metadata["r"])


def _column(row: SweepRow) -> int | str:
    return Path(row.metadata["circuit"]).stem if "circuit" in row.metadata else row.metadata["d"]


def _rest(row: SweepRow) -> str:
    """What tells the panels of one distance apart."""
    relative = row.metadata["r"] != row.metadata["d"] and "circuit" not in row.metadata
    return describe(row.metadata) + (f", R = {row.metadata['r']}" if relative else "")


def _legend(figure: Figure, names: Sequence[str], columns: int, title: str) -> None:
    """One for all panels, below them."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    shown = [name for name in names if name in handles]
    figure.legend(
        [handles[name] for name in shown],
        shown,
        title=title,
        loc="outside lower left",
        ncols=columns,
        alignment="left",
        fontsize="small",
        title_fontsize="small",
        frameon=False,
    )


def _draw(axes: Axes, rows: Sequence[SweepRow], names: Sequence[str]) -> None:
    """Draws the decoders of one grid point; ``names`` are those of all, for their styles."""
    rows = [row for row in rows if microseconds_per_round(row) > 0]
    best, line = float("inf"), []
    for row in sorted(rows, key=microseconds_per_round):
        if 0 < row.per_round.value < best:
            best = row.per_round.value
            line.append((microseconds_per_round(row), best))
    if line:
        style: dict[str, Any] = {
            "color": "0.8",
            "linewidth": 3,
            "zorder": 1,
            "drawstyle": "steps-post",
        }
        axes.plot(*zip(*line, strict=True), **style)
    for row in rows:
        rate = row.per_round
        if row.errors:
            where, bars = rate.value, error_bars([rate])
        else:  # all that is known is that it is below
            where, bars = rate.high, [[rate.high / 3], [0]]
        axes.errorbar(
            [microseconds_per_round(row)],
            [where],
            yerr=bars,
            uplims=not row.errors,
            **_style(row.decoder, names),
            markersize=6,
            linestyle="none",
            capsize=3,
            linewidth=1.2,
            label=row.decoder,
        )
    axes.set(xscale="log", yscale="log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x < 1e4 else f"$10^{np.log10(x):.0f}$")
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    axes.tick_params(which="minor", labelsize="x-small")
    axes.grid(True, which="both", linewidth=0.3)


def _style(decoder: str, names: Sequence[str]) -> dict[str, Any]:
    """Colour and marker, by the place in ``names``; peers are hollow, of their package's colour."""
    if decoder in PEERS:
        packages = list(dict.fromkeys(PEERS.values()))
        return {
            "color": _PACKAGE_COLORS[packages.index(PEERS[decoder])],
            "marker": _PEER_MARKERS[list(PEERS).index(decoder)],
            "markerfacecolor": "white",
        }
    k = [name for name in names if name not in PEERS].index(decoder)
    marker = "s" if has_predecoder(decoder) else _MARKERS[k % len(_MARKERS)]
    return {"color": f"C{k % 10}", "marker": marker}
