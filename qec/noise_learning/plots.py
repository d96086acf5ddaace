"""The figures of `qec learn-noise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from scipy.stats import norm

from qec.noise_learning.drift import alarm_threshold
from qec.noise_learning.error_structure import detector_coordinates
from qec.support.figures import PALETTE, legend_below, save_figure
from qec.support.statistics import CONFIDENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from qec.noise_learning.drift import DriftUpdate
    from qec.noise_learning.error_structure import ErrorStructure
    from qec.noise_learning.estimator import NoiseEstimate

_PRIOR = "structure's own"


def plot_rates(
    estimate: NoiseEstimate, reference: ErrorStructure | None, title: str, folder: Path
) -> list[Path]:
    """Writes rates.png and rates.svg: learned probabilities of the mechanisms, and where they are.

    Left, every mechanism against the reference, or against the structure's own where there is
    none.  Right, where detectors have coordinates, maps of the device: the strength at a place is
    the sum of -ln(1 - 2 p) over the mechanisms that flip the detectors there, of all rounds.

    Args:
        estimate: what was learned.
        reference: the true rates, if they are known.
        title: what they are of.
        folder: where to.

    Raises:
        QecError: the folder cannot be written to.
    """
    structure = estimate.structure
    rates = {"learned": estimate.x, _PRIOR: structure.x}
    quotients = [("learned", _PRIOR)]
    if reference is not None:
        rates["reference"] = reference.x
        quotients = [("reference", _PRIOR), ("learned", _PRIOR), ("learned", "reference")]
    where = detector_coordinates(structure.model)
    maps = 0 if where is None else len(quotients)
    figure = Figure(figsize=(4.6 + 2.7 * maps, 4.4), layout="constrained")
    scatter, *lattices = figure.subplots(
        1, 1 + maps, width_ratios=[1.6, *maps * [1]], squeeze=False
    )[0]
    _draw_rates(scatter, estimate, rates, quotients[-1][1])
    if where is not None:
        places, which = np.unique(where[:, :2], axis=0, return_inverse=True)
        sums = {name: np.bincount(which.ravel(), structure.sets.T @ x) for name, x in rates.items()}
        _draw_maps(
            figure, lattices, places, {f"{a}\nover {b}": sums[a] / sums[b] for a, b in quotients}
        )
    figure.suptitle(f"{title}, method {estimate.method}, {estimate.shots:,.0f} effective shots")
    legend_below(figure, "Mechanisms that flip so many detectors, with 95 % intervals.")
    return save_figure(figure, folder, "rates")


def _draw_rates(
    axes: Axes, estimate: NoiseEstimate, rates: dict[str, np.ndarray], other: str
) -> None:
    size, against = estimate.structure.size, -np.expm1(-rates[other]) / 2
    half = norm.ppf((1 + CONFIDENCE) / 2) * estimate.probability_error
    for color, k in zip(PALETTE[1:], np.unique(size), strict=False):
        same = (size == k) & (against > 0)
        axes.errorbar(
            against[same],
            estimate.probability[same],
            yerr=half[same],
            color=color,
            marker=".",
            markersize=4,
            linestyle="none",
            elinewidth=0.4,
            label="1 detector" if k == 1 else f"{k} detectors",
        )
    ends = np.array([against[against > 0].min(), against.max()])
    axes.plot(ends, ends, color="black", linewidth=0.8, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel=f"probability, {other}")
    axes.set_ylabel("probability, learned")
    axes.grid(True, linewidth=0.3)


def _draw_maps(
    figure: Figure, lattices: Sequence[Axes], places: np.ndarray, maps: dict[str, np.ndarray]
) -> None:
    """Maps of one colour scale around 1, in logarithms."""
    reach = max(1.05, *(np.exp(np.abs(np.log(values)).max()) for values in maps.values()))
    for axes, (name, values) in zip(lattices, maps.items(), strict=True):
        drawn = axes.scatter(
            places[:, 0],
            places[:, 1],
            s=(90 / (1 + np.sqrt(len(places)))) ** 2,  # points: panels are two inches wide
            c=values,
            cmap="PuOr_r",
            norm=LogNorm(1 / reach, reach),
            edgecolors="0.3",
            linewidths=0.4,
        )
        axes.set_title(f"{name}: {values.min():.2f} to {values.max():.2f}", fontsize="small")
        axes.set(aspect="equal", xlabel="x", ylabel="y")
        axes.margins(0.12)
        axes.invert_yaxis()
    bar = figure.colorbar(drawn, ax=lattices, shrink=0.7, label="ratio of strengths per place")
    bar.set_ticks(
        ticks := np.geomspace(1 / reach, reach, 7).tolist(), labels=[f"{x:.2f}" for x in ticks]
    )
    bar.ax.yaxis.set_minor_locator(NullLocator())


_MOST_LINES = 8  # parameters whose drift is drawn
_ALARM = PALETTE[2]


def plot_drift(looks: Sequence[DriftUpdate], title: str, folder: Path) -> list[Path]:
    """Writes drift.png and drift.svg: event rate, alarms and strengths of parameters over shots.

    Only the parameters that changed most are drawn.

    Raises:
        QecError: the folder cannot be written to.
    """
    figure = Figure(figsize=(8, 7.5), layout="constrained")
    rate, score, strength = figure.subplots(3, 1, sharex=True, height_ratios=[2, 2, 3])
    shots = [look.shots for look in looks]
    rate.plot(shots, [look.event_rate for look in looks], color="black", marker=".", linewidth=1)
    rate.set_ylabel("detection events\nper detector")
    threshold = alarm_threshold(looks[0].estimate.structure.num_detectors)
    score.plot(
        shots[1:], [look.score for look in looks[1:]], color="black", marker=".", linewidth=1
    )
    label = f"alarm threshold, {threshold:.1f}"
    score.axhline(threshold, color=_ALARM, linestyle="--", linewidth=1, label=label)
    score.set_ylabel("largest change of a\ndetector's rate, std. dev.")
    score.set_ylim(bottom=0)
    parameters = [look.estimate.parameters for look in looks]
    table = {name: [found[name] for found in parameters] for name in parameters[0]}
    logs = {name: np.log(values) for name, values in table.items()}
    most = sorted(logs, key=lambda name: -np.ptp(logs[name]))[:_MOST_LINES]
    colors = [color for color in PALETTE if color != _ALARM]
    for name, color in zip(most, colors, strict=False):
        strength.plot(shots, table[name], color=color, linewidth=1, label=name)
    strength.set(
        yscale="log", xlabel="shots", ylabel="strength of a parameter\nover the structure's"
    )
    strength.yaxis.set_major_locator(MaxNLocator(8))
    strength.yaxis.set_major_formatter("{x:g}")
    strength.yaxis.set_minor_locator(NullLocator())
    alarms = [look.shots for look in looks if len(look.changed)]
    for axes in (rate, score, strength):
        axes.grid(True, linewidth=0.3)
        for at in alarms:
            axes.axvline(at, color=_ALARM, linewidth=2, alpha=0.6, zorder=0, label="alarm")
    figure.suptitle(title, fontsize="medium")
    legend_below(figure, f"Strengths: the {len(most)} parameters that changed most.")
    return save_figure(figure, folder, "drift")
