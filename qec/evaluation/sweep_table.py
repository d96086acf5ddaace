"""Results of paired sampling: a row per decoder and point, its sinter form; tables of sweeps."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import sinter

from qec.decoding.decoder_names import has_predecoder
from qec.support.files import atomic_path
from qec.support.statistics import Estimate, error_rate, error_rate_per_round, paired_ratio
from qec.support.tables import Column, print_table, rate_text, ratio_text, three_digits


@dataclasses.dataclass(frozen=True)
class SweepRow:
    """One decoder at one grid point, next to the baseline decoder on the same shots.

    Attributes:
        task_id: sinter's strong id of the grid point.
        metadata: what was sampled (d, r, p, b, noise, ...) and decoded with (predecoder).
        decoder, baseline: names.
        shots, errors: of the decoder.
        baseline_errors, both_errors: shots that the baseline, that both predict wrongly.
        predecode_ns, match_ns: CPU time spent on all shots.
        events, events_left: detection events sampled, and handed to matching, all shots.
        fallbacks: shots that were matched as a whole after their residual left doubt.
    """

    task_id: str
    metadata: dict
    decoder: str
    baseline: str
    shots: int
    errors: int
    baseline_errors: int
    both_errors: int
    predecode_ns: int
    match_ns: int
    events: int
    events_left: int
    fallbacks: int

    @property
    def per_shot(self) -> Estimate:
        """Logical error rate per shot."""
        return error_rate(self.errors, self.shots)

    @property
    def per_round(self) -> Estimate:
        """Logical error rate per round of check measurements."""
        return error_rate_per_round(self.errors, self.shots, self.metadata["r"])

    @property
    def gain(self) -> Estimate:
        """Logical errors of the baseline over those of the decoder, on the same shots."""
        return paired_ratio(self.baseline_errors, self.errors, self.both_errors)

    def to_task_stats(self) -> sinter.TaskStats:
        """An ordinary sinter row; its seconds are those of decoding alone."""
        counted = (
            *("baseline_errors", "both_errors", "predecode_ns", "match_ns"),
            *("events", "events_left", "fallbacks"),
        )
        return sinter.TaskStats(
            strong_id=f"{self.task_id}:{self.decoder}",
            decoder=self.decoder,
            json_metadata={**self.metadata, "baseline": self.baseline},
            shots=self.shots,
            errors=self.errors,
            seconds=(self.predecode_ns + self.match_ns) / 1e9,
            custom_counts=collections.Counter({key: getattr(self, key) for key in counted}),
        )


def rows_of(stat: sinter.TaskStats) -> Iterator[SweepRow]:
    """A row per decoder from the statistics of one ``PairedSampler`` task."""
    counts, decoders = stat.custom_counts, stat.json_metadata["decoders"]
    baselines = stat.json_metadata.get("baselines", decoders[:1] * len(decoders))
    for name, baseline in zip(decoders, baselines, strict=True):
        yield SweepRow(
            task_id=stat.strong_id,
            metadata=_metadata_of(name, stat.json_metadata),
            decoder=name,
            baseline=baseline,
            shots=stat.shots,
            errors=counts[f"errors:{name}"],
            baseline_errors=counts[f"errors:{baseline}"],
            both_errors=counts[f"both:{name}"],
            predecode_ns=counts[f"predecode_ns:{name}"],
            match_ns=counts[f"match_ns:{name}"],
            events=counts["events"],
            events_left=counts[f"events_left:{name}"],
            fallbacks=counts[f"fallbacks:{name}"],
        )


def _metadata_of(decoder: str, metadata: dict) -> dict:
    """What is said of a point, with the checkpoint of this decoder alone."""
    dropped = {"decoders", "baselines", *(() if has_predecoder(decoder) else ("predecoder",))}
    kept = {k: v for k, v in metadata.items() if k not in dropped}
    if isinstance(several := kept.get("predecoder"), list):
        label = decoder[len("predecoder[") : decoder.rindex("]")]
        kept["predecoder"] = next(x for x in several if x.rpartition("@")[0] == label)
    return kept


def write_stats(rows: Sequence[SweepRow], path: Path) -> None:
    """Writes ordinary sinter rows, one per decoder and grid point."""
    lines = [sinter.CSV_HEADER, *(row.to_task_stats().to_csv_line() for row in rows)]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")


def print_tables(rows: Sequence[SweepRow], columns: str = "main") -> None:
    """Prints one table per grid point: its main columns, or all, which take more room."""
    for _, group in itertools.groupby(rows, key=lambda row: row.task_id):
        members = list(group)
        shots, events = members[0].shots, members[0].events
        title = f"{point_title(members[0].metadata)}: {shots} shots"
        if columns == "all":
            print_table(_ALL, members, f"{title}\n", width=None)
        else:
            print_table(
                _MAIN, members, f"{title}, {three_digits(events / shots)} detection events each\n"
            )
    if rows:
        print(f"baseline: {rows[0].baseline}, on the same shots")
        print("us: CPU time of network and matching; events left: to matching, of a shot")
        print("handed on: shots that get the better matching of a cascade")
        if columns != "all":
            print("columns=all: rates per shot, and the times of network and matching apart")


def _times(*parts: str) -> Callable[[SweepRow], str]:
    """Microseconds per round of these parts."""

    def cell(row: SweepRow) -> str:
        spent = sum(getattr(row, f"{part}_ns") for part in parts) / (1000 * row.shots)
        return three_digits(spent / row.metadata["r"])

    return cell


def _handed_on(row: SweepRow) -> str:
    return f"{row.fallbacks / row.shots:.1%}" if has_predecoder(row.decoder) else ""


_DECODER = Column[SweepRow]("decoder", lambda row: row.decoder, name=True)
_ERRORS = Column[SweepRow]("errors", lambda row: str(row.errors))
_PER_ROUND = Column[SweepRow](
    "logical error rate\nper round (95 %)", lambda row: rate_text(row.per_round)
)
_FEWER = Column[SweepRow](
    "fewer errors\nthan baseline",
    lambda row: "baseline" if row.decoder == row.baseline else ratio_text(row.gain),
)
_LEFT = Column[SweepRow]("events\nleft", lambda row: three_digits(row.events_left / row.shots))
_HANDED_ON = Column("handed\non", _handed_on)

_MAIN = (
    *(_DECODER, _ERRORS, _PER_ROUND, _FEWER),
    *(Column("us per\nround", _times("predecode", "match")), _LEFT, _HANDED_ON),
)
_ALL: tuple[Column[SweepRow], ...] = (
    *(_DECODER, _ERRORS),
    Column("logical error rate\nper shot (95 %)", lambda row: rate_text(row.per_shot)),
    *(_PER_ROUND, _FEWER),
    Column("network\nus/round", _times("predecode")),
    Column("matching\nus/round", _times("match")),
    Column("events\nper shot", lambda row: three_digits(row.events / row.shots)),
    *(_LEFT, _HANDED_ON),
)


def point_title(metadata: dict) -> str:
    """What was sampled, in words: distance, rounds, noise, or the circuit file."""
    if "circuit" in metadata:
        return "{circuit} (d={d} R={r})".format(**metadata) + _weights(metadata)
    return "d={d} R={r} ".format(**metadata) + describe(metadata)


def describe(metadata: dict) -> str:
    """As ``point_title``, but for distance, rounds and the circuit file."""
    if "circuit" in metadata:
        return "circuit files" + _weights(metadata)
    strength = f"p={metadata['p']:g} " if "p" in metadata else ""
    perfect = ", perfect final round" if metadata.get("perfect_final_round") else ""
    title = "{}basis {b}, {noise} noise, {o}{}".format(strength, perfect, **metadata)
    return title + _weights(metadata)


def _weights(metadata: dict) -> str:
    return f", weights of {metadata['weights']}" if "weights" in metadata else ""
