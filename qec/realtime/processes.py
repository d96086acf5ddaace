"""The processes of a run: the producer of detection events, pre-decoders, matchers.

They wait for each other by looking at the time stamps in the shared memory.
"""

from __future__ import annotations

import collections
import ctypes
import gc
import mmap
import time
from pathlib import Path

import numpy as np

from qec.board import needed_blocks
from qec.realtime.plan import Plan
from qec.realtime.shared import Layout, SharedRun

_SPIN = 1e-3  # seconds for which a worker without work keeps looking; then it naps
_NAP = 20e-6  # asked for; a system may make 100 of it


def produce(memory: ctypes.Array, layout: Layout, period: float) -> None:
    """Hands the layers of ``source`` on as ``events``, one per ``period``.

    A layer that is due while the producer slept comes late, with the next ones, and is stamped with
    the time at which it was there.

    Args:
        memory: of the ``SharedRun``.
        period: seconds between layers; 0 makes all of them available at once.
    """
    run = SharedRun(layout, memory)
    while not run.begin[0]:
        time.sleep(_NAP)
    start, emitted, total = time.monotonic_ns(), 0, layout.layers
    while emitted < total and not run.stop[0]:
        elapsed = (time.monotonic_ns() - start) / 1e9
        due = total if period == 0 else min(total, int(elapsed / period) + 1)
        if due > emitted:
            run.events[emitted:due] = run.source[emitted:due]
            run.arrived[emitted:due] = time.monotonic_ns()
            emitted = due
        else:
            time.sleep(max(start / 1e9 + emitted * period - time.monotonic(), _NAP))


def predecode(memory: ctypes.Array, layout: Layout, plan: Plan, index: int) -> None:
    """Pre-decodes every ``layout.predecoders``-th block, when its last layer has arrived."""
    blocks, windows = plan.blocks(), plan.block_windows
    shots, n = layout.layers // plan.layers, len(windows)
    mine = collections.deque(range(index, shots * n, layout.predecoders))
    for block, window in dict(zip(blocks, windows, strict=True)).items():  # first calls set up
        block.apply(np.zeros((1, window.end - window.start, layout.width), dtype=np.uint8))
    with _Work(SharedRun(layout, memory), layout.matchers + index) as work:
        run, boards = work.run, work.run.boards(shots)
        while mine and not run.stop[0]:
            shot, k = divmod(mine[0], n)
            if not run.arrived[shot * plan.layers + windows[k].end - 1]:
                work.idle()
                continue
            place = mine.popleft()
            work.busy()
            run.block_started[place] = time.monotonic_ns()
            boards[shot].predecode(k, windows[k], blocks[k])
            run.block_done[place] = time.monotonic_ns()


def match(memory: ctypes.Array, layout: Layout, plan: Plan, index: int) -> None:
    """Decodes every ``layout.matchers``-th window of layer A, and the gap after it.

    A window of layer A is ready when its layers are, a gap when both its neighbours are decided.
    """
    slots = plan.slots
    shots, n = layout.layers // plan.layers, len(slots)
    needs = [needed_blocks(slots, k) for k in range(n)]
    ahead = [p for p in range(shots * n) if not slots[p % n].before]
    windows = collections.deque(ahead[index :: layout.matchers])
    gaps = collections.deque(p + 1 for p in windows if p % n + 1 < n)
    for matcher in {id(s.matcher): s.matcher for s in slots}.values():
        matcher.warm_up()
    with _Work(SharedRun(layout, memory), index) as work:
        run, boards = work.run, work.run.boards(shots)

        def is_ready(place: int) -> bool:
            shot, k = divmod(place, n)
            if layout.blocks:
                need = needs[k]
                return bool(run.block_done[shot * n + need.start : shot * n + need.stop].all())
            return bool(run.arrived[shot * plan.layers + slots[k].window.end - 1])

        while (windows or gaps) and not run.stop[0]:
            if gaps and run.done[gaps[0] - 1] and run.done[gaps[0] + 1]:
                place = gaps.popleft()
            elif windows and is_ready(windows[0]):
                place = windows.popleft()
            else:
                work.idle()
                continue
            work.busy()
            run.started[place] = time.monotonic_ns()
            boards[place // n].decide(slots, place % n)
            run.done[place] = time.monotonic_ns()


class _Work:
    """A worker's part in a run: says when it is ready and what memory it takes, and idles."""

    def __init__(self, run: SharedRun, index: int) -> None:
        self.run, self._index = run, index
        self._since = 0.0

    def __enter__(self) -> _Work:
        gc.collect()
        gc.disable()  # no pauses in between; nothing here makes reference cycles
        self.run.memory[self._index] = private_memory()
        self.run.ready[self._index] = time.monotonic_ns()
        return self

    def __exit__(self, *error: object) -> None:
        self.run.memory[self._index, 1] = private_memory()
        gc.enable()

    def busy(self) -> None:
        """There is work: the next time without is a new one."""
        self._since = 0.0

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
