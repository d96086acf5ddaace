"""The accuracy of a checkpoint: gains over matching alone, their table and their summary."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import sinter

from qec.evaluation.sweep_table import SweepRow, point_title, rows_of
from qec.support.statistics import Estimate, paired_ratio
from qec.support.tables import Column, markdown_table, ratio_text, text_table

BASELINES = {
    "pymatching-css": "pymatching-css",
    "pymatching": "pymatching-css",
    "pymatching-correlated-css": "pymatching-css",
    "predecoder+pymatching": "pymatching-css",
    "predecoder+matching-cascade": "pymatching-correlated-css",
}
"""The decoders of an evaluation, each with the one that it is compared with."""

NETWORK, PIPELINE = "predecoder+pymatching", "predecoder+matching-cascade"

GAINS = {NETWORK: "vs PyMatching", PIPELINE: "vs correlated"}
"""The decoders whose gain is asked for, each with the head of its column.

The gain is how many times fewer logical errors it has than its baseline: that of ``NETWORK`` is
about what the network does by itself, that of ``PIPELINE`` about the whole.
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
        return self.rows[NETWORK].metadata

    @property
    def shots(self) -> int:
        """Shots that all decoders have decoded."""
        return self.rows[NETWORK].shots

    def gain(self, decoder: str) -> Estimate:
        """Of one of ``GAINS``, with its paired 95 % interval; above 1 the pre-decoder helps."""
        return self.rows[decoder].gain

    @property
    def split_gain(self) -> Estimate:
        """LER(pymatching) / LER(pymatching-css), of Stim's decomposition over the split by basis.

        Times the gain of ``NETWORK`` it is the gain over Stim's decomposition.
        """
        row = self.rows["pymatching"]
        return paired_ratio(row.errors, row.baseline_errors, row.both_errors)

    def density(self, decoder: str) -> float:
        """Detection events sampled per event that its matching gets."""
        row = self.rows[decoder]
        return _quotient(row.events, row.events_left)

    @property
    def handed_on(self) -> float:
        """Fraction of shots whose whole syndrome the pipeline hands on to correlated matching."""
        row = self.rows[PIPELINE]
        return row.fallbacks / row.shots

    def speedup(self, decoder: str) -> float:
        """Matching time of the baseline over the decoder's."""
        row = self.rows[decoder]
        return _quotient(self.rows[row.baseline].match_ns, row.match_ns)

    @property
    def width(self) -> float:
        """The larger relative half-width of the intervals of the gains."""
        return max(self.gain(decoder).relative_half_width for decoder in GAINS)

    def harms(self, decoder: str) -> bool:
        """Whether the interval of the gain lies below 1."""
        return self.gain(decoder).high < 1


def _quotient(before: int, after: int) -> float:
    return before / after if after else float("inf")


# Tables ------------------------------------------------------------------------------------------


def _point(key: str, head: str) -> Column[Accuracy]:
    return Column(head, lambda point: str(point.metadata.get(key, "file")))


def _gain(decoder: str) -> Column[Accuracy]:
    # Three decimals: with two, an interval that ends just below 1 would read as ending at 1.
    return Column(
        f"fewer errors\n{GAINS[decoder]}",
        lambda point: ratio_text(point.gain(decoder), 3) + "!" * point.harms(decoder),
    )


def _errors(decoder: str) -> Column[Accuracy]:
    return Column(
        f"errors: {BASELINES[decoder]}, {decoder}",
        lambda point: f"{point.rows[decoder].baseline_errors}, {point.rows[decoder].errors}",
    )


def _of_both(head: str, value: Callable[[Accuracy, str], float]) -> Column[Accuracy]:
    return Column(head, lambda point: ", ".join(f"{value(point, name):.1f}" for name in GAINS))


_SIZE = (_point("p", "p"), _point("d", "d"), _point("r", "R"))
_SHOTS = Column[Accuracy]("shots", lambda point: str(point.shots))
_WORK = (
    _of_both("fewer\nevents", Accuracy.density),
    Column[Accuracy]("handed\non", lambda point: f"{point.handed_on:.1%}"),
    _of_both("faster\nmatching", Accuracy.speedup),
)
_PRINTED = (*_SIZE, _SHOTS, *map(_gain, GAINS), *_WORK)
_FULL = (
    *(_point("noise", "noise"), *_SIZE, _point("b", "basis"), _SHOTS),
    *(column(decoder) for decoder in GAINS for column in (_errors, _gain)),
    *_WORK,
    Column("split by basis vs Stim", lambda point: ratio_text(point.split_gain, 3)),
)

_LEGEND = (
    "fewer errors: logical errors of matching over those of the decoder, same shots, (95 %)",
    *(f"  {head}: {BASELINES[decoder]} over {decoder}" for decoder, head in GAINS.items()),
    "fewer events: detection events over those left to matching, for either decoder",
    "handed on: shots whose whole syndrome the second one matches, correlated",
    "faster matching: time of the baseline over the decoder's without its network, for either",
    "!: harm, the interval lies below 1; accuracy.md also has the counts of errors",
)


def report(points: Sequence[Accuracy], precision: float) -> str:
    """The tables, one per noise and basis, what their columns mean, and the summary."""
    groups: dict[str, list[Accuracy]] = {}
    for point in _in_order(points):
        title = "{noise} noise, basis {b}, {predecoder}".format(**point.metadata)
        groups.setdefault(title, []).append(point)
    lines = []
    for title, members in groups.items():
        lines += [title, "", text_table(_PRINTED, members), ""]
    return "\n".join([*lines, *_LEGEND, "", *_summary(points, precision)])


def markdown(points: Sequence[Accuracy]) -> str:
    """A line per point, by noise, strength and distance, in Markdown."""
    return markdown_table(_FULL, _in_order(points))


def _in_order(points: Sequence[Accuracy]) -> list[Accuracy]:
    noises = list(dict.fromkeys(point.metadata["noise"] for point in points))

    def order(point: Accuracy) -> tuple:
        meta = point.metadata
        return noises.index(meta["noise"]), meta.get("p", 0), meta["d"], meta["r"], meta["b"]

    return sorted(points, key=order)


def _summary(points: Sequence[Accuracy], precision: float) -> list[str]:
    lines = []
    for decoder, head in GAINS.items():
        gains = [point.gain(decoder) for point in points]
        above = sum(gain.low > 1 for gain in gains)
        below = sum(point.harms(decoder) for point in points)
        silent = sum(math.isnan(gain.value) for gain in gains)
        lines.append(
            f"{head}: interval above 1 at {above} of {len(points)} points, around 1 at "
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
        for decoder, head in GAINS.items():
            if point.harms(decoder):
                gain = ratio_text(point.gain(decoder), 3)
                yield f"  {head} {gain} at {point_title(point.metadata)}"
