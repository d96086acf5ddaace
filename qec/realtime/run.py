"""One run: starts the processes, watches them, and reads off what happened."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qec.realtime.plan import Plan
from qec.realtime.processes import match, predecode, produce
from qec.realtime.report import Report, report
from qec.realtime.settings import Settings
from qec.realtime.shared import Layout, SharedRun

_LOOK = 0.01  # seconds between looks at the processes


def run(
    settings: Settings, decoder: str, plan: Plan, layers: np.ndarray, period: float
) -> tuple[Report, str]:
    """Decodes a stream.

    Args:
        decoder: what it is called in the report.
        layers: uint8 (layers of all experiments, width).
        period: seconds between rounds; 0: all at once.

    Returns:
        the report, and what went wrong: empty unless a process died or time ran out.
    """
    shots = len(layers) // plan.layers
    blocks = len(plan.block_windows) * shots
    layout = Layout(
        layers=len(layers),
        width=plan.reference.width,
        slots=len(plan.slots) * shots,
        blocks=blocks,
        matchers=settings.workers,
        predecoders=settings.predecoder_workers if blocks else 0,
    )
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, SharedRun(layout) as shared:
        source = Path(folder) / "layers.npy"
        np.save(source, layers)
        jobs = [("producer", produce, (shared.name, layout, source, period))]
        for kind, work, number in (
            ("matcher", match, layout.matchers),
            ("pre-decoder", predecode, layout.predecoders),
        ):
            jobs += [(f"{kind} {k}", work, (shared.name, layout, plan, k)) for k in range(number)]
        processes = [context.Process(target=f, args=a, name=n, daemon=True) for n, f, a in jobs]
        for process in processes:
            process.start()
        try:
            trouble = _watch(shared, processes, settings.timeout)
        finally:
            shared.stop[0] = 1
            for process in processes:
                process.join(timeout=5)
                if process.is_alive():
                    process.kill()
                    process.join()
        return report(shared, plan, decoder, period), trouble


def _watch(shared: SharedRun, processes: Sequence[multiprocessing.Process], timeout: float) -> str:
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
