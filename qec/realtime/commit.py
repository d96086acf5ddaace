"""How many layers a window commits: as few as the period of the rounds allows.

Small cores are decided soon.  Large ones cost less: all layers but the buffers are matched once.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from qec.realtime.plan import Plan
from qec.windows.window_state import SimilarWindows, WindowState

MULTIPLES = 1, 2, 3  # of the buffer
_LOAD = 0.6  # share of its time that a worker may spend on average
_LAYERS = 4000  # that are decoded to measure


def chosen_plan(
    plan_of: Callable[[int], Plan],
    buffer: int,
    interval_us: float,
    processes: tuple[int, int],
    layers: np.ndarray,
) -> Plan:
    """The plan with the smallest core that the workers keep up with, else with the largest.

    Args:
        plan_of: the plan with so many layers to a core.
        buffer: layers.
        interval_us: microseconds between rounds of all qubits together; 0: as fast as it goes.
        processes: that match, and that pre-decode.
        layers: uint8 (layers of all experiments, width), to decode.
    """
    if interval_us > 0:
        for multiple in MULTIPLES[:-1]:
            plan = plan_of(multiple * buffer)
            spent = us_per_round(plan, layers)
            if all(us < _LOAD * n * interval_us for us, n in zip(spent, processes, strict=True)):
                return plan
    return plan_of(MULTIPLES[-1] * buffer)


def us_per_round(plan: Plan, layers: np.ndarray) -> tuple[float, float]:
    """What matching and pre-decoding take on one core, in batches.

    Args:
        plan: how the experiments are decoded.
        layers: uint8 (layers of all experiments, width), detection events.

    Returns:
        Microseconds per round of matching, and of pre-decoding.
    """
    rows = max(min(_LAYERS, len(layers)) // plan.layers, 1) * plan.layers
    _, predecode, match = in_one_process(plan, layers[:rows])

    def spent(step: Callable[[], None]) -> float:
        step()  # first calls set things up
        start = time.perf_counter()
        step()
        return (time.perf_counter() - start) * 1e6 / rows

    before = spent(predecode)
    return spent(match), before


def in_one_process(
    plan: Plan, layers: np.ndarray
) -> tuple[WindowState, Callable[[], None], Callable[[], None]]:
    """The state of experiments, and what pre-decodes and then matches all of them at once.

    Args:
        plan: how the experiments are decoded.
        layers: uint8 (layers of all experiments, width), detection events.
    """
    experiments, n = len(layers) // plan.layers, len(plan.windows)
    windows, blocks = plan.block_windows, plan.blocks()
    events = layers.reshape(experiments, plan.layers, -1)
    state = WindowState.of(events, n, predecoder=bool(windows))
    numbers = np.arange(experiments * n)
    is_gap = np.tile([w.before for w in plan.windows], experiments)

    def predecode() -> None:
        kinds = [id(block) for block in blocks]
        alike = SimilarWindows(windows, kinds, plan.layers, experiments)
        for k, *places in alike.groups(numbers if windows else numbers[:0]):
            state.predecode(windows[k], blocks[k], *places)

    def match() -> None:
        alike = SimilarWindows.of(plan.windows, plan.layers, experiments)
        for some in (numbers[~is_gap], numbers[is_gap]):
            for k, *places in alike.groups(some):
                state.decide(plan.windows[k], *places)

    return state, predecode, match
