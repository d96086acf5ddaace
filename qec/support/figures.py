"""What the figures of all commands share: colours of decoders, markers, legends, files."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from qec.support.files import atomic_path
from qec.support.process_pool import available_cores
from qec.support.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DECODERS = {
    "pymatching": "#000000",
    "pymatching-css": "#0072B2",
    "pymatching-correlated-css": "#D55E00",
    "matching-cascade": "#009E73",
    "matching-cascade-ensemble": "#CC79A7",
    "predecoder+pymatching": "#56B4E9",
    "predecoder+matching-cascade": "#E69F00",
    "belief-matching": "#8000E0",
    "pymatching-correlated": "#602000",
    "pymatching-memory-css": "#002080",
    "matching-cascade-beliefs": "#A0C060",
}
PALETTE = tuple(_DECODERS.values())
"""Colours that stay apart for colour-blind readers.

The first seven are those of Okabe and Ito (https://jfly.uni-koeln.de/color/) without yellow, which
is faint on white.  The others were searched for.  A test simulates how readers see them.
"""

MARKERS = "osD^vPX"


def decoder_colors(names: Iterable[str]) -> dict[str, str]:
    """A colour for each decoder; figures that get the same names show the same colours.

    Decoders with a colour of their own have it in all figures of all commands.  The others, among
    them those with a named network (``predecoder[small]+pymatching``), get the colours that are
    left, in their order, and share them where there are too few.
    """
    colors = {name: _DECODERS.get(name) for name in names}
    left = itertools.cycle([c for c in PALETTE if c not in colors.values()] or PALETTE)
    return {name: color or next(left) for name, color in colors.items()}


def legend_below(figure: Figure, caption: str = "") -> None:
    """One legend for all panels, below them; a label that several panels have is listed once."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        found, labels = axes.get_legend_handles_labels()
        for label, handle in zip(labels, found, strict=True):
            handles.setdefault(label, handle)
    width = figure.get_figwidth()
    longest = max(map(len, handles), default=1)
    figure.legend(
        list(handles.values()),
        list(handles),
        title=textwrap.fill(caption, int(14 * width)),
        loc="outside lower left",
        ncols=min(max(int(width / (0.075 * longest + 0.6)), 1), len(handles) or 1),
        alignment="left",
        fontsize="small",
        title_fontsize="small",
        frameon=False,
    )


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes name.png, of 256 colours, and name.svg.

    Raises:
        QecError: the folder cannot be written to.
    """
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    for path in paths:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
            if path.suffix == ".png":  # a third of the size
                with Image.open(temporary) as image:
                    # Median cut would merge colours of thin lines.
                    small = image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE)
                small.save(temporary, format="PNG", optimize=True)
    return paths


def error_bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Lengths of the intervals below and above the values, as matplotlib wants them."""
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]


def machine(processes: int) -> str:
    """What times were measured on: ``2 processes on 4 cores``."""
    plural = "process" if processes == 1 else "processes"
    return f"{processes} {plural} on {len(available_cores())} cores"
