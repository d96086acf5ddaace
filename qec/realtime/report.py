"""What a real-time run was like: throughput, latency, backlog, reaction time, memory."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qec.realtime.plan import Plan
from qec.realtime.shared_memory import SharedRun

_SAMPLES = 1000  # moments at which the backlog is looked at
PERCENTILES = (50, 90, 99, 99.9, 100)


@dataclasses.dataclass(frozen=True, eq=False)
class Report:
    """One run at one period.

    Attributes:
        decoder: kind of matching.
        period_us: between rounds; 0: all rounds at once.
        deadline_us: as of ``Plan``; None: there is none.
        rounds, shots: of an experiment, and how many.
        commit, buffer: layers of the windows.
        windows, decided: windows there were, and that were decided.
        fell_back: fraction of the decided ones that a better matching decided.
        late: fraction of them that it would have, had there been time.
        us_per_round: microseconds from the first round to the last decision, over all rounds of all
            qubits.
        match_us_per_round, predecode_us_per_round: time that all processes of a stage spent on it,
            over all rounds of all qubits.
        latency_us: of all windows, and by layer A or B, from a window's last event to its decision,
            percentiles 50, 90, 99, 99.9 and 100 (B's last event is that of its neighbours).  With a
            pre-decoder the rounds that its blocks look ahead are part of it.
        latency_drift: median latency of A in the last quarter of the run over that in the first.
        wait_us: from the moment at which a window could be decoded to its start, likewise.
        block_wait_us: the same for the blocks of the pre-decoder.
        reaction_us: from an experiment's last round to its logical answer, which is when a
            feed-forward can start, percentiles.
        backlog: (samples, 2): seconds, rounds that have arrived and are not decided.
        stable: whether the backlog does not grow in the second half of the run, and at its end is
            worked off within a twentieth of the run's time.
        n_par: processes needed to keep up, time spent by both stages over the period.  For matching
            alone that is 2 T_dec / ((T_l + T_s)(n_com + n_buf)) of arXiv:2604.12841, T_dec the
            mean over the windows of A and B.
        memory_mb: of each worker for itself, megabytes when set up and at the end.
        answers: uint8 (shots,), logical flips; of undecided experiments 0.
        latencies_us: float64 (decided,), for the histogram.
    """

    decoder: str
    period_us: float
    deadline_us: float | None
    rounds: int
    commit: int
    buffer: int
    shots: int
    windows: int
    decided: int
    fell_back: float
    late: float
    us_per_round: float
    match_us_per_round: float
    predecode_us_per_round: float
    latency_us: dict[str, list[float]]
    latency_drift: float
    wait_us: list[float]
    block_wait_us: list[float]
    reaction_us: list[float]
    backlog: np.ndarray
    stable: bool
    n_par: float
    memory_mb: list[list[float]]
    answers: np.ndarray
    latencies_us: np.ndarray

    def to_dict(self) -> dict[str, object]:
        """All that is no long array."""
        long = ("backlog", "answers", "latencies_us")
        return {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in long
        }


def report(run: SharedRun, plan: Plan, decoder: str, period: float) -> Report:
    """Reads a finished run off its shared memory; ``period`` in seconds."""
    layout, n = run.layout, len(plan.windows)
    shots = layout.experiments
    is_gap = np.tile([w.before for w in plan.windows], shots)
    gaps = np.flatnonzero(is_gap)
    last_event = run.arrived[plan.last_steps(shots)]
    done, started, block_done = run.done.copy(), run.started.copy(), run.block_done.copy()
    decided = done > 0
    cores = np.tile([w.core for w in plan.windows], shots)
    backlog = _backlog(run.arrived, done, cores, plan.qubits)
    could_start = last_event.copy()
    if len(block_done):
        by_shot = block_done.reshape(shots, n)
        needs = [slice(k + w.blocks.start, k + w.blocks.stop) for k, w in enumerate(plan.windows)]
        could_start = np.stack([by_shot[:, need].max(axis=1) for need in needs], axis=1).reshape(-1)
    could_start[gaps] = np.maximum(done[gaps - 1], done[gaps + 1])
    latency = (done - last_event) / 1e3
    of_a = latency[decided & ~is_gap]
    quarter = max(len(of_a) // 4, 1)
    blocks_ready = run.arrived[plan.last_block_steps(shots)]
    predecoded = block_done > 0
    total = plan.qubits * max(int(np.count_nonzero(run.arrived)), 1)
    match, predecode = (
        float(busy.sum()) / 1e3 / total
        for busy in (run.busy[: layout.matchers], run.busy[layout.matchers :])
    )
    complete = decided.reshape(shots, n).all(axis=1)
    last_done = done.reshape(shots, n).max(axis=1)
    group = np.arange(shots) // plan.qubits
    reaction = (last_done - run.arrived[plan.layers * (group + 1) - 1])[complete] / 1e3
    flips = np.bitwise_xor.reduce(run.flip.reshape(shots, n), axis=1)
    answers = np.where(complete, flips, 0).astype(np.uint8)
    return Report(
        decoder=decoder,
        period_us=period * 1e6,
        deadline_us=None if plan.deadline is None else plan.deadline / 1e3,
        rounds=plan.rounds,
        commit=plan.commit,
        buffer=plan.buffer,
        shots=shots,
        windows=len(done),
        decided=int(decided.sum()),
        fell_back=float(run.fell_back[decided].mean()) if decided.any() else math.nan,
        late=float(run.late[decided].mean()) if decided.any() else math.nan,
        us_per_round=(int(done.max()) - int(run.arrived[0])) / 1e3 / total,
        match_us_per_round=match,
        predecode_us_per_round=predecode,
        latency_us={
            "all": _percentiles(latency[decided]),
            "A": _percentiles(of_a),
            "B": _percentiles(latency[decided & is_gap]),
        },
        latency_drift=float(np.median(of_a[-quarter:]) / np.median(of_a[:quarter]))
        if len(of_a)
        else math.nan,
        wait_us=_percentiles((started - could_start)[decided] / 1e3),
        block_wait_us=_percentiles((run.block_started - blocks_ready)[predecoded] / 1e3),
        reaction_us=_percentiles(reaction),
        backlog=backlog,
        stable=period > 0
        and bool(decided.all())
        and is_stable(backlog, plan.qubits / period)
        and bool((done.max() - run.arrived[-1]) / 1e9 < period * layout.steps / 20),
        n_par=plan.qubits * (match + predecode) / (period * 1e6) if period else math.inf,
        memory_mb=(run.memory / 1e6).round(1).tolist(),
        answers=answers,
        latencies_us=latency[decided],
    )


def _backlog(arrived: np.ndarray, done: np.ndarray, cores: np.ndarray, qubits: int) -> np.ndarray:
    """As in ``Report``, at evenly spaced moments while rounds arrive; ``cores`` in layers."""
    order = np.argsort(done, kind="stable")
    order = order[np.count_nonzero(done == 0) :]
    there = np.sort(arrived[arrived > 0])
    if not len(there):
        return np.zeros((0, 2))
    moments = np.linspace(there[0], there[-1], _SAMPLES)
    committed = np.concatenate([[0], np.cumsum(cores[order])])
    waiting = qubits * np.searchsorted(there, moments, side="right")
    waiting = waiting - committed[np.searchsorted(done[order], moments, side="right")]
    return np.stack([(moments - there[0]) / 1e9, waiting], axis=1)


def is_stable(backlog: np.ndarray, rate: float) -> bool:
    """Whether the backlog's trend over the second half of a run is below a twentieth of the rounds.

    Args:
        backlog: as in ``Report``.
        rate: rounds that arrive per second.
    """
    seconds, waiting = backlog[len(backlog) // 2 :].T
    return bool(np.polyfit(seconds, waiting, 1)[0] < rate / 20)


def _percentiles(values: np.ndarray) -> list[float]:
    if not len(values):
        return [math.nan] * len(PERCENTILES)
    return np.percentile(values, PERCENTILES).round(1).tolist()
