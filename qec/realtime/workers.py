"""The processes of a run: the producer of detection events, pre-decoders, matchers.

They wait for each other by looking at the time stamps in the shared memory.  A worker takes all
that is ready at once, so that it pays for a call and for looking around once, not for each window.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import time
from pathlib import Path

import numpy as np

from qec.realtime.plan import NullBlock, Plan
from qec.realtime.shared_memory import Layout, SharedRun
from qec.support.compiled_loops import compiled
from qec.windows.window_state import SimilarWindows, WindowState

_SPIN = 1e-3  # seconds for which a worker without work keeps looking; then it naps
_NAP = 20e-6  # asked for; a system may make 100 of it
_MOST = 64  # windows or blocks of a call: the first of them waits for the last


def produce(memory: ctypes.Array, layout: Layout, period: float) -> None:
    """Hands the layers of ``source`` on as ``events``: a step, one of each qubit, per ``period``.

    Steps that are due while the producer slept come late, with the next ones, and are stamped with
    the time at which they were there.

    Args:
        memory: of the ``SharedRun``.
        period: seconds between steps; 0 makes all of them available at once.
    """
    run = SharedRun(layout, memory)
    shape = -1, layout.qubits, layout.layers, layout.width
    source, events = run.source.reshape(shape), run.events.reshape(shape)
    while not run.begin[0]:
        time.sleep(_NAP)
    start, emitted, total = time.monotonic_ns(), 0, layout.steps
    while emitted < total and not run.stop[0]:
        elapsed = (time.monotonic_ns() - start) / 1e9
        due = total if period == 0 else min(total, int(elapsed / period) + 1)
        if due == emitted:
            time.sleep(max(start / 1e9 + emitted * period - time.monotonic(), _NAP))
        while emitted < due:
            group, layer = divmod(emitted, layout.layers)
            end = min(layer + due - emitted, layout.layers)
            events[group, :, layer:end] = source[group, :, layer:end]
            run.arrived[emitted : emitted + end - layer] = time.monotonic_ns()
            emitted += end - layer
            run.steps[0] = emitted


def predecode(memory: ctypes.Array, layout: Layout, plan: Plan, index: int) -> None:
    """Pre-decodes every ``layout.predecoders``-th block, when its last layer has arrived."""
    windows, blocks = plan.block_windows, plan.blocks()
    alike = SimilarWindows(
        windows, [id(block) for block in blocks], plan.layers, layout.experiments
    )
    last = plan.last_block_steps(layout.experiments)
    mine = np.argsort(last, kind="stable")[index :: layout.predecoders]
    steps = last[mine]
    for block, window in dict(zip(blocks, windows, strict=True)).items():  # first calls set up
        block.apply(np.zeros((1, window.end - window.start, layout.width), dtype=np.uint8))
    run = SharedRun(layout, memory)
    _steps_ready(run.steps[0], steps, 0)
    with _Work(run, layout.matchers + index) as work:
        state = run.state()

        def apply(numbers: np.ndarray, block: NullBlock | None) -> None:
            for k, some, first in alike.groups(numbers):
                run.block_started[some] = time.monotonic_ns()
                state.predecode(windows[k], block or blocks[k], some, first)
                run.block_done[some] = time.monotonic_ns()

        done = 0
        while done < len(mine) and not run.stop[0]:
            ready = done + _steps_ready(run.steps[0], steps, done)
            if ready == done:
                work.idle()
                continue
            numbers = mine[done:ready]
            work.begin()
            if plan.deadline is not None:
                late = time.monotonic_ns() - run.arrived[steps[done:ready]] > plan.deadline
                apply(numbers[late], NullBlock())
                numbers = numbers[~late]
            apply(numbers, None)
            work.end()
            done = ready


def match(memory: ctypes.Array, layout: Layout, plan: Plan, index: int) -> None:
    """Decides every ``layout.matchers``-th window of layer A, and the gaps after them.

    A window of layer A is ready when its layers are, a gap when both its neighbours are decided.
    """
    for window in {id(w.matcher): w for w in plan.windows}.values():
        window.matcher.warm_up()
        WindowState.rehearse(window, layout.width, predecoder=layout.blocks > 0)
    last = plan.last_steps(layout.experiments)
    alike = SimilarWindows.of(plan.windows, plan.layers, layout.experiments)
    run, queues = SharedRun(layout, memory), _Queues(plan, layout, index, last)
    queues.ready(run)  # nothing is, but compiled loops are loaded
    with _Work(run, index) as work:
        state = run.state()
        while not queues.empty and not run.stop[0]:
            numbers = queues.ready(run)
            if not len(numbers):
                work.idle()
                continue
            work.begin()
            for k, some, first in alike.groups(numbers):
                due = None if plan.deadline is None else run.arrived[last[some]] + plan.deadline
                run.started[some] = time.monotonic_ns()
                state.decide(plan.windows[k], some, first, due)
                run.done[some] = time.monotonic_ns()
            work.end()


class _Queues:
    """The windows of one matcher, in the order in which they get ready.

    Args:
        last: as ``Plan.last_steps``.
    """

    def __init__(self, plan: Plan, layout: Layout, index: int, last: np.ndarray) -> None:
        n = len(plan.windows)
        is_gap = np.tile([w.before for w in plan.windows], layout.experiments)
        order = np.argsort(last, kind="stable")
        self._windows = order[~is_gap[order]][index :: layout.matchers]
        self._gaps = self._windows[self._windows % n + 1 < n] + 1
        self._steps = last[self._windows]
        # Rows of the blocks that each window waits for; the last one fills up.
        blocks = [(w.blocks.start, w.blocks.stop) for w in plan.windows]
        first, end = np.array(blocks)[self._windows % n].T + self._windows
        most = max(stop - start for start, stop in blocks)
        self._blocks = np.minimum(first[:, None] + np.arange(most), end[:, None] - 1)
        self._of_network = layout.blocks > 0
        self._window = self._gap = 0  # how many have been ready

    @property
    def empty(self) -> bool:
        return self._window == len(self._windows) and self._gap == len(self._gaps)

    def ready(self, run: SharedRun) -> np.ndarray:
        """int64, the numbers of the next windows, all of layer A or none; empty: wait."""
        if count := _gaps_ready(run.done, self._gaps, self._gap):
            self._gap += count
            return self._gaps[self._gap - count : self._gap]
        if self._of_network:
            count = _windows_ready(run.block_done, self._blocks, self._window)
        else:
            count = _steps_ready(run.steps[0], self._steps, self._window)
        self._window += count
        return self._windows[self._window - count : self._window]


@compiled
def _gaps_ready(done: np.ndarray, gaps: np.ndarray, start: int) -> int:
    """How many gaps from there on, one after the other, have neighbours that are decided."""
    end = min(start + _MOST, len(gaps))
    for k in range(start, end):
        if done[gaps[k] - 1] == 0 or done[gaps[k] + 1] == 0:
            return k - start
    return end - start


@compiled
def _windows_ready(block_done: np.ndarray, blocks: np.ndarray, start: int) -> int:
    """How many rows of ``blocks`` from there on have all their blocks."""
    end = min(start + _MOST, len(blocks))
    for k in range(start, end):
        for block in blocks[k]:
            if block_done[block] == 0:
                return k - start
    return end - start


@compiled
def _steps_ready(steps: int, needed: np.ndarray, start: int) -> int:
    """How many entries of ``needed``, ascending, from there on are below ``steps``."""
    end = min(start + _MOST, len(needed))
    for k in range(start, end):
        if needed[k] >= steps:
            return k - start
    return end - start


class _Work:
    """A worker's part in a run: says when it is ready and what memory it takes, and idles."""

    def __init__(self, run: SharedRun, index: int) -> None:
        self._run, self._index = run, index
        self._since, self._begun = 0.0, 0

    def __enter__(self) -> _Work:
        gc.collect()
        gc.disable()  # no pauses in between; nothing here makes reference cycles
        self._run.memory[self._index] = private_memory()
        self._run.ready[self._index] = time.monotonic_ns()
        return self

    def __exit__(self, *error: object) -> None:
        self._run.memory[self._index, 1] = private_memory()
        gc.enable()

    def begin(self) -> None:
        """There is work: the next time without is a new one."""
        self._since, self._begun = 0.0, time.monotonic_ns()

    def end(self) -> None:
        """The work is done."""
        self._run.busy[self._index] += time.monotonic_ns() - self._begun

    def idle(self) -> None:
        """There is no work: looks on for a while, then naps."""
        now = time.monotonic()
        self._since = self._since or now
        if now - self._since < _SPIN:
            time.sleep(0)
        else:
            time.sleep(_NAP)


def private_memory() -> int:
    """Bytes of memory of this process that are not shared; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return 0
    _, resident, shared, *_ = (int(word) for word in statm.read_text().split())
    return (resident - shared) * mmap.PAGESIZE
