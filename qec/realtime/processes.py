"""The processes of a run: the producer of detection events, pre-decoders, matchers.

They wait for each other by looking at the time stamps in the shared memory.
"""

from __future__ import annotations

import collections
import gc
import mmap
import time
from pathlib import Path

import numpy as np

from qec.realtime.places import window_places
from qec.realtime.plan import Plan
from qec.realtime.shared import Layout, SharedRun

_SPIN = 200e-6  # seconds for which a worker without work keeps looking; then it naps
_NAP = 20e-6


def produce(name: str, layout: Layout, source: Path, period: float) -> None:
    """Writes the layers of ``source``, an .npy file, to the shared memory, one per ``period``.

    A layer that is due while the producer slept comes late, with the next ones, and is stamped with
    the time at which it was there.

    Args:
        period: seconds between layers; 0 makes all of them available at once.
    """
    layers = np.load(source, mmap_mode="r")
    with SharedRun(layout, name) as run:
        while not run.begin[0]:
            time.sleep(_NAP)
        start, emitted = time.monotonic_ns(), 0
        while emitted < len(layers) and not run.stop[0]:
            elapsed = (time.monotonic_ns() - start) / 1e9
            due = len(layers) if period == 0 else min(len(layers), int(elapsed / period) + 1)
            if due > emitted:
                run.events[emitted:due] = layers[emitted:due]
                run.arrived[emitted:due] = time.monotonic_ns()
                emitted = due
            else:
                time.sleep(max(start / 1e9 + emitted * period - time.monotonic(), _NAP))


def predecode(name: str, layout: Layout, plan: Plan, index: int) -> None:
    """Pre-decodes every ``layout.predecoders``-th block, when its last layer has arrived."""
    from qec.sinter_plugin import limit_threads_in_workers

    limit_threads_in_workers()
    blocks, windows = plan.blocks(), plan.block_windows
    shots, n = layout.layers // plan.layers, len(windows)
    mine = collections.deque(
        (shot * n + k, windows[k].shifted(shot * plan.layers), blocks[k])
        for shot in range(shots)
        for k in range(n)
        if (shot * n + k) % layout.predecoders == index
    )
    for block, window in dict(zip(blocks, windows, strict=True)).items():  # first calls set up
        block.apply(np.zeros((1, window.end - window.start, layout.width), dtype=np.uint8))
    with _Work(SharedRun(layout, name), layout.matchers + index) as work:
        run = work.run
        while mine and not run.stop[0]:
            place, window, block = mine[0]
            if not run.arrived[window.end - 1]:
                work.idle()
                continue
            mine.popleft()
            work.busy()
            run.block_started[place] = time.monotonic_ns()
            events = run.events[window.start : window.end]
            explained, flip = block.apply(events[None])
            core = slice(window.core_start, window.core_end)
            inner = slice(core.start - window.start, core.stop - window.start)
            run.residual[core] = events[inner] ^ explained[0, inner]
            if window.core_end < window.end:
                run.carry[place] = explained[0, inner.stop]
            run.block_flip[place] = flip[0]
            run.block_done[place] = time.monotonic_ns()


def match(name: str, layout: Layout, plan: Plan, index: int) -> None:
    """Decodes every ``layout.matchers``-th window of layer A, and the gap after it.

    A window of layer A is ready when its layers are, a gap when both its neighbours are decided.
    """
    places = window_places(plan, plan.slots(), layout.layers // plan.layers)
    ahead = [p for p in places if not p.slot.gap]
    mine = {p.index for p in ahead[index :: layout.matchers]}
    windows = collections.deque(p for p in ahead if p.index in mine)
    gaps = collections.deque(p for p in places if p.slot.gap and p.index - 1 in mine)
    for slot in {id(p.slot.decoder): p.slot for p in places}.values():  # first calls set up
        length = slot.window.end - slot.window.start
        slot.decoder.decode(np.zeros((1, length, layout.width), dtype=np.uint8))
    with _Work(SharedRun(layout, name), index) as work:
        run = work.run
        while (windows or gaps) and not run.stop[0]:
            if gaps and run.done[gaps[0].index - 1] and run.done[gaps[0].index + 1]:
                todo = gaps.popleft()
            elif windows and windows[0].is_ready(run):
                todo = windows.popleft()
            else:
                work.idle()
                continue
            work.busy()
            run.started[todo.index] = time.monotonic_ns()
            flip, defects = todo.slot.decoder.decode(todo.layers(run)[None])
            run.flip[todo.index], run.defects[todo.index] = flip[0], defects[0]
            run.done[todo.index] = time.monotonic_ns()


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
        self.run.__exit__(*error)

    def busy(self) -> None:
        """There is work: the next time without is a new one."""
        self._since = 0.0

    def idle(self) -> None:
        """There is no work: looks on for a while, then naps."""
        now = time.monotonic()
        self._since = self._since or now
        time.sleep(_NAP if now - self._since > _SPIN else 0)


def private_memory() -> int:
    """Bytes of memory of this process that are not shared; 0 where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return 0
    _, resident, shared, *_ = (int(word) for word in statm.read_text().split())
    return (resident - shared) * mmap.PAGESIZE
