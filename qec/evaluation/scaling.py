"""How logical error rates fall with the distance: suppression factors and thresholds."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import curve_fit
from scipy.stats import chi2, norm

from qec.evaluation.sweep_table import SweepRow, describe
from qec.support.statistics import CONFIDENCE, Estimate, independent_ratio
from qec.support.tables import Column, print_table, ratio_text

_LEAST_STRENGTHS, _LEAST_DISTANCES = 3, 2  # with fewer there is nothing to fit
_REJECTED = 0.05  # probability of a larger chi square below which a fit is no description


@dataclasses.dataclass(frozen=True)
class Threshold:
    """The noise strength at which more distance stops helping.

    Attributes:
        p: with the interval of the fit, which knows of sampling alone: small distances cross away
            from the threshold of large ones.
        nu: critical exponent of the fit.
        strengths: smallest and largest p that the fit uses.
        chi_square, freedom: of the fit.
    """

    p: Estimate
    nu: float
    strengths: tuple[float, float]
    chi_square: float
    freedom: int


@dataclasses.dataclass(frozen=True)
class Scaling:
    """One decoder on one kind of noise, basis, orientation and number of rounds.

    Attributes:
        title: what the points have in common, as of ``common_title``.
        decoder: its name.
        suppression: by successive distances (d, d') and by p, Lambda = (eps_d / eps_d')^(2 / (d' -
            d)) of the error rates per round: the factor that two more in distance gain.
        threshold: None where the lines do not cross, or where R / d is not constant.
    """

    title: str
    decoder: str
    suppression: dict[tuple[int, int], dict[float, Estimate]]
    threshold: Threshold | None


def common_title(row: SweepRow, rows: Sequence[SweepRow]) -> str:
    """Basis, noise, orientation and rounds of a row: what a scaling or a panel is of."""
    if "circuit" in row.metadata:
        return describe(row.metadata)
    follows = all(one.metadata["r"] == one.metadata.get("d") for one in rows)
    common = {key: value for key, value in row.metadata.items() if key != "p"}
    return f"{describe(common)}, {'R = d' if follows else 'R = {r}'.format(**common)}"


def scalings(rows: Sequence[SweepRow]) -> list[Scaling]:
    """Of every decoder and kind of point with at least three p and two distances."""
    groups: dict[tuple[str, str], list[SweepRow]] = {}
    for row in rows:
        if "p" in row.metadata:
            groups.setdefault((common_title(row, rows), row.decoder), []).append(row)
    found = []
    for (title, decoder), members in groups.items():
        strengths, distances = ({row.metadata[key] for row in members} for key in ("p", "d"))
        if len(strengths) >= _LEAST_STRENGTHS and len(distances) >= _LEAST_DISTANCES:
            constant = len({row.metadata["r"] / row.metadata["d"] for row in members}) == 1
            threshold = fit_threshold(members) if constant else None
            found.append(Scaling(title, decoder, _suppression(members), threshold))
    return found


def _suppression(rows: Sequence[SweepRow]) -> dict[tuple[int, int], dict[float, Estimate]]:
    by_place = {(row.metadata["d"], row.metadata["p"]): row.per_round for row in rows}
    found: dict[tuple[int, int], dict[float, Estimate]] = {}
    for small, large in itertools.pairwise(sorted({d for d, _ in by_place})):
        for p in sorted({p for _, p in by_place}):
            if {(small, p), (large, p)} <= by_place.keys():
                ratio = independent_ratio(by_place[small, p], by_place[large, p])
                root = (x ** (2 / (large - small)) for x in dataclasses.astuple(ratio))
                found.setdefault((small, large), {})[p] = Estimate(*root)
    return found


# Threshold ---------------------------------------------------------------------------------------


def fit_threshold(rows: Sequence[SweepRow]) -> Threshold | None:
    """Fits the crossing of one decoder's error rates per shot, R in a constant ratio to d.

    Finite-size scaling of Wang, Harrington and Preskill (Annals of Physics 303, 31, 2003): near the
    threshold the rate is a + b x + c x^2 with x = (p - p_th) d^(1 / nu).  Weighted least squares;
    the interval is of the covariance.  Far from the threshold the quadratic fails: of all ranges of
    neighbouring p, the longest counts in which chi square does not reject it (5 %) and the interval
    of p_th lies within.

    Returns:
        None where no range does.
    """
    strengths = sorted({row.metadata["p"] for row in rows})
    for length in range(len(strengths), _LEAST_STRENGTHS - 1, -1):
        fits = []
        for low, high in zip(strengths, strengths[length - 1 :], strict=False):
            fit = _fit([row for row in rows if low <= row.metadata["p"] <= high])
            if fit is not None and low < fit.p.low and fit.p.high < high:
                fits.append((chi2.sf(fit.chi_square, fit.freedom), fit))
        chance, best = max(fits, key=lambda one: one[0], default=(0, None))
        if chance >= _REJECTED:
            return best
    return None


def _fit(rows: Sequence[SweepRow]) -> Threshold | None:
    """The ansatz on all of the rows; None where they are too few or do not tell its parameters."""
    p, d = (np.array([row.metadata[key] for row in rows], dtype=float) for key in ("p", "d"))
    shots = np.array([row.shots for row in rows])
    rate = np.array([row.errors for row in rows]) / shots
    smoothed = (rate * shots + 1) / (shots + 2)  # no errors do not mean no uncertainty
    sigma = np.sqrt(smoothed * (1 - smoothed) / shots)
    middle, size = np.median(p), d.min()  # p and d in these units: parameters of order one
    start = (1.0, 1.0, rate.mean(), np.ptp(rate), 0.0)
    if len(rows) <= len(start):
        return None

    def ansatz(
        pd: np.ndarray, p_th: float, inverse: float, a: float, b: float, c: float
    ) -> np.ndarray:
        x = (pd[0] - p_th) * pd[1] ** inverse
        return a + b * x + c * x**2

    where = np.stack([p / middle, d / size])
    try:
        found, covariance = curve_fit(ansatz, where, rate, start, sigma, absolute_sigma=True)
    except RuntimeError:  # no convergence
        return None
    half = float(norm.ppf((1 + CONFIDENCE) / 2) * math.sqrt(covariance[0, 0])) * middle
    p_th = float(found[0]) * middle
    misfit = (ansatz(where, *found) - rate) / sigma
    return Threshold(
        Estimate(p_th, p_th - half, p_th + half),
        nu=float(1 / found[1]),
        strengths=(float(p.min()), float(p.max())),
        chi_square=float(misfit @ misfit),
        freedom=len(rows) - len(start),
    )


# Table -------------------------------------------------------------------------------------------


def _suppressed(pair: tuple[int, int], row: tuple[Scaling, float]) -> str:
    found = row[0].suppression.get(pair, {}).get(row[1])
    return "" if found is None else ratio_text(found)


def _percent(one: Scaling) -> str:
    if one.threshold is None:
        return "no crossing found"
    p, low, high = (100 * x for x in dataclasses.astuple(one.threshold.p))
    return f"{p:.3f} ({low:.3f}-{high:.3f})"


def _of_fit(text: Callable[[Threshold], str]) -> Callable[[Scaling], str]:
    return lambda one: "" if one.threshold is None else text(one.threshold)


_THRESHOLDS = (
    Column[Scaling]("decoder", lambda one: one.decoder, name=True),
    Column("threshold, % (95 %)", _percent),
    Column("nu", _of_fit(lambda fit: f"{fit.nu:.2f}")),
    Column("chi2 / degrees", _of_fit(lambda fit: f"{fit.chi_square:.1f} / {fit.freedom}")),
    Column("p fitted", _of_fit(lambda fit: "{:g} to {:g}".format(*fit.strengths))),
)


def print_scalings(found: Sequence[Scaling]) -> None:
    """Prints suppression factors by p, and thresholds: two tables for each kind of point."""
    for title, group in itertools.groupby(found, key=lambda one: one.title):
        members = list(group)
        pairs = sorted({pair for one in members for pair in one.suppression})
        rows = [
            (one, p)
            for one in members
            for p in sorted({p for by_p in one.suppression.values() for p in by_p})
        ]
        columns: list[Column[tuple[Scaling, float]]] = [
            Column("decoder", lambda row: row[0].decoder, name=True),
            Column("p", lambda row: f"{row[1]:g}"),
        ]
        for low, high in pairs:
            head = f"Lambda (95 %)\nd = {low} > {high}"
            columns.append(Column(head, functools.partial(_suppressed, (low, high))))
        print_table(columns, rows, f"Suppression and threshold: {title}\n")
        print_table(_THRESHOLDS, members)
    if found:
        print(
            "Lambda: factor between the error rates per round of d and d + 2. Threshold: where\n"
            "error rates per shot of all distances cross; the interval is of sampling alone.\n"
        )
