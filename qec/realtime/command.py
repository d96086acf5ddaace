"""`qec realtime`: a run for every decoder and period, and the report."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from qec.decoding.decoder import named_decoder
from qec.decoding.decoder_names import has_predecoder
from qec.realtime.commit import chosen_plan
from qec.realtime.plan import NOTHING, Plan
from qec.realtime.plots import plot_backlog, plot_latency, plot_load
from qec.realtime.report import PERCENTILES, Report
from qec.realtime.run import run
from qec.realtime.settings import RealtimeSettings
from qec.realtime.shortest_period import shortest_period
from qec.support.errors import QecError
from qec.support.figures import machine
from qec.support.files import atomic_path, print_files
from qec.support.folder_lock import writes_out_alone
from qec.support.process_pool import available_cores
from qec.support.statistics import error_rate, paired_ratio
from qec.support.tables import Column, print_table, rate_text, ratio_text, three_digits

_WHOLE_HISTORY = 1000  # rounds up to which the same shots are also decoded whole, to compare


@writes_out_alone
def realtime(config: DictConfig, command: Sequence[str] = ("qec", "realtime")) -> list[Report]:
    """Runs the benchmark as configured by conf/realtime.yaml; prints and writes its report.

    Raises:
        QecError: a value that makes no sense; a process that died or time that ran out (after the
            report).
    """
    settings = RealtimeSettings.from_config(config)
    events, flips = settings.shots_and_flips()
    runs = [_Runs(settings, name, events) for name in settings.decoders]
    for decoder in runs:
        decoder.check()
    reports, trouble = [], ""
    for decoder in runs:
        found, trouble = decoder.reports()
        reports += found
        if trouble:
            break
    whole = [] if trouble else list(_whole_history(settings, reports, events, flips))
    files = write(reports, whole, settings, command)
    print_tables(reports, settings, flips)
    for line in whole:
        print(line.text())
    print_files(files)
    print(f"same settings: {shlex.join(command)}")
    if trouble:
        raise QecError(trouble)
    return reports


class _Trouble(Exception):
    """A run went wrong."""


class _Runs:
    """A run of one decoder for every deadline and period."""

    def __init__(self, settings: RealtimeSettings, name: str, events: np.ndarray) -> None:
        self._settings, self._name, self._events = settings, name, events
        self._plans: dict[int, Plan] = {}
        self._reports: list[Report] = []

    def check(self) -> None:
        """Raises QecError: as ``Plan.check``; processes would die of it."""
        s = self._settings
        self._plan(s.buffer if isinstance(s.commit, str) else s.commit).check()

    def reports(self) -> tuple[list[Report], str]:
        """In the order of deadlines and periods; the message is empty unless one went wrong."""
        try:
            for deadline, period in itertools.product(
                self._settings.deadline_us, self._settings.period_us
            ):
                if isinstance(period, str):  # LARGEST
                    self._shortest(deadline)
                else:
                    self._run(deadline, period)
        except _Trouble as trouble:
            return self._reports, str(trouble)
        return self._reports, ""

    def _plan(self, commit: int) -> Plan:
        if commit not in self._plans:
            self._plans[commit] = self._settings.plan(self._name, commit)
        return self._plans[commit]

    def _chosen(self, period_us: float) -> Plan:
        s = self._settings
        if not isinstance(s.commit, str):  # AUTO
            return self._plan(s.commit)
        processes = s.workers, s.predecoder_workers
        interval = period_us / s.qubits
        return chosen_plan(self._plan, s.buffer, interval, processes, self._layers)

    @functools.cached_property
    def _layers(self) -> np.ndarray:
        reference = next(iter(self._plans.values())).reference
        layers = reference.split(self._events, self._settings.rounds)
        return layers.reshape(-1, layers.shape[-1])

    def _run(self, deadline_us: float | None, period_us: float, plan: Plan | None = None) -> Report:
        plan = (plan or self._chosen(period_us)).within(deadline_us)
        found, trouble = run(self._settings, self._name, plan, self._layers, period_us / 1e6)
        self._reports.append(found)
        if trouble:
            raise _Trouble(trouble)
        return found

    def _shortest(self, deadline_us: float | None) -> None:
        """Looks for the shortest period that is kept up with."""
        plan = self._chosen(0)
        done = (r for r in self._reports if r.period_us == 0 and r.deadline_us == deadline_us)
        at_once = next(done, None) or self._run(deadline_us, 0, plan)
        guess = 1.5 * at_once.us_per_round * self._settings.qubits
        shortest = shortest_period(lambda us: self._run(deadline_us, us, plan).stable, guess)
        if not math.isnan(shortest):
            print(f"{self._name}: keeps up with a round every {three_digits(shortest)} us")


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
        """One line for the terminal."""
        line = f"{self.decoder}: "
        if self.wrong is not None:
            rate = error_rate(self.wrong, self.shots)
            line += f"{self.wrong} of {self.shots} logical answers wrong, {rate_text(rate)}"
        if math.isnan(self.us_per_round):
            return line
        if self.wrong is not None:
            assert self.wrong_whole is not None
            assert self.wrong_both is not None
            ratio = paired_ratio(self.wrong, self.wrong_whole, self.wrong_both)
            line += f"; whole history {self.wrong_whole}, ratio {ratio_text(ratio, 3)}; "
        line += f"{self.differ} of {self.shots} answers differ from those of the whole history, "
        return line + f"which takes {self.us_per_round:.1f} us/round in one batch on one core"


def _whole_history(
    settings: RealtimeSettings,
    reports: Sequence[Report],
    events: np.ndarray,
    flips: np.ndarray | None,
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
            other = np.asarray(decoder.decode_batch(events))[:, 0]
            spent = (time.perf_counter() - start) * 1e6 / events.shape[0] / settings.rounds
        wrong_whole = None if flips is None else other != flips
        both = None if wrong is None or wrong_whole is None else wrong & wrong_whole
        yield WholeHistory(
            decoder=name,
            shots=len(answers),
            differ=int(np.count_nonzero(answers != other)),
            wrong=_count(wrong),
            wrong_whole=_count(wrong_whole),
            wrong_both=_count(both),
            us_per_round=spent,
        )


def _count(which: np.ndarray | None) -> int | None:
    return None if which is None else int(np.count_nonzero(which))


# Output ------------------------------------------------------------------------------------------


def write(
    reports: Sequence[Report],
    whole: Sequence[WholeHistory],
    settings: RealtimeSettings,
    command: Sequence[str],
) -> list[Path]:
    """Writes report.json and the plots."""
    content = {
        "command": list(command),
        "cores": len(available_cores()),
        "runs": [r.to_dict() for r in reports],
        "whole_history": [dataclasses.asdict(line) for line in whole],
    }
    files = [settings.out / "report.json"]
    with atomic_path(files[0]) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    networks = any(has_predecoder(r.decoder) for r in reports) * settings.predecoder_workers
    processes = 1 + settings.workers + networks
    title = (
        f"d = {settings.distance}, {settings.rounds} rounds, {settings.source()}\n"
        f"matchers: {settings.workers}, beside a producer; {machine(processes)}"
    )
    for plot in (plot_latency, plot_load, plot_backlog):
        files += plot(reports, settings.out, title)
    return files


def print_tables(
    reports: Sequence[Report], settings: RealtimeSettings, flips: np.ndarray | None
) -> None:
    """A row per run in each of two tables: does it keep up, and how soon does it decide.

    Args:
        reports: of the runs.
        settings: of all of them.
        flips: uint8 (experiments,), true flips of observable 0; None: not known.
    """
    workers = f"{settings.workers} matchers"
    if any(has_predecoder(r.decoder) for r in reports):
        workers += f", {settings.predecoder_workers} for the network on {settings.device}"
    print(
        f"d = {settings.distance}, {settings.rounds} rounds, {settings.qubits} at once of "
        f"{len(reports[0].answers)} experiments, {settings.source()}\n"
        f"processes: {workers}; {len(available_cores())} cores"
    )
    named = [Column[Report]("decoder", lambda r: r.decoder, name=True)]
    if settings.deadline_us != (None,):
        named.append(Column("deadline\nus", _deadline))
    named.append(Column("period\nus", lambda r: three_digits(r.period_us)))
    errors = Column[Report](
        "logical\nerrors",
        lambda r: "" if flips is None else str(np.count_nonzero(r.answers != flips)),
    )
    print_table([*named, *_KEEPS_UP, errors], reports, "\nDoes it keep up?\n")
    print_table(
        [*named, *map(_latency, range(len(PERCENTILES))), *_ANSWER],
        reports,
        "From the last round to the decision of a window, and to the answer, us\n",
    )
    for r in reports:
        if r.decided < r.windows:
            period = three_digits(r.period_us)
            print(f"{r.decoder}, {period} us: {r.decided} of {r.windows} windows decided")


def _deadline(r: Report) -> str:
    return "-" if r.deadline_us is None else f"{r.deadline_us:g}"


def _latency(k: int) -> Column[Report]:
    head = "most" if PERCENTILES[k] == 100 else f"{PERCENTILES[k]:g} %"
    return Column(head, lambda r: f"{r.latency_us['all'][k]:.0f}")


_KEEPS_UP: tuple[Column[Report], ...] = (
    Column[Report]("commit +\nbuffer", lambda r: f"{r.commit}+{r.buffer}"),
    Column("us per\nround", lambda r: three_digits(r.us_per_round)),
    Column("keeps\nup", lambda r: "-" if not r.period_us else "yes" if r.stable else "NO"),
    Column("processes\nneeded", lambda r: f"{r.n_par:.2f}" if r.period_us else "-"),
    Column("in\ndoubt", lambda r: f"{r.fell_back + r.late:.1%}"),
    Column("late", lambda r: f"{r.late:.1%}"),
)
_ANSWER: tuple[Column[Report], ...] = (
    Column[Report]("answer\n50 %", lambda r: f"{r.reaction_us[0]:.0f}"),
    Column("answer\n99 %", lambda r: f"{r.reaction_us[2]:.0f}"),
)
