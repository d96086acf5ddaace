"""The figures of `qec learn-noise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from qec.support.figures import save_figure

if TYPE_CHECKING:
    from qec.noise_learning.drift import Look
    from qec.noise_learning.estimator import NoiseEstimate


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
        style: dict[str, Any] = {"marker": ".", "markersize": 3, "linestyle": "none"}
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
