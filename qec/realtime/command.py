"""`qec realtime`: runs the processes for every decoder and period, and reports."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shlex
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.config import distinct_values, positive_integer, required_path
from qec.decoder import Decoder
from qec.errors import QecError
from qec.files import atomic_path, make_folder
from qec.lattice import detector_error_model
from qec.noise import CircuitNoise
from qec.paired import available_cores
from qec.plots import plot_backlog, plot_latency
from qec.realtime.plan import Plan, rounds_needed
from qec.realtime.processes import PlanArguments, produce, work
from qec.realtime.report import PERCENTILES, Report, report
from qec.realtime.shared import Layout, SharedRun
from qec.stats import error_rate, paired_ratio

CORRELATED = {"pymatching-css": False, "pymatching-correlated-css": True}
"""The decoders that run in windows, and whether they match with correlations."""

_WHOLE_HISTORY = 1000  # rounds up to which the same shots are also matched whole, to compare
_SAMPLE = 0.01  # seconds between samples of the backlog


@dataclasses.dataclass(frozen=True)
class Settings:
    """conf/realtime.yaml, checked."""

    distance: int
    rounds: int
    p: float
    noise: str
    basis: str
    shots: int
    period_us: tuple[float, ...]
    decoders: tuple[str, ...]
    commit: int
    buffer: int
    workers: int
    timeout: float
    seed: int | None
    out: Path

    @classmethod
    def from_config(cls, config: DictConfig) -> Settings:
        """Raises QecError where a value makes no sense."""
        values = OmegaConf.to_container(config)
        for key in ("period_us", "decoders"):
            values[key] = distinct_values(key, values[key])
        for name in values["decoders"]:
            if name not in CORRELATED:
                raise QecError(
                    f"decoder {name!r} does not run in windows: use {', '.join(CORRELATED)}."
                )
        for period in values["period_us"]:
            if isinstance(period, bool) or not isinstance(period, int | float) or period < 0:
                raise QecError(f"period_us={period!r} is not supported: use microseconds, or 0.")
        for key in ("commit", "buffer"):
            values[key] = values["distance"] if values[key] is None else values[key]
        if values["workers"] is None:
            values["workers"] = max(1, len(available_cores()) - 1)
        for key in ("rounds", "shots", "workers"):
            positive_integer(key, values[key])
        return cls(**{**values, "out": required_path(config, "out")})

    def circuit(self, rounds: int) -> stim.Circuit:
        noise = CircuitNoise.named(self.noise, self.p)
        return memory_circuit(RotatedSurfaceCode(self.distance), noise, rounds, self.basis)

    def model(self) -> stim.DetectorErrorModel:
        """That of a shorter experiment, from which the windows are cut."""
        enough = rounds_needed(self.commit, self.buffer)
        return detector_error_model(self.circuit(min(self.rounds, enough)))


def realtime(config: DictConfig, command: Sequence[str] = ("qec", "realtime")) -> list[Report]:
    """Runs the benchmark as configured by conf/realtime.yaml; prints and writes its report.

    Raises:
        QecError: a value that makes no sense; a decoder process that died (after the report).
    """
    settings = Settings.from_config(config)
    sampler = settings.circuit(settings.rounds).compile_detector_sampler(seed=settings.seed)
    events, flips = sampler.sample(settings.shots, separate_observables=True)
    events, flips = events.view(np.uint8), flips[:, 0].view(np.uint8)
    model = settings.model()
    make_folder(settings.out)
    reports, died = [], ""
    for name in settings.decoders:
        arguments = PlanArguments(
            str(model), settings.rounds, settings.commit, settings.buffer, CORRELATED[name]
        )
        plan = arguments.build()
        layers = np.concatenate([plan.split(shot) for shot in events])
        for period in settings.period_us:
            found, died = run(settings, name, arguments, plan, layers, period / 1e6)
            reports.append(found)
            if died:
                break
        if died:
            break
    write(reports, settings.out, command)
    print_table(reports, settings)
    if not died:
        print_errors(reports, settings, events, flips)
    print(f"files: {settings.out}/report.json latency.png .svg backlog.png .svg")
    print(f"same settings: {shlex.join(command)}")
    if died:
        raise QecError(died)
    return reports


def run(
    settings: Settings,
    decoder: str,
    arguments: PlanArguments,
    plan: Plan,
    layers: np.ndarray,
    period: float,
) -> tuple[Report, str]:
    """One run; the message is empty unless a process died or time ran out."""
    layout = Layout(len(layers), plan.width, settings.shots * len(plan.slots), settings.workers)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, SharedRun(layout) as shared:
        source = Path(folder) / "layers.npy"
        np.save(source, layers)
        jobs = [("producer", produce, (shared.name, layout, source, period))]
        jobs += [
            (f"worker {k}", work, (shared.name, layout, arguments, k))
            for k in range(settings.workers)
        ]
        processes = [context.Process(target=f, args=a, name=n, daemon=True) for n, f, a in jobs]
        for process in processes:
            process.start()
        try:
            trouble, backlog = _watch(settings, shared, plan, processes)
        finally:
            shared.stop[0] = 1
            for process in processes:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()
        return report(shared, plan, decoder, period, backlog), trouble


def _watch(
    settings: Settings,
    shared: SharedRun,
    plan: Plan,
    processes: Sequence[multiprocessing.Process],
) -> tuple[str, np.ndarray]:
    """Begins when all workers are ready; returns what went wrong, and the backlog over time."""
    cores = np.array([s.window.core_end - s.window.core_start for s in plan.slots])
    cores = np.tile(cores, settings.shots)
    began, samples = 0.0, []
    deadline = time.monotonic() + settings.timeout
    while not shared.done.all():
        for process in processes:
            if process.exitcode not in (None, 0):
                decided = int(np.count_nonzero(shared.done))
                return (
                    f"the {process.name} process died (exit code {process.exitcode}) after "
                    f"{decided} of {len(cores)} windows: what they committed stands, the rest is "
                    "undecided. Run again.",
                    _array(samples),
                )
        if time.monotonic() > deadline:
            return f"not done after timeout={settings.timeout} seconds", _array(samples)
        if not began and shared.ready.all():
            shared.begin[0] = time.monotonic_ns()
            began = time.monotonic()
        if began and not shared.arrived.all():
            # Not the end of the run, where no rounds arrive any more.
            arrived = int(np.count_nonzero(shared.arrived))
            committed = int(cores[shared.done > 0].sum())
            samples.append((time.monotonic() - began, arrived - committed))
        time.sleep(_SAMPLE)
    return "", _array(samples)


def _array(samples: list[tuple[float, int]]) -> np.ndarray:
    return np.array(samples, dtype=np.float64).reshape(-1, 2)


# Output ------------------------------------------------------------------------------------------


def write(reports: Sequence[Report], out: Path, command: Sequence[str]) -> None:
    """Writes report.json and the plots."""
    content = {"command": list(command), "runs": [r.to_dict() for r in reports]}
    with atomic_path(out / "report.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
    plot_latency(reports, out)
    plot_backlog(reports, out)


def print_table(reports: Sequence[Report], settings: Settings) -> None:
    """A row per decoder and period."""
    title = (
        f"d={settings.distance}, R={settings.rounds}, {settings.noise} noise p={settings.p:g}, "
        f"windows of {settings.commit} + 2 * {settings.buffer} layers, {settings.workers} worker "
        f"processes on {len(available_cores())} cores"
    )
    table = Table(title=title, box=box.SIMPLE)
    table.add_column("decoder")
    for name in (
        *("period us", "us/round", "busy us/round", "decided", "stable", "N_par"),
        f"latency A us, {'/'.join(f'{p:g}' for p in PERCENTILES)} %",
        "latency B us",
        "wait us, 50 %",
        "reaction us",
    ):
        table.add_column(name, justify="right")
    for r in reports:
        table.add_row(
            r.decoder,
            f"{r.period_us:g}",
            f"{r.us_per_round:.1f}",
            f"{r.busy_us_per_round:.1f}",
            f"{r.decided} of {r.windows}",
            "-" if r.period_us == 0 else ("yes" if r.stable else "NO"),
            "-" if r.period_us == 0 else f"{r.n_par:.2f}",
            *(" / ".join(f"{v:.0f}" for v in r.latency_us[layer]) for layer in "AB"),
            f"{r.wait_us[0]:.0f}",
            f"{r.reaction_us:.0f}",
        )
    Console(width=200).print(table)


def print_errors(
    reports: Sequence[Report], settings: Settings, events: np.ndarray, flips: np.ndarray
) -> None:
    """Logical errors of the windows, next to matching the whole history of the same shots."""
    whole = None
    if settings.rounds <= _WHOLE_HISTORY:
        whole = detector_error_model(settings.circuit(settings.rounds))
    for name in settings.decoders:
        found = next(r for r in reports if r.decoder == name)
        wrong = found.answers != flips
        rate = error_rate(int(wrong.sum()), len(wrong))
        line = f"{name}: {int(wrong.sum())} of {len(wrong)} logical answers wrong "
        line += f"({rate.value:.3g}, 95 % interval {rate.low:.3g}-{rate.high:.3g})"
        if whole is not None:
            decoder = Decoder.from_dem(whole, correlated=CORRELATED[name])
            other = decoder.decode_batch(events)[:, 0] != flips
            ratio = paired_ratio(*(int(np.count_nonzero(w)) for w in (wrong, other, wrong & other)))
            line += f"; whole history {int(other.sum())}, "
            line += f"ratio {ratio.value:.3f} ({ratio.low:.3f}-{ratio.high:.3f})"
        print(line)
