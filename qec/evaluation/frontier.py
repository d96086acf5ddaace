"""The figure of what decoders cost and what they gain: logical error rate against decoding time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter

from qec.decoding.decoder_names import PEERS, has_predecoder
from qec.evaluation.sweep_table import SweepRow, describe
from qec.support.figures import decoder_colors, error_bars, legend_below, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKERS = "oD^vP*X"
_PEER_MARKERS = "oDh^v<>p"


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
    colors = decoder_colors(row.decoder for row in rows)
    size = (max(3.2 * len(columns) + 0.5, 6.4), 3.2 * len(lines) + 1.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(lines), len(columns), squeeze=False, sharey="row")
    for axes_line, rest in zip(grid, lines, strict=True):
        axes_line[0].set_ylabel("logical error rate per round")
        for axes, column in zip(axes_line, columns, strict=True):
            members = panels.get((rest, column), [])
            if not members:
                axes.set_axis_off()
                continue
            _draw(axes, members, colors)
            shots, r = members[0].shots, members[0].metadata["r"]
            distance = f"d = {column}" if isinstance(column, int) else column
            axes.set_title(f"{distance}, R = {r}, {shots:,} shots", fontsize="medium")
            if len(lines) > 1:
                axes.annotate(rest, (0.02, 0.02), xycoords="axes fraction", fontsize="x-small")
    for axes in grid[-1]:
        axes.set_xlabel("decoding time, \N{MICRO SIGN}s per round")
    figure.suptitle("What accuracy costs" + (f": {lines[0]}" if len(lines) == 1 else ""))
    below = " (an arrow: no errors)" if any(not row.errors for row in rows) else ""
    peers = " Hollow: decoders of other packages." if colors.keys() & PEERS.keys() else ""
    caption = (
        f"Lower left is better. Bars: 95 % intervals{below}. CPU time of one core ({machine}); the "
        "decoders of a panel took turns on the same shots. Grey: no other one is both faster and "
        f"more accurate.{peers}"
    )
    legend_below(figure, caption)
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


def _draw(axes: Axes, rows: Sequence[SweepRow], colors: Mapping[str, str]) -> None:
    """Draws the decoders of one grid point; ``colors`` are those of all decoders."""
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
            **_style(row.decoder, colors),
            markersize=6,
            linestyle="none",
            capsize=3,
            linewidth=1.2,
            label=row.decoder,
        )
    axes.set(xscale="log", yscale="log")
    low, high = axes.get_xlim()
    few = (1, 2, 5) if high < 300 * low else (1,)  # more labels would overlap
    axes.xaxis.set_major_locator(LogLocator(subs=few))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize="small")
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(2, 0.5)))
    axes.tick_params(which="minor", labelsize="x-small")
    axes.grid(True, which="both", linewidth=0.3)


def _style(decoder: str, colors: Mapping[str, str]) -> dict[str, Any]:
    """Colour and marker: squares have a network, hollow ones are of other packages."""
    color = colors[decoder]
    if decoder in PEERS:
        marker = _PEER_MARKERS[list(PEERS).index(decoder)]
        return {"color": color, "marker": marker, "markerfacecolor": "white"}
    if has_predecoder(decoder):
        return {"color": color, "marker": "s"}
    return {"color": color, "marker": _MARKERS[list(colors).index(decoder) % len(_MARKERS)]}
