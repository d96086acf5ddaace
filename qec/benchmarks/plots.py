"""The figure of `qec benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from qec.support.figures import PALETTE, legend_below, save_figure

if TYPE_CHECKING:
    from qec.benchmarks.decoding_time import Timing


_SHOWN = {
    **{"d": "d", "r": "R", "p": "p", "noise": "noise", "b": "basis"},
    **{"batch": "shots at a time", "threads": "threads"},
}
"""What figures say of a case, and in which words."""


def plot_steps(timings: Sequence[Timing], folder: Path, machine: str) -> list[Path]:
    """Writes steps.png and steps.svg: time per round of each step, stacked, a bar per decoder.

    Raises:
        QecError: the folder cannot be written to.
    """
    varied = [k for k in _SHOWN if len({str(t.metadata.get(k)) for t in timings}) > 1]
    networks = [t.network for t in timings if t.network]
    several = {k for n in networks for k in n if any(n[k] != m[k] for m in networks)}
    labels = [
        ", ".join(
            [*(_said(t, k) for k in varied), t.decoder]
            + [value for key, value in t.network.items() if key in several]
        )
        for t in timings
    ]
    fixed = [_said(timings[0], k) for k in _SHOWN if k not in varied]
    figure = Figure(figsize=(8, 1.8 + 0.28 * len(timings)), layout="constrained")
    axes = figure.subplots()
    left = np.zeros(len(timings))
    for step, color in zip(timings[0].steps, PALETTE[1:], strict=False):
        width = np.array([t.steps[step] for t in timings])
        bars = axes.barh(labels, width, left=left, color=color, label=step)
        left += width
    axes.bar_label(bars, [f"{t.total:.3g}" for t in timings], padding=3, fontsize="small")
    axes.margins(x=0.08)
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    axes.set_xlabel("decoding time, \N{MICRO SIGN}s per round")
    axes.grid(True, axis="x", linewidth=0.3)
    figure.suptitle(f"{', '.join(fixed)}\n{machine}", fontsize="medium")
    legend_below(figure)
    return save_figure(figure, folder, "steps")


def _said(timing: Timing, key: str) -> str:
    return f"{_SHOWN[key]} = {timing.metadata.get(key)}"
