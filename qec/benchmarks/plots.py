"""The figure of `qec benchmark`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from qec.support.figures import save_figure

if TYPE_CHECKING:
    from qec.benchmarks.decoding_time import Timing


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
