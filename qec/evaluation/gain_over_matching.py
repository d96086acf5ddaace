"""The accuracy of a checkpoint: factors over matching alone, their table and their summary."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Iterable, Sequence

import sinter
from rich.box import Box
from rich.console import Console
from rich.table import Table

from qec.evaluation.sweep_table import SweepRow, point_title, rows_of, short
from qec.support.statistics import Estimate, paired_ratio
from qec.support.tables import markdown_table

BASELINES = {
    "pymatching-css": "pymatching-css",
    "pymatching": "pymatching-css",
    "pymatching-correlated-css": "pymatching-css",
    "predecoder+pymatching": "pymatching-css",
    "predecoder+matching-cascade": "pymatching-correlated-css",
}
"""The decoders of an evaluation, each with the one that it is compared with."""

FACTORS = {"F": "predecoder+pymatching", "C": "predecoder+matching-cascade"}
"""The two factors, LER(baseline) / LER(decoder), by their decoder.

F is about what the network does by itself, C about the whole pipeline.
"""


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """What a checkpoint does at one grid point.

    Attributes:
        rows: the row of each decoder of ``BASELINES``.
    """

    rows: dict[str, SweepRow]

    @classmethod
    def from_stats(cls, stat: sinter.TaskStats) -> Accuracy:
        """Reads off the statistics of one task of an evaluation."""
        return cls({row.decoder: row for row in rows_of(stat)})

    @property
    def metadata(self) -> dict:
        """d, r, p, b, noise, ... and the predecoder."""
        return self.rows[FACTORS["F"]].metadata

    @property
    def shots(self) -> int:
        """Shots that all decoders have decoded."""
        return self.rows[FACTORS["F"]].shots

    def factor(self, name: str) -> Estimate:
        """F or C with its paired 95 % interval; above 1 the pre-decoder helps."""
        return self.rows[FACTORS[name]].gain

    @property
    def stim_penalty(self) -> Estimate:
        """S = LER(pymatching) / LER(pymatching-css): F S compares with Stim's decomposition."""
        row = self.rows["pymatching"]
        return paired_ratio(row.errors, row.baseline_errors, row.both_errors)

    def density(self, name: str) -> float:
        """Detection events sampled per event that F's or C's matching gets."""
        row = self.rows[FACTORS[name]]
        return _quotient(row.events, row.events_left)

    @property
    def handed_on(self) -> float:
        """Fraction of shots whose whole syndrome the pipeline hands on to correlated matching."""
        row = self.rows[FACTORS["C"]]
        return row.fallbacks / row.shots

    def speedup(self, name: str) -> float:
        """Matching time of the baseline over the decoder's, for F or C."""
        row = self.rows[FACTORS[name]]
        return _quotient(self.rows[row.baseline].match_ns, row.match_ns)

    @property
    def width(self) -> float:
        """The larger relative half-width of the intervals of F and C."""
        return max(self.factor(name).relative_half_width for name in FACTORS)

    def harms(self, name: str) -> bool:
        """Whether the interval of the factor lies below 1."""
        return self.factor(name).high < 1


_BOX = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)  # a line below the heads


def _quotient(before: int, after: int) -> float:
    return before / after if after else float("inf")


def report(points: Sequence[Accuracy], precision: float) -> str:
    """The tables, one per noise and basis, what their lines mean, and the summary."""
    # Wide enough never to cut numbers short; ASCII, as it goes to a file and to any terminal.
    text = io.StringIO()
    console = Console(file=text, width=1000, markup=False, highlight=False, color_system=None)
    groups: dict[str, list[Accuracy]] = {}
    for point in points:
        groups.setdefault("{noise} noise, basis {b}".format(**point.metadata), []).append(point)
    for title, members in groups.items():
        console.print(f"{title}, {members[0].metadata['predecoder']}")
        console.print(_table(members))
    console.print("\n".join((*_LEGEND, "", *_summary(points, precision))), soft_wrap=True)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _table(points: Sequence[Accuracy]) -> Table:
    """Rows: distances; columns: noise strengths."""
    cells = {(p.metadata["d"], p.metadata["r"], p.metadata.get("p")): p for p in points}
    strengths = sorted({p for _, _, p in cells}, key=lambda p: p or 0)
    table = Table("d", "R", box=_BOX, show_lines=True, padding=(0, 1, 0, 0))
    for p in strengths:
        table.add_column("rates of the file" if p is None else f"p = {p:g}", no_wrap=True)
    for d, r in sorted({key[:2] for key in cells}):
        found = (cells.get((d, r, p)) for p in strengths)
        table.add_row(str(d), str(r), *("" if point is None else _cell(point) for point in found))
    return table


def _cell(point: Accuracy) -> str:
    lines = [
        f"{name} {_with_interval(point.factor(name))}{' !' if point.harms(name) else ''}"
        for name in FACTORS
    ]
    lines.append(f"S {_with_interval(point.stim_penalty)}")
    lines.append("events " + " ".join(f"/{short(point.density(name))}" for name in FACTORS))
    lines.append(f"handed on {100 * point.handed_on:.2g}%")
    lines.append("matching " + " ".join(f"/{short(point.speedup(name))}" for name in FACTORS))
    return "\n".join([*lines, f"{point.shots} shots"])


def _with_interval(ratio: Estimate) -> str:
    if math.isnan(ratio.value):
        return "- (no errors)"
    # Three decimals: with two, an interval that ends just below 1 would read as ending at 1.
    value, low, high = (
        f"{x:.3f}" if x < 10 else short(x) for x in (ratio.value, ratio.low, ratio.high)
    )
    return f"{value} ({low}-{high})"


def markdown(points: Sequence[Accuracy]) -> str:
    """A line per point, by noise, strength and distance, in Markdown."""
    heads = (
        *("noise", "p", "d", "R", "basis", "shots"),
        *("errors: uncorrelated, F's decoder", "F", "errors: correlated, C's decoder", "C"),
        *("events, F and C", "handed on", "matching time, F and C"),
    )
    lines = []
    noises = list(dict.fromkeys(point.metadata["noise"] for point in points))

    def order(point: Accuracy) -> tuple:
        meta = point.metadata
        return noises.index(meta["noise"]), meta.get("p", 0), meta["d"], meta["r"], meta["b"]

    for point in sorted(points, key=order):
        meta = point.metadata
        cells = [str(meta.get(key, "")) for key in ("noise", "p", "d", "r", "b")]
        cells.append(str(point.shots))
        for name, decoder in FACTORS.items():
            row = point.rows[decoder]
            cells.append(f"{row.baseline_errors}, {row.errors}")
            cells.append(_rounded(point.factor(name)) + " !" * point.harms(name))
        cells.append(", ".join(f"{point.density(name):.1f}" for name in FACTORS))
        cells.append(f"{100 * point.handed_on:.1f} %")
        cells.append(", ".join(f"{point.speedup(name):.1f}" for name in FACTORS))
        lines.append(cells)
    return markdown_table(heads, lines)


def _rounded(ratio: Estimate) -> str:
    if math.isnan(ratio.value):
        return "-"
    return f"**{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})**"


_LEGEND = (
    "F: LER(pymatching-css) / LER(predecoder+pymatching), with its paired 95 % interval",
    "C: LER(pymatching-correlated-css) / LER(predecoder+matching-cascade), likewise",
    "S: LER(pymatching) / LER(pymatching-css); F S is the factor over Stim's own decomposition",
    "events: detection events sampled / left to matching, of F's decoder and of C's",
    "handed on: shots whose whole syndrome C's decoder matches, correlated",
    "matching: time of the baseline's matching / the decoder's, for F and for C",
    "!: harm, the interval lies below 1",
)


def _summary(points: Sequence[Accuracy], precision: float) -> list[str]:
    lines = []
    for name in FACTORS:
        factors = [point.factor(name) for point in points]
        above = sum(factor.low > 1 for factor in factors)
        below = sum(point.harms(name) for point in points)
        silent = sum(math.isnan(factor.value) for factor in factors)
        lines.append(
            f"{name}: interval above 1 at {above} of {len(points)} points, around 1 at "
            f"{len(points) - above - below - silent}, below 1 at {below}; no errors at {silent}"
        )
    tight = sum(point.width <= precision for point in points)
    lines.append(f"precision of {precision:g} reached at {tight} of {len(points)} points")
    harm = list(_harm(points))
    if not harm:
        return [*lines, "harm: none"]
    chance = "of points at exactly 1, chance flags one in 40"
    return [*lines, f"harm, the interval lies below 1 ({chance}):", *harm]


def _harm(points: Iterable[Accuracy]) -> Iterable[str]:
    for point in points:
        for name in FACTORS:
            if point.harms(name):
                factor = _with_interval(point.factor(name))
                yield f"  {name} = {factor} at {point_title(point.metadata)}"
