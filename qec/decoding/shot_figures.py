"""The figures of `qec draw`: a shot in space-time as one picture, and as a strip of its steps.

The projection keeps layers apart: x runs to the right, y to the right and up, time up.  Colours are
those of Okabe and Ito, which the colour-blind can tell apart; marker and line style say the same
without colour.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from qec.decoding.drawn_shot import DrawnShot, edge_count
from qec.support.figures import save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEMORY_COLOUR, OTHER_COLOUR = "#D55E00", "#56B4E9"
COMMITTED_COLOUR, MATCHED_COLOUR, ERROR_COLOUR = "#009E73", "#0072B2", "#F0E442"
LOGICAL_COLOUR, QUIET_COLOUR = "#CC79A7", "#999999"

_SHEAR, _RISE = 0.42, 0.30  # to the right and up, of one site in y
_LARGEST, _TALLEST, _WIDEST = 0.62, 9.0, 2.03  # inches: of a site, of a picture, of a panel's
_MARGIN = 0.45  # inches, at the left of a picture, for the numbers of layers
_NUMBER = 0.17  # inches, the height of such a number
_MEMORY_MARK = {"marker": "o", "markerfacecolor": MEMORY_COLOUR, "markeredgecolor": "black"}
_OTHER_MARK = {"marker": "D", "markerfacecolor": OTHER_COLOUR, "markeredgecolor": "black"}
_LEFT_MARK = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": "black"}
_QUIET_MEMORY = {"marker": "o", "markerfacecolor": "white", "markeredgecolor": QUIET_COLOUR}
_QUIET_OTHER = {"marker": "D", "markerfacecolor": "white", "markeredgecolor": QUIET_COLOUR}
_QUBIT_MARK: dict[str, Any] = {"marker": "o", "markerfacecolor": "black", "markeredgecolor": "none"}
_ERROR_LINE = {"color": ERROR_COLOUR, "linewidth": 7.0, "zorder": 2, "capstyle": "round"}
_COMMITTED_LINE = {"color": COMMITTED_COLOUR, "linewidth": 2.6, "zorder": 4}
_MATCHED_LINE = {"color": MATCHED_COLOUR, "linewidth": 2.2, "linestyle": (0, (2, 1)), "zorder": 5}
_LOGICAL_LINE: dict[str, Any] = {"color": LOGICAL_COLOUR, "linewidth": 2.2, "linestyle": "-."}


def draw_space_time(shot: DrawnShot, folder: Path) -> list[Path]:
    """Writes shot.png and shot.svg: everything of one shot in one picture.

    Raises:
        QecError: the folder cannot be written to.
    """
    picture = _Picture(shot, widest=np.inf)
    width, height = picture.inches
    figure = Figure(figsize=(width + 3.4, height + 1.1), layout="constrained")
    axes = figure.subplots()
    picture.background(axes, patch=True)
    picture.detectors(axes)
    if shot.errors is not None:
        picture.edges(axes, shot.errors, _ERROR_LINE)
    picture.edges(axes, shot.committed, _COMMITTED_LINE)
    picture.edges(axes, shot.matched, _MATCHED_LINE)
    picture.events(axes, shot.events)
    if shot.network is not None:
        picture.marks(axes, shot.memory & (shot.residual > 0), _LEFT_MARK, 12)
    figure.legend(handles=_legend(shot, left=True), loc="outside right center", frameon=False)
    figure.suptitle(
        "\n".join([*_heads(shot), ", ".join(filter(None, shot.verdict))]), fontsize="medium"
    )
    return save_figure(figure, folder, "shot")


def draw_pipeline(shot: DrawnShot, folder: Path) -> list[Path]:
    """Writes pipeline.png and pipeline.svg: the steps of a decoder, side by side.

    Raises:
        QecError: the folder cannot be written to.
    """
    picture = _Picture(shot, widest=_WIDEST)
    figure = Figure(figsize=(13, picture.inches[1] + 1.6), layout="constrained")
    panels = figure.subplots(1, 5)
    memory, left = shot.memory, shot.memory & (shot.residual > 0)
    for axes in panels:
        picture.background(axes, patch=axes is panels[0])
    picture.detectors(panels[0])
    for axes in panels[1:3]:
        picture.events(axes, shot.events)
    for axes in panels[3:]:
        picture.marks(axes, memory & (shot.events > 0) & ~left, _QUIET_MEMORY, 5)
        picture.marks(axes, left, _MEMORY_MARK, 7)
    if shot.errors is not None:
        picture.edges(panels[1], shot.errors, _ERROR_LINE)
    picture.edges(panels[2], shot.committed, _COMMITTED_LINE)
    picture.edges(panels[4], shot.matched, _MATCHED_LINE)
    for axes, title in zip(panels, _titles(shot), strict=True):
        axes.set_title(title, fontsize="medium")
    figure.suptitle("\n".join(_heads(shot)))
    handles = _legend(shot, left=False)
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncol=(len(handles) + 1) // 2,
        fontsize="small",
        frameon=False,
    )
    return save_figure(figure, folder, "pipeline")


def _titles(shot: DrawnShot) -> list[str]:
    memory, other = shot.memory, shot.other
    count, left = int(shot.events[memory].sum()), int(shot.residual[memory].sum())
    errors = "" if shot.errors is None else "errors and "
    commits = "no network" if shot.network is None else "committed by the network"
    lines = [
        (
            "1. lattice",
            f"{memory.sum()} detectors of memory checks",
            f"{other.sum()} of the others",
        ),
        (
            f"2. {errors}detection events",
            f"{count} of memory checks",
            f"{shot.events[other].sum()} of the others",
        ),
        (f"3. {commits}", edge_count(shot.committed), ""),
        ("4. residual", f"{left} of {count} events", "of memory checks"),
        (f"5. matching, {edge_count(shot.matched)}", *shot.verdict),
    ]
    return ["\n".join(panel) for panel in lines]


def _heads(shot: DrawnShot) -> tuple[str, str]:
    lattice = shot.lattice
    return f"{lattice}, R = {lattice.rounds}, {shot.title}", shot.steps


def _legend(shot: DrawnShot, left: bool) -> list[Line2D]:
    """Handles of what is drawn; ``left``: residual events are rings."""

    def mark(label: str, style: dict, size: float) -> Line2D:
        return Line2D([], [], linestyle="", label=label, markersize=size, **style)

    def line(label: str, style: dict) -> Line2D:
        kept = {key: style[key] for key in ("color", "linewidth", "linestyle") if key in style}
        return Line2D([], [], label=label, **kept)

    handles = [
        mark("data qubit", _QUBIT_MARK, 3),
        mark("detector of a memory check", _QUIET_MEMORY, 4),
        mark("detector of another check", _QUIET_OTHER, 4),
        mark("event of a memory check", _MEMORY_MARK, 8),
        mark("event of another check (not matched)", _OTHER_MARK, 6),
    ]
    if left and shot.network is not None:
        handles.append(mark("event left by the network", _LEFT_MARK, 12))
    if shot.errors is not None:
        handles.append(line("edge of an error that happened", _ERROR_LINE))
    if shot.network is not None:
        handles.append(line("edge committed by the network", _COMMITTED_LINE))
    handles.append(line("edge of matching", _MATCHED_LINE))
    handles.append(line("logical observable", _LOGICAL_LINE))
    return handles


class _Picture:
    """Draws parts of a shot, projected on the page.

    Args:
        widest: inches that it may be wide.

    Attributes:
        inches: float64 (2,), width and height.
    """

    def __init__(self, shot: DrawnShot, widest: float) -> None:
        self._shot = shot
        # One site is one unit, whatever the unit of the circuit's coordinates.
        self._unit = np.sqrt(abs(np.linalg.det(shot.lattice.frame.matrix)))
        self._layer = 0.0
        self._layer = float(np.ptp(self._sheet(0)[:, 1])) + 0.05  # layers do not overlap
        corners = np.concatenate([self._sheet(0), self._sheet(shot.lattice.rounds)])
        self._low, self._high = corners.min(axis=0), corners.max(axis=0)
        size = self._high - self._low
        self._site = float(min(_LARGEST, widest / size[0], _TALLEST / size[1]))  # inches
        self._scale = min(1.2, max(0.3, 2.9 * self._site))  # of markers and lines
        self.inches = self._site * size + [_MARGIN + 0.1, 0.2]

    def _project(self, places: np.ndarray) -> np.ndarray:
        """(..., 3), x, y and layer -> (..., 2)."""
        x, y, t = np.moveaxis(places * [self._unit, self._unit, 1.0], -1, 0)
        return np.stack([x + _SHEAR * y, _RISE * y + self._layer * t], axis=-1)

    def _sheet(self, layer: int) -> np.ndarray:
        """The corners of a layer."""
        rows, cols = self._shot.lattice.shape
        corners = self._shot.at(np.array([0, 0, rows, rows]), np.array([0, cols, cols, 0]), layer)
        return self._project(corners)

    def background(self, axes: Axes, patch: bool) -> None:
        """The layers with the axis of time, and the checks and the observable in the first one."""
        rounds = self._shot.lattice.rounds
        # So many layers that their numbers do not overlap.
        step = int(np.ceil(_NUMBER / (self._layer * self._site)))
        for layer in range(rounds + 1):
            sheet = self._sheet(layer)
            style: dict[str, Any] = {"edgecolor": "0.82", "linewidth": 0.6, "zorder": 0}
            axes.add_patch(Polygon(sheet, facecolor="0.97", **style))
            if layer % step == 0:
                self._beside(axes, sheet, f"{layer}")
        above = np.array([0, 0.9 * _NUMBER / self._site])
        self._beside(axes, self._sheet(rounds) + above, "layer")
        if patch:
            self._patch(axes)
        axes.set_aspect("equal", anchor="S")
        axes.set_axis_off()
        axes.set_xlim(self._low[0] - _MARGIN / self._site, self._high[0] + 0.1 / self._site)
        axes.set_ylim(self._low[1] - 0.1 / self._site, self._high[1] + 0.1 / self._site)

    def _beside(self, axes: Axes, sheet: np.ndarray, text: str) -> None:
        """Writes to the left of a layer."""
        style: dict[str, Any] = {"ha": "right", "va": "center", "color": "0.4", "fontsize": "small"}
        x, y = sheet[np.argmin(sheet[:, 0])]
        axes.text(x - 0.06 / self._site, y, text, **style).set_in_layout(False)

    def _patch(self, axes: Axes) -> None:
        lattice, at = self._shot.lattice, self._shot.at
        rows, cols = lattice.shape
        for sites, colour in zip(lattice.check_sites, (MEMORY_COLOUR, OTHER_COLOUR), strict=True):
            for row, col in np.argwhere(sites):
                # The four data qubits around it; where there is none, the check itself.
                r = row + np.array([-0.5, -0.5, 0.5, 0.5])
                c = col + np.array([-0.5, 0.5, 0.5, -0.5])
                there = (r > 0) & (r < rows) & (c > 0) & (c < cols)
                corners = at(np.where(there, r, row), np.where(there, c, col), 0)
                corners = self._project(corners)
                axes.add_patch(Polygon(corners, facecolor=colour, alpha=0.25, zorder=1))
        row, col = np.indices(lattice.shape).reshape(2, -1) + 0.5
        size = 2 * self._scale
        axes.plot(*self._project(at(row, col, 0)).T, linestyle="", markersize=size, **_QUBIT_MARK)
        support = np.argwhere(lattice.logical_support) + 0.5
        line = self._project(at(support[:, 0], support[:, 1], 0))
        axes.plot(*line.T, zorder=3, **_LOGICAL_LINE)

    def detectors(self, axes: Axes) -> None:
        """Every detector, small."""
        self.marks(axes, self._shot.memory, _QUIET_MEMORY, 3, zorder=3)
        self.marks(axes, self._shot.other, _QUIET_OTHER, 3, zorder=3)

    def events(self, axes: Axes, events: np.ndarray) -> None:
        """Detection events, uint8 (num_detectors,), of both check types."""
        self.marks(axes, self._shot.memory & (events > 0), _MEMORY_MARK, 7)
        self.marks(axes, self._shot.other & (events > 0), _OTHER_MARK, 5)

    def marks(
        self, axes: Axes, which: np.ndarray, style: dict, size: float, zorder: float = 6
    ) -> None:
        """A marker at some detectors, bool (num_detectors,)."""
        points = self._project(self._shot.places[which])
        size *= self._scale
        edge = min(self._scale, 1)
        axes.plot(
            *points.T,
            linestyle="",
            markersize=size,
            markeredgewidth=edge,
            zorder=zorder,
            **style,
        )

    def edges(self, axes: Axes, edges: np.ndarray, style: dict) -> None:
        """Lines along edges, int64 (k, 2)."""
        lines = LineCollection(list(self._project(self._shot.segments(edges))), **style)
        lines.set_linewidth(style["linewidth"] * min(self._scale, 1))
        axes.add_collection(lines)
