"""What a real-time run was like: throughput, latency, backlog, reaction time, logical errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qec.realtime.plan import Plan
from qec.realtime.shared import SharedRun

PERCENTILES = (50, 90, 99, 99.9, 100)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """One run at one period.

    Attributes:
        decoder: kind of matching.
        period_us: between rounds; 0: all rounds at once.
        rounds, shots: of an experiment, and how many.
        windows, decided: windows there were, and that were decided.
        us_per_round: microseconds from the first round to the last decision, over all rounds.
        busy_us_per_round: time that all workers spent on matching, over all rounds.
        latency_us: by window of layer A or B, from its last event to its decision, percentiles 50,
            90, 99, 99.9 and 100 (B's last event is that of its neighbours).
        wait_us: from the moment at which a window could be decoded to its start, likewise.
        reaction_us: from an experiment's last round to its logical answer, median.
        backlog: (samples, 2): seconds, rounds that have arrived and are not decided.
        stable: whether the backlog does not grow in the second half of the run.
        n_par: processes needed to keep up, busy time over period (arXiv:2604.12841 counts parallel
            resources by 2 T_dec / ((T_l + T_s)(n_com + n_buf)), for windows of layer A).
        answers: uint8 (shots,), logical flips; of undecided experiments 0.
        latencies_us: float64 (decided,), for the histogram.
    """

    decoder: str
    period_us: float
    rounds: int
    shots: int
    windows: int
    decided: int
    us_per_round: float
    busy_us_per_round: float
    latency_us: dict[str, list[float]]
    wait_us: list[float]
    reaction_us: float
    backlog: np.ndarray
    stable: bool
    n_par: float
    answers: np.ndarray
    latencies_us: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """All that is no long array."""
        long = ("backlog", "answers", "latencies_us")
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in long
        }


def report(run: SharedRun, plan: Plan, decoder: str, period: float, backlog: np.ndarray) -> Report:
    """Reads a finished run off its shared memory; ``period`` in seconds."""
    n, per_shot = len(plan.slots), plan.rounds + 1
    shots = run.layout.layers // per_shot
    ends = np.array([s.window.end for s in plan.slots])
    needs = np.concatenate([k * per_shot + ends - 1 for k in range(shots)])
    is_gap = np.tile([s.gap for s in plan.slots], shots)
    gaps = np.flatnonzero(is_gap)
    needs[gaps] = needs[gaps + 1]  # the right neighbour of a gap sees the latest events
    done, started = run.done.copy(), run.started.copy()
    decided = done > 0
    last_event = run.arrived[needs]
    could_start = last_event.copy()
    could_start[gaps] = np.maximum(done[gaps - 1], done[gaps + 1])
    latency = (done - last_event) / 1e3
    by_layer = {
        name: _percentiles(latency[decided & (is_gap == gap)])
        for name, gap in (("A", False), ("B", True))
    }
    total = int(np.count_nonzero(run.arrived))
    begin = int(run.arrived[0])
    busy = float((done - started)[decided].sum()) / 1e3 / max(total, 1)
    complete = decided.reshape(shots, n).all(axis=1)
    last_done = done.reshape(shots, n).max(axis=1)
    reaction = (last_done - run.arrived[per_shot - 1 :: per_shot])[complete] / 1e3
    flips = np.bitwise_xor.reduce(run.flip.reshape(shots, n), axis=1)
    return Report(
        decoder=decoder,
        period_us=period * 1e6,
        rounds=plan.rounds,
        shots=shots,
        windows=len(done),
        decided=int(decided.sum()),
        us_per_round=(int(done.max()) - begin) / 1e3 / max(total, 1),
        busy_us_per_round=busy,
        latency_us=by_layer,
        wait_us=_percentiles((started - could_start)[decided] / 1e3),
        reaction_us=float(np.median(reaction)) if len(reaction) else math.nan,
        backlog=backlog,
        stable=period > 0 and bool(decided.all()) and is_stable(backlog, 1 / period),
        n_par=busy / (period * 1e6) if period else math.inf,
        answers=np.where(complete, flips, 0).astype(np.uint8),
        latencies_us=latency[decided],
    )


def is_stable(backlog: np.ndarray, rate: float) -> bool:
    """Whether the backlog's trend over the second half of a run is below a twentieth of the rounds.

    Args:
        backlog: as in ``Report``, without the end where no rounds arrive any more.
        rate: rounds that arrive per second.
    """
    seconds, waiting = backlog[len(backlog) // 2 :].T
    if len(seconds) < 4:
        return True  # too short a run to fall behind visibly
    return bool(np.polyfit(seconds, waiting, 1)[0] < rate / 20)


def _percentiles(values: np.ndarray) -> list[float]:
    if not len(values):
        return [math.nan] * len(PERCENTILES)
    return np.percentile(values, PERCENTILES).round(1).tolist()
