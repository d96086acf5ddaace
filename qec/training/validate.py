"""Commit rules tried on validation shots, which training and evaluation never use."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import stim
from rich.progress import track

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.errors import Preempted, QecError
from qec.journal import append_text, keep
from qec.lattice import SpaceTimeLattice
from qec.noise import CircuitNoise
from qec.pool import results, worker_count
from qec.predecoder.network import PreDecoderNetwork
from qec.preemption import stop_requests
from qec.training.candidates import SHOTS_PER_PASS, Counts, Pass, Trial, Tried, count
from qec.training.settings import TrainSettings

VALIDATION_SEED = 777_000_000
_WORTH_A_PROCESS = 2_000_000  # detectors, of all shots: a process takes seconds to start


_DAMAGE = (ValueError, TypeError, AttributeError, RecursionError)


class FoundCounts:
    """Counts by pass, kept in a file, so that a validation that was killed loses one pass.

    Args:
        path: of the file, with one line of JSON for each pass; None: they are not kept.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._found: dict[str, list] = {}
        if path is None or not path.exists():
            return
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError as error:
            raise QecError(f"cannot read {path}: {error.strerror}. Remove it.") from error
        *lines, unfinished = text.split("\n")  # the latter is what a killed job was writing
        damaged = 0
        for line in lines:
            try:
                self._found.update(_entry(line))
            except _DAMAGE:
                damaged += 1
        if damaged:
            print(
                f"qec: warning: {damaged} lines of {path} are damaged: their shots are decoded "
                "again.",
                file=sys.stderr,
            )
        if damaged or unfinished:
            keep(path, "".join(map(_line, self._found.items())))

    def get(self, part: Pass) -> np.ndarray | None:
        """int64 (candidates, 8), or None."""
        found = self._found.get(part.key)
        if found is None or len(found) != len(part.trial.tried.named()):
            return None
        return np.array(found, dtype=np.int64)

    def add(self, part: Pass, counts: np.ndarray) -> None:
        self._found[part.key] = counts.tolist()
        if self._path is not None:
            append_text(self._path, _line((part.key, self._found[part.key])))


def _entry(line: str) -> dict[str, list]:
    """Counts of one pass by its key; one of ``_DAMAGE`` where they cannot be right."""
    ((key, rows),) = json.loads(line).items()
    shots = int(key.rpartition("-")[2])
    for row in rows:
        if not all(type(value) is int and 0 <= value < 2**53 for value in row):
            raise ValueError(line)
        found = Counts(*row)
        of_shots = (found.uncorrelated, found.correlated, found.errors, found.differ)
        if found.shots != shots or max(*of_shots, found.fallbacks) > shots:
            raise ValueError(line)
    return {key: rows}


def _line(entry: tuple[str, list]) -> str:
    return json.dumps(dict([entry])) + "\n"


def validation_records(
    network: PreDecoderNetwork,
    settings: TrainSettings,
    p: float,
    tried: Tried,
    found: FoundCounts,
) -> list[dict]:
    """What each candidate does at a noise strength, by distance and noise.

    Every candidate decodes the same shots of every validation circuit.

    Args:
        network: the network.
        settings: the validation circuits and their number of shots.
        p: strength of their noise.
        tried: the candidates.
        found: counts to go on from and to add to.

    Returns:
        Dicts with distance, noise, what names the candidate (``Tried.named``), agree; F and C, the
        LERs of uncorrelated and of correlated matching alone (basis-split model) over that of the
        candidate, geometric means over the two bases; C_error, the standard error of ln C; events
        (sampled over handed to matching); fallback (fraction of the shots); rate (mean detection
        rate).

    Raises:
        Preempted: after SIGUSR1 or SIGTERM.
    """
    circuits = validation_circuits(settings, p)
    trials = [
        Trial(
            *(network, str(circuit), VALIDATION_SEED + number),
            *(tried, settings.ensemble, settings.device),
        )
        for number, circuit in enumerate(circuits)
    ]
    detectors = {t.key: c.num_detectors for t, c in zip(trials, circuits, strict=True)}
    totals = _totals(trials, detectors, settings, found, f"validation, p = {p:g}")
    scores: dict[tuple[int, str], list[np.ndarray]] = {}
    rates: dict[tuple[int, str], list[float]] = {}
    for (noise, distance, _), circuit, total in zip(
        validation_grid(settings), circuits, totals, strict=True
    ):
        rate = SpaceTimeLattice.from_circuit(circuit).detection_rate.mean()
        scores.setdefault((distance, noise), []).append(total)
        rates.setdefault((distance, noise), []).append(rate)
    return [
        {
            "distance": distance,
            "noise": noise,
            **name,
            "agree": list(tried.agree),
            **_summary([Counts(*total[k].tolist()) for total in scores[distance, noise]]),
            "rate": float(np.mean(rates[distance, noise])),
        }
        for distance, noise in sorted(scores)
        for k, name in enumerate(tried.named())
    ]


def _totals(
    trials: Sequence[Trial],
    detectors: Mapping[str, int],
    settings: TrainSettings,
    found: FoundCounts,
    label: str,
) -> list[np.ndarray]:
    """int64 (candidates, 8) for each trial, the sum over its passes.

    ``detectors``: how many the circuit of each trial has, by the trial's key.
    """
    shots = settings.validation_shots
    starts = range(0, shots, SHOTS_PER_PASS)
    passes = [
        Pass(trial, start, min(SHOTS_PER_PASS, shots - start))
        for trial in trials
        for start in starts
    ]
    missing = [part for part in passes if found.get(part) is None]
    workers = 1
    if settings.device == "cpu":
        workers = worker_count(settings.validation_workers, "validation_workers")
    work = sum(part.shots * detectors[part.trial.key] for part in missing)
    workers = min(workers, len(missing), work // _WORTH_A_PROCESS)
    new = results(count, missing, workers)
    with stop_requests() as request:
        for part, counts in track(new, label, len(missing), transient=True):
            found.add(part, counts)
            if request.name is not None:
                raise Preempted(f"stopped by {request.name} during validation")
    return [
        sum(found.get(part) for part in own)
        for _, own in itertools.groupby(passes, key=lambda part: part.trial.key)
    ]


def _summary(bases: Sequence[Counts]) -> dict[str, float]:
    """Of one candidate at one distance and noise, from its counts in the two bases."""
    total = Counts(*(sum(column) for column in zip(*bases, strict=True)))
    return {
        "F": _mean_factor([(counts.uncorrelated, counts.errors) for counts in bases]),
        "C": _mean_factor([(counts.correlated, counts.errors) for counts in bases]),
        "C_error": _standard_error(bases),
        "events": round(total.before / max(total.after, 1), 2),
        "fallback": round(total.fallbacks / total.shots, 4),
    }


def _mean_factor(errors: list[tuple[int, int]]) -> float:
    logs = [math.log((baseline + 0.5) / (own + 0.5)) for baseline, own in errors]
    return round(math.exp(np.mean(logs)), 4)


def _standard_error(bases: Sequence[Counts]) -> float:
    """Of the mean of ln C: it comes from the shots on which one of the two is wrong."""
    variance = [c.differ / max(c.correlated * c.errors, 1) for c in bases]
    return round(math.sqrt(sum(variance)) / len(variance), 5)


def validation_circuits(settings: TrainSettings, p: float) -> list[stim.Circuit]:
    """The circuits at a noise strength, in order."""
    return [
        memory_circuit(RotatedSurfaceCode(d), CircuitNoise.named(noise, p), d, basis)
        for noise, d, basis in validation_grid(settings)
    ]


def validation_names(settings: TrainSettings) -> list[str]:
    """Noise, distance and basis of each validation circuit in words, in order."""
    return [f"{noise} d={d} {basis}" for noise, d, basis in validation_grid(settings)]


def validation_grid(settings: TrainSettings) -> Iterator[tuple[str, int, str]]:
    """Noise, distance and basis of each validation circuit, in order."""
    return itertools.product(settings.validation_noises, settings.validation_distances, "XZ")
