"""The producer of detection events and the decoder processes."""

from __future__ import annotations

import collections
import dataclasses
import time
from pathlib import Path

import numpy as np
import stim

from qec.realtime.plan import Plan, Slot
from qec.realtime.shared import Layout, SharedRun

_NAP = 2e-5  # seconds between looks at the shared memory


@dataclasses.dataclass(frozen=True)
class PlanArguments:
    """What a worker builds its ``Plan`` from; the model as text, matchings cannot be passed on."""

    model: str
    rounds: int
    commit: int
    buffer: int
    correlated: bool

    def build(self) -> Plan:
        dem = stim.DetectorErrorModel(self.model)
        return Plan(dem, self.rounds, self.commit, self.buffer, self.correlated)


def produce(name: str, layout: Layout, source: Path, period: float) -> None:
    """Writes the layers of ``source``, an .npy file, to the shared memory, one per ``period``.

    A layer that is due while the producer slept comes late, with the next ones, and is stamped with
    the time at which it was there.

    Args:
        period: seconds between layers; 0 makes all of them available at once.
    """
    layers = np.load(source)
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


def work(name: str, layout: Layout, arguments: PlanArguments, index: int) -> None:
    """Decodes every ``layout.workers``-th window of layer A, and the gap after it.

    A window of layer A is ready when its last layer has arrived, a gap when both its neighbours are
    decided.
    """
    plan = arguments.build()
    per_shot = plan.rounds + 1
    shots = layout.layers // per_shot
    n = len(plan.slots)
    places = [
        (shot * n + k, shot * per_shot, s)
        for shot in range(shots)
        for k, s in enumerate(plan.slots)
    ]
    ahead = [p for p in places if not p[2].gap]
    mine = {k for k, _, _ in ahead[index :: layout.workers]}
    windows = collections.deque(p for p in ahead if p[0] in mine)
    gaps = collections.deque(p for p in places if p[2].gap and p[0] - 1 in mine)
    warm_up(plan)
    with SharedRun(layout, name) as run:
        run.ready[index] = time.monotonic_ns()
        while (windows or gaps) and not run.stop[0]:
            if gaps and run.done[gaps[0][0] - 1] and run.done[gaps[0][0] + 1]:
                _decide(run, plan, *gaps.popleft())
            elif windows and run.arrived[windows[0][1] + windows[0][2].window.end - 1]:
                _decide(run, plan, *windows.popleft())
            else:
                time.sleep(_NAP)


def warm_up(plan: Plan) -> None:
    """Matches every kind of window once: first calls set things up."""
    for slot in {s.kind: s for s in plan.slots}.values():
        length = slot.window.end - slot.window.start
        plan.decode(slot, np.zeros((length, plan.width), dtype=np.uint8))


def _decide(run: SharedRun, plan: Plan, place: int, offset: int, slot: Slot) -> None:
    run.started[place] = time.monotonic_ns()
    layers = run.events[offset + slot.window.start : offset + slot.window.end]
    if slot.gap:
        layers = layers.copy()
        layers[0] ^= run.defects[place - 1, 1]
        layers[-1] ^= run.defects[place + 1, 0]
    run.flip[place], run.defects[place] = plan.decode(slot, layers)
    run.done[place] = time.monotonic_ns()
