"""The drawings of docs/concepts.md: `python docs/draw_concepts.py` writes docs/drawings/*.svg."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle

from qec import RotatedSurfaceCode

FOLDER = Path(__file__).parent / "drawings"
BLUE, ORANGE, GREEN, GREY, RED = "#0072B2", "#E69F00", "#009E73", "#999999", "#D55E00"
plt.rcParams |= {"font.size": 9, "svg.hashsalt": "qec", "svg.fonttype": "path"}


def canvas(width: float, height: float, panels: int = 1) -> tuple[plt.Figure, list[Axes]]:
    figure, axes = plt.subplots(1, panels, figsize=(width, height), squeeze=False)
    for a in axes[0]:
        a.set_axis_off()
        a.set_aspect("equal")
    return figure, list(axes[0])


def save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def node(axes: Axes, x: float, y: float, fired: bool, text: str = "") -> None:
    face = RED if fired else "white"
    axes.plot(x, y, "o", markersize=11, markerfacecolor=face, markeredgecolor="black", zorder=3)
    if text:
        axes.annotate(text, (x, y), (0, -16), textcoords="offset points", ha="center", fontsize=8)


def line(axes: Axes, start: tuple, end: tuple, **style: object) -> None:
    axes.plot(
        *zip(start, end, strict=True), **({"color": GREY, "linewidth": 1, "zorder": 1} | style)
    )


def lattice() -> None:
    """The code: qubits, checks, the logical operator; and its detectors in space-time."""
    figure, (left, right) = canvas(8, 3.6, 2)
    code = RotatedSurfaceCode(5)
    data = set(code.data_coords())
    for basis, colour in (("X", BLUE), ("Z", ORANGE)):
        for x, y in code.check_coords(basis):
            corners = [(x + i, y + j) for i, j in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
            corners = [at if at in data else (x, y) for at in corners]
            left.add_patch(Polygon(corners, facecolor=colour, alpha=0.35))
    left.plot(*zip(*data, strict=True), "o", color="black", markersize=4)
    logical = sorted(code.logical_coords("X"))
    line(left, logical[0], logical[-1], color=GREEN, linewidth=3)
    text = "data qubits (dots), X checks (blue),\nZ checks (orange), a logical X (green)"
    left.set_title(text, fontsize=9, y=-0.2)
    for t in range(4):
        for k in range(4):
            x, y = k + 0.35 * t, 1.1 * t
            node(right, x, y, (t, k) in ((1, 1), (2, 1)))
            if k < 3:
                line(right, (x, y), (x + 1, y))
            if t < 3:
                line(right, (x, y), (x + 0.35, y + 1.1))
    right.annotate("", (4.6, 3.3), (4.6, 0), arrowprops={"arrowstyle": "->"})
    right.text(4.75, 1.6, "rounds")
    text = "a detector compares a check with the round before:\na wrong measurement fires two (red)"
    right.set_title(text, fontsize=9, y=-0.2)
    right.set(xlim=(-0.5, 5.8), ylim=(-0.4, 3.8))
    save(figure, "lattice")


def edges() -> None:
    """A mechanism that flips checks of both bases is an edge in each."""
    figure, axes = canvas(8, 2.2, 2)
    for a, split in zip(axes, (False, True), strict=True):
        places = {"X1": (0, 1), "X2": (2, 1), "Z1": (0, 0), "Z2": (2, 0)}
        for name, (x, y) in places.items():
            node(a, x, y, True, name)
        if split:
            line(a, places["X1"], places["X2"], color=BLUE, linewidth=3)
            line(a, places["Z1"], places["Z2"], color=ORANGE, linewidth=3)
            a.text(
                1,
                -0.85,
                "basis split: an edge of X, one of Z checks;\ncorrelated matching uses both",
                ha="center",
            )
        else:
            a.add_patch(
                Polygon([*list(places.values())[:2], (2, 0), (0, 0)], color=GREY, alpha=0.4)
            )
            a.text(
                1,
                -0.85,
                "a Y error fires four detectors: one mechanism,\nprobability p, no edge",
                ha="center",
            )
        a.set(xlim=(-0.8, 2.8), ylim=(-1.1, 1.3))
    save(figure, "edges")


def residual() -> None:
    """Committed edges flip the events at their ends."""
    figure, (a,) = canvas(8, 2.6)
    rows = (
        ("detection events", (1, 2, 5, 8), ()),
        ("edges that the network commits", (1, 2, 5, 8), ((1, 2),)),
        ("residual: what matching is left with", (5, 8), ()),
        ("matching of the residual", (5, 8), ((5, 6), (6, 7), (7, 8))),
    )
    for k, (text, fired, chosen) in enumerate(rows):
        y = -k
        for x in range(10):
            node(a, x, y, x in fired)
            if x < 9:
                style = (
                    {"color": GREEN if k == 1 else BLUE, "linewidth": 4}
                    if (x, x + 1) in chosen
                    else {}
                )
                line(a, (x, y), (x + 1, y), **style)
        a.text(9.8, y, text, va="center")
    a.set(xlim=(-0.5, 16), ylim=(-3.5, 0.5))
    save(figure, "residual")


def gap() -> None:
    """Two corrections of the same events, one of each logical class."""
    figure, axes = canvas(8, 2.2, 2)
    for a, (pairs, weight, label) in zip(
        axes,
        (
            (((2, 3), (3, 4)), "2 edges of 4 nats: 8 nats", "the lightest correction"),
            (
                ((0, 1), (1, 2), (4, 5)),
                "3 edges of 4 nats: 12 nats",
                "the lightest of the other class",
            ),
        ),
        strict=True,
    ):
        a.add_patch(Rectangle((-0.35, -0.5), 0.35, 1, color=ORANGE, alpha=0.6))
        a.add_patch(Rectangle((5, -0.5), 0.35, 1, color=ORANGE, alpha=0.6))
        for x in range(5):
            line(a, (x, 0), (x + 1, 0))
        for start, end in pairs:
            line(a, (start, 0), (end, 0), color=BLUE, linewidth=4)
        for x in range(1, 5):
            node(a, x, 0, x in (2, 4))
        a.text(2.5, 0.75, label, ha="center")
        a.text(2.5, -1.1, weight, ha="center")
        a.set(xlim=(-0.6, 5.6), ylim=(-1.4, 1.1))
    figure.suptitle(
        "complementary gap: 12 - 8 = 4 nats; 1 of 1 + exp(4) = 56 such predictions is wrong",
        fontsize=9,
        y=0.06,
    )
    save(figure, "gap")


def cascade() -> None:
    """The stages of the pipeline, and what goes on to the next."""
    figure, (a,) = canvas(8.4, 2.8)
    boxes = (
        (0, 0, "detection\nevents", "white"),
        (2.8, 0, "network commits\nsure edges", GREEN),
        (5.8, 0, "memory checks of\nthe residual\nare matched", BLUE),
        (10.4, 1.1, "prediction", "white"),
        (10.4, -1.1, "whole syndrome is\nmatched: corre-\nlated or better", ORANGE),
    )
    for x, y, text, colour in boxes:
        style = {"facecolor": colour, "alpha": 0.3, "edgecolor": "black"}
        a.add_patch(Rectangle((x - 1.2, y - 0.65), 2.4, 1.3, **style))
        a.text(x, y, text, ha="center", va="center", fontsize=8)
    arrows = (
        ((1.2, 0), (1.6, 0), ""),
        ((4.0, 0), (4.6, 0), ""),
        ((7.0, 0.3), (9.2, 1.1), "gap of 10 nats\nor more"),
        ((7.0, -0.3), (9.2, -1.1), "less: in doubt"),
        ((10.4, -0.45), (10.4, 0.45), ""),
    )
    for start, end, text in arrows:
        a.add_patch(FancyArrowPatch(start, end, arrowstyle="->", mutation_scale=12))
        a.text(7.9, 1.15 if end[1] > start[1] else -1.25, text, ha="center", fontsize=8)
    a.set(xlim=(-1.3, 11.7), ylim=(-1.9, 1.9))
    save(figure, "cascade")


def windows() -> None:
    """Sliding and parallel windows: cores, buffers, seams."""
    figure, axes = canvas(8.4, 2.6, 2)
    sliding = [(k, 2 * k, 2, 0, 2) for k in range(4)]
    parallel = [(0, 0, 2, 0, 2), (1, 4, 2, 2, 2), (2, 2, 2, 0, 0), (3, 8, 2, 2, 0), (4, 6, 2, 0, 0)]
    titles = (
        "sliding: one after the other",
        "parallel: blue at the same time, then orange between them",
    )
    for a, rows, title in zip(axes, (sliding, parallel), titles, strict=True):
        for row, start, core, before, after in rows:
            gap_window = a is axes[1] and row in (2, 4)
            colour = ORANGE if gap_window else BLUE
            y = -0.9 * row
            a.add_patch(Rectangle((start, y), core, 0.6, facecolor=colour, alpha=0.7))
            for width, x in ((before, start - before), (after, start + core)):
                a.add_patch(Rectangle((x, y), width, 0.6, facecolor=colour, alpha=0.2))
        a.annotate(
            "",
            (10.5, -0.9 * len(rows) + 0.4),
            (0, -0.9 * len(rows) + 0.4),
            arrowprops={"arrowstyle": "->"},
        )
        a.text(5, -0.9 * len(rows) - 0.3, "rounds", ha="center")
        a.set(xlim=(-0.3, 11), ylim=(-5.2, 0.9))
        a.set_title(title, fontsize=9)
    figure.suptitle(
        "dark: committed core; light: buffer, looked at and dropped", fontsize=9, y=0.04
    )
    save(figure, "windows")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for draw in (lattice, edges, residual, gap, cascade, windows):
        draw()
