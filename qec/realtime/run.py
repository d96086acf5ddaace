"""One run: starts the processes, watches them, and reads off what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess

import numpy as np

from qec.realtime.plan import Plan
from qec.realtime.report import Report, report
from qec.realtime.settings import RealtimeSettings
from qec.realtime.shared_memory import Layout, SharedRun
from qec.realtime.workers import match, predecode, produce
from qec.support import child_processes as child

_LOOK = 0.01  # seconds between looks at the processes


def run(
    settings: RealtimeSettings, decoder: str, plan: Plan, layers: np.ndarray, period: float
) -> tuple[Report, str]:
    """Decodes a stream.

    Args:
        decoder: what it is called in the report.
        layers: uint8 (layers of all experiments, width).
        period: seconds between rounds; 0: all at once.

    Returns:
        the report, and what went wrong: empty unless a process died or time ran out.
    """
    experiments = len(layers) // plan.layers
    blocks = len(plan.block_windows) * experiments
    layout = Layout(
        layers=plan.layers,
        experiments=experiments,
        qubits=plan.qubits,
        width=plan.reference.width,
        windows=len(plan.windows) * experiments,
        blocks=blocks,
        matchers=settings.workers,
        predecoders=settings.predecoder_workers if blocks else 0,
    )
    shared = SharedRun(layout)
    shared.source[...] = layers
    jobs: list[tuple[str, Callable[..., None], tuple]] = [("producer", produce, (layout, period))]
    for kind, work, number in (
        ("matcher", match, layout.matchers),
        ("pre-decoder", predecode, layout.predecoders),
    ):
        jobs += [(f"{kind} {k}", work, (layout, plan, k)) for k in range(number)]
    processes: list[BaseProcess] = []
    try:
        for name, work, arguments in jobs:
            processes.append(child.start(work, arguments, (shared.memory_block,), name))
        trouble = _watch(shared, processes, settings.timeout)
        _end(shared, processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
    return report(shared, plan, decoder, period), trouble


def _end(shared: SharedRun, processes: Sequence[BaseProcess]) -> None:
    """Lets the workers note what memory they took."""
    shared.stop[0] = 1
    deadline = time.monotonic() + 5
    for process in processes:
        process.join(timeout=max(0.0, deadline - time.monotonic()))


def _watch(shared: SharedRun, processes: Sequence[BaseProcess], timeout: float) -> str:
    """Begins when all workers are ready, returns when all is decided; or what went wrong."""
    deadline = time.monotonic() + timeout
    while not shared.done.all():
        for process in processes:
            if process.exitcode not in (None, 0):
                decided = int(np.count_nonzero(shared.done))
                return (
                    f"the {process.name} process died (exit code {process.exitcode}) after "
                    f"{decided} of {len(shared.done)} windows: what they committed stands, the "
                    "rest is undecided. Run again."
                )
        if time.monotonic() > deadline:
            return f"not done after timeout={timeout} seconds"
        if not shared.begin[0] and shared.ready.all():
            shared.begin[0] = time.monotonic_ns()
        time.sleep(_LOOK)
    return ""
