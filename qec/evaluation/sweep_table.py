"""Results of paired sampling: a row per decoder and point, its sinter form; tables of sweeps."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import sinter
from rich import box
from rich.console import Console
from rich.table import Table

from qec.decoding.decoder_names import has_predecoder
from qec.support.files import atomic_path
from qec.support.statistics import Estimate, error_rate, error_rate_per_round, paired_ratio


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
        """LER(baseline) / LER(decoder)."""
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


_COLUMNS = (
    "\ndecoder",
    "\nerrors",
    "LER per shot\n(95 %)",
    "LER per round\n(95 %)",
    "ratio to baseline\n(95 %, paired)",
    "matching\nus/round",
    "network\nus/round",
    "events per shot\nsampled > matched",
    "fallback\n% of shots",
)
_WIDTH = 180  # more than the widest table: at less, rich would cut numbers short


def print_tables(rows: Sequence[SweepRow]) -> None:
    """Prints one table per grid point."""
    console = Console(markup=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, _WIDTH)
    for _, group in itertools.groupby(rows, key=lambda row: row.task_id):
        members = list(group)
        console.print(f"{point_title(members[0].metadata)}: {members[0].shots} shots", style="bold")
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for header in _COLUMNS:
            left = header == _COLUMNS[0]
            table.add_column(header, justify="left" if left else "right", no_wrap=True)
        for row in members:
            table.add_row(*_cells(row))
        console.print(table)
    if rows:
        console.print(f"LER: logical error rate; ratio: LER({rows[0].baseline}) / LER(decoder)")


def _cells(row: SweepRow) -> tuple[str, ...]:
    shot_rounds = row.shots * row.metadata["r"] * 1000
    ratio, low, high = (short(x) for x in (row.gain.value, row.gain.low, row.gain.high))
    return (
        row.decoder,
        str(row.errors),
        _scientific(row.per_shot),
        _scientific(row.per_round),
        "baseline" if row.decoder == row.baseline else f"{ratio} ({low}-{high})",
        f"{row.match_ns / shot_rounds:.2f}",
        f"{row.predecode_ns / shot_rounds:.2f}" if has_predecoder(row.decoder) else "",
        f"{short(row.events / row.shots)} > {short(row.events_left / row.shots)}",
        f"{100 * row.fallbacks / row.shots:.1f}" if has_predecoder(row.decoder) else "",
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


def short(x: float) -> str:
    """Two decimals; none from 100 on."""
    return f"{x:.2f}" if x < 100 else f"{x:.0f}"


def _scientific(rate: Estimate) -> str:
    """``4.45e-2 (4.17-4.75)``: the interval shares the exponent of the value."""
    exponent = math.floor(math.log10(rate.value or rate.high))
    value, low, high = (x / 10**exponent for x in (rate.value, rate.low, rate.high))
    return f"{value:.2f}e{exponent} ({low:.2f}-{high:.2f})"
