"""`qec realtime`: a run for every decoder and period, and the report."""

from __future__ import annotations

import dataclasses
import json
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from rich import box
from rich.console import Console
from rich.table import Table

from qec.decoder import named_decoder
from qec.errors import QecError
from qec.files import atomic_path
from qec.lock import writes_out_alone
from qec.plots import plot_backlog, plot_latency
from qec.pool import available_cores
from qec.realtime.limit import shortest_period
from qec.realtime.plan import NOTHING, Plan
from qec.realtime.report import PERCENTILES, Report
from qec.realtime.run import run
from qec.realtime.settings import LARGEST, Settings
from qec.stats import error_rate, paired_ratio
from qec.windows import WINDOW_DECODERS

_WHOLE_HISTORY = 1000  # rounds up to which the same shots are also decoded whole, to compare


@writes_out_alone
def realtime(config: DictConfig, command: Sequence[str] = ("qec", "realtime")) -> list[Report]:
    """Runs the benchmark as configured by conf/realtime.yaml; prints and writes its report.

    Raises:
        QecError: a value that makes no sense; a process that died or time that ran out (after the
            report).
    """
    settings = Settings.from_config(config)
    events, flips = settings.shots_and_flips()
    plans = {name: settings.plan(name) for name in settings.decoders}
    for plan in plans.values():
        plan.check()
    reports, trouble = [], ""
    for name, plan in plans.items():
        found, trouble = _runs_of(settings, name, plan, events)
        reports += found
        if trouble:
            break
    whole = [] if trouble else list(_whole_history(settings, reports, events, flips))
    write(reports, whole, settings.out, command)
    print_table(reports, settings)
    for line in whole:
        print(line.text())
    print(f"files: {settings.out}/report.json latency.png .svg backlog.png .svg")
    print(f"same settings: {shlex.join(command)}")
    if trouble:
        raise QecError(trouble)
    return reports


def _runs_of(
    settings: Settings, name: str, plan: Plan, events: np.ndarray
) -> tuple[list[Report], str]:
    """A run per period; the message is empty unless one of them went wrong."""
    layers = plan.reference.split(events, settings.rounds)
    layers = layers.reshape(-1, layers.shape[-1])
    reports: list[Report] = []

    class Trouble(Exception):
        pass

    def at(period_us: float) -> Report:
        found, trouble = run(settings, name, plan, layers, period_us / 1e6)
        reports.append(found)
        if trouble:
            raise Trouble(trouble)
        return found

    try:
        for period in settings.period_us:
            if period == LARGEST:
                whole = next((r for r in reports if r.period_us == 0), None) or at(0)
                shortest = shortest_period(lambda us: at(us).stable, 1.5 * whole.us_per_round)
                if not math.isnan(shortest):
                    print(f"{name}: keeps up with a round every {shortest:.1f} us")
            else:
                at(period)
    except Trouble as trouble:
        return reports, str(trouble)
    return reports, ""


# Logical errors ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WholeHistory:
    """The windows next to one decoder over the whole history of the same shots.

    Attributes:
        decoder: its name.
        shots: decoded.
        differ: shots for which windows and whole history predict differently.
        wrong, wrong_whole, wrong_both: logical errors; None where the truth is unknown.
        us_per_round: of the whole history, in one batch on one core.
    """

    decoder: str
    shots: int
    differ: int
    wrong: int | None
    wrong_whole: int | None
    wrong_both: int | None
    us_per_round: float

    def text(self) -> str:
        line, truth = f"{self.decoder}: ", self.wrong is not None
        if truth:
            rate = error_rate(self.wrong, self.shots)
            line += f"{self.wrong} of {self.shots} logical answers wrong "
            line += f"({rate.value:.3g}, 95 % interval {rate.low:.3g}-{rate.high:.3g})"
        if math.isnan(self.us_per_round):
            return line
        if truth:
            ratio = paired_ratio(self.wrong, self.wrong_whole, self.wrong_both)
            line += f"; whole history {self.wrong_whole}, ratio {ratio.value:.3f} "
            line += f"({ratio.low:.3f}-{ratio.high:.3f}); "
        line += f"{self.differ} of {self.shots} answers differ from those of the whole history, "
        return line + f"which takes {self.us_per_round:.1f} us/round in one batch on one core"


def _whole_history(
    settings: Settings, reports: Sequence[Report], events: np.ndarray, flips: np.ndarray | None
) -> Iterator[WholeHistory]:
    """For every decoder; the whole history only of experiments that are not too long for it."""
    long = settings.rounds > _WHOLE_HISTORY
    model = None if long else settings.whole_model()
    for name in settings.decoders:
        if name == NOTHING:
            continue
        answers = next(r for r in reports if r.decoder == name).answers
        wrong = None if flips is None else answers != flips
        other, spent = answers, math.nan
        if model is not None:
            decoder = named_decoder(name, model, settings.predecoder)
            decoder.decode_batch(events[:1])  # first calls set things up
            start = time.perf_counter()
            other = decoder.decode_batch(events)[:, 0]
            spent = (time.perf_counter() - start) * 1e6 / events.shape[0] / settings.rounds
        wrong_whole = None if flips is None else other != flips
        yield WholeHistory(
            decoder=name,
            shots=len(answers),
            differ=int(np.count_nonzero(answers != other)),
            wrong=_count(wrong),
            wrong_whole=_count(wrong_whole),
            wrong_both=None if flips is None else _count(wrong & wrong_whole),
            us_per_round=spent,
        )


def _count(which: np.ndarray | None) -> int | None:
    return None if which is None else int(np.count_nonzero(which))


# Output ------------------------------------------------------------------------------------------


def write(
    reports: Sequence[Report], whole: Sequence[WholeHistory], out: Path, command: Sequence[str]
) -> None:
    """Writes report.json and the plots."""
    content = {
        "command": list(command),
        "cores": len(available_cores()),
        "runs": [r.to_dict() for r in reports],
        "whole_history": [dataclasses.asdict(line) for line in whole],
    }
    with atomic_path(out / "report.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    plot_latency(reports, out)
    plot_backlog(reports, out)


def _may_fall_back(name: str) -> bool:
    return bool(WINDOW_DECODERS.get(name, {}).get("cascade"))


def print_table(reports: Sequence[Report], settings: Settings) -> None:
    """A row per decoder and period."""
    title = (
        f"d={settings.distance}, R={settings.rounds}, {settings.source()}, "
        f"windows of {settings.commit} + 2 * {settings.buffer} layers, {settings.workers} matchers "
        f"and, where there is a pre-decoder, {settings.predecoder_workers} for it on "
        f"{settings.device}; {len(available_cores())} cores"
    )
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("decoder")
    for name in (
        *("period us", "us/round", "match us/round", "pre-decode us/round"),
        *("decided", "whole", "stable", "N_par"),
        f"latency A us, {'/'.join(f'{p:g}' for p in PERCENTILES)} %",
        *("latency B us", "drift", "wait us, 50 %", "reaction us", "memory MB"),
    ):
        table.add_column(name, justify="right")
    for r in reports:
        table.add_row(
            r.decoder,
            f"{r.period_us:.4g}",
            f"{r.us_per_round:.1f}",
            f"{r.match_us_per_round:.1f}",
            f"{r.predecode_us_per_round:.1f}",
            f"{r.decided} of {r.windows}",
            f"{r.fell_back:.1%}" if _may_fall_back(r.decoder) else "",
            "-" if r.period_us == 0 else ("yes" if r.stable else "NO"),
            "-" if r.period_us == 0 else f"{r.n_par:.2f}",
            *(" / ".join(f"{v:.0f}" for v in r.latency_us[layer]) for layer in "AB"),
            f"{r.latency_drift:.2f}",
            " + ".join(f"{w[0]:.0f}" for w in (r.block_wait_us, r.wait_us) if not math.isnan(w[0])),
            f"{r.reaction_us:.0f}",
            ", ".join(f"{a:.0f}-{b:.0f}" for a, b in r.memory_mb),
        )
    Console(width=240).print(table)
