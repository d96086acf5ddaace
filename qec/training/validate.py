"""Commit rules tried on validation shots, which training and evaluation never use."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import stim
import torch
from rich.progress import track

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.ensemble import EnsembleMatcher
from qec.gap import GapMatcher
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.noise import CircuitNoise
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork
from qec.predecoder.rule import CommitRule, CommitRules
from qec.training.settings import TrainSettings

VALIDATION_SEED = 777_000_000
_SHOTS_PER_PASS = 1024


def validation_records(
    network: PreDecoderNetwork,
    settings: TrainSettings,
    p: float,
    thresholds: tuple[float, ...],
    gaps: tuple[float, ...],
) -> list[dict]:
    """What each threshold and gap does at a noise strength, by distance and noise.

    Every candidate decodes the same shots of every validation circuit.

    Returns:
        Dicts with distance, noise, threshold, gap; F and C, the LERs of uncorrelated and of
        correlated matching alone (basis-split model) over that of the candidate, geometric means
        over the two bases; C_error, the standard error of ln C; events (sampled over handed to
        matching); fallback (fraction of the shots); rate (mean detection rate).
    """
    records = []
    circuits = validation_circuits(settings, p)
    scores: dict[tuple[int, str], list[dict]] = {}
    rates: dict[tuple[int, str], list[float]] = {}
    grid = validation_grid(settings)
    tracked = track(circuits, f"validation, p = {p:g}", transient=True)
    for number, ((noise, distance, _), circuit) in enumerate(zip(grid, tracked, strict=True)):
        lattice = SpaceTimeLattice.from_circuit(circuit)
        found = _circuit_scores(network, circuit, lattice, number, settings, thresholds, gaps)
        scores.setdefault((distance, noise), []).append(found)
        rates.setdefault((distance, noise), []).append(lattice.detection_rate.mean())
    for place, (i, threshold), (j, gap) in itertools.product(
        sorted(scores), enumerate(thresholds), enumerate(gaps)
    ):
        here = [score[i, j] for score in scores[place]]
        total = _Score(*(sum(column) for column in zip(*here, strict=True)))
        records.append(
            {
                "distance": place[0],
                "noise": place[1],
                "threshold": threshold,
                "gap": gap,
                "F": _mean_factor([(score.uncorrelated, score.errors) for score in here]),
                "C": _mean_factor([(score.correlated, score.errors) for score in here]),
                "C_error": _standard_error(here),
                "events": round(total.before / max(total.after, 1), 2),
                "fallback": round(total.fallbacks / total.shots, 4),
                "rate": float(np.mean(rates[place])),
            }
        )
    return records


def _mean_factor(errors: list[tuple[int, int]]) -> float:
    logs = [math.log((baseline + 0.5) / (own + 0.5)) for baseline, own in errors]
    return round(math.exp(np.mean(logs)), 4)


def _standard_error(scores: Sequence[_Score]) -> float:
    """Of the mean of ln C: it comes from the shots on which one of the two is wrong."""
    variance = [s.differ / max(s.correlated * s.errors, 1) for s in scores]
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


class _Score(NamedTuple):
    """Counts of one candidate on one circuit."""

    shots: int
    uncorrelated: int  # errors of matching alone
    correlated: int
    errors: int  # of the candidate
    differ: int  # shots on which just one of the candidate and correlated matching is wrong
    before: int  # detection events
    after: int
    fallbacks: int


def _circuit_scores(
    network: PreDecoderNetwork,
    circuit: stim.Circuit,
    lattice: SpaceTimeLattice,
    number: int,
    settings: TrainSettings,
    thresholds: tuple[float, ...],
    gaps: tuple[float, ...],
) -> dict[tuple[int, int], _Score]:
    """The score of each (threshold number, gap number), all on the same shots."""
    plain = Matcher(basis_split(lattice), correlated=False)
    with_gap = GapMatcher(plain.graph, lattice, largest=max(gaps))
    ensemble = EnsembleMatcher(lattice, settings.ensemble)
    bound = Predecoder(network, CommitRules.same(0.5)).bind(lattice, settings.device)
    cuts = [CommitRule(threshold).cut for threshold in thresholds]

    sampler = circuit.compile_detector_sampler(seed=VALIDATION_SEED + number)
    totals = np.zeros((len(cuts), len(gaps), len(_Score._fields)), dtype=np.int64)
    for start in range(0, settings.validation_shots, _SHOTS_PER_PASS):
        shots = min(_SHOTS_PER_PASS, settings.validation_shots - start)
        sampled, observables = sampler.sample(shots, separate_observables=True)
        detectors, truth = sampled.view(np.uint8), observables[:, 0].view(np.uint8)
        events = torch.from_numpy(detectors).to(settings.device)
        weight = detectors.sum(axis=1, dtype=np.int64)
        uncorrelated = plain.decode_batch(detectors) != truth
        correlated = ensemble.unperturbed.decode_batch(detectors) != truth
        logits = bound.logits(events)
        doubt = bound.gap(logits)
        judged = []  # by each threshold: events left, whether wrong, gap
        for cut in cuts:
            left, flipped = bound.residual(events, logits > cut)
            residual = left.cpu().numpy()
            flips, found = with_gap.decode_batch(residual)
            wrong = (flips ^ flipped.cpu().numpy()) != truth
            judged.append((residual.sum(dtype=np.int64), wrong, np.minimum(found, doubt)))
        fallback = correlated
        if settings.ensemble > 1:
            fallback = correlated.copy()
            least = np.min([found for *_, found in judged], axis=0)
            asked = np.flatnonzero(least < with_gap.cap)
            fallback[asked] = ensemble.decode_batch(detectors[asked]) != truth[asked]
        for i, (left, wrong, found) in enumerate(judged):
            for j, gap in enumerate(gaps):
                whole = found < gap * with_gap.logical_weight
                errors = np.where(whole, fallback, wrong)
                totals[i, j] += (
                    shots,
                    uncorrelated.sum(),
                    correlated.sum(),
                    errors.sum(),
                    (errors != correlated).sum(),
                    weight.sum(),
                    left + weight[whole].sum(),
                    whole.sum(),
                )
    return {
        (i, j): _Score(*totals[i, j].tolist()) for i in range(len(cuts)) for j in range(len(gaps))
    }
