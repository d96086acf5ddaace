"""The commit rule, chosen on validation shots that training and evaluation never use."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import stim
import torch
from rich.progress import track
from rich.table import Table

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
_WORST_C = 0.98  # at each distance; the shots that would tell it from 1 would take hours


class Choice(NamedTuple):
    """Commit rules and why.

    Attributes:
        rules: those chosen.
        records: one per threshold and gap: F and C per circuit, mean_log_F, mean_log_C,
            density_ratio (events sampled over events matched), fallback (fraction of shots), rate
            (mean detection rate).
        warnings: what no candidate reaches.
        quiet: the records at ``validation_quiet_p``.
    """

    rules: CommitRules
    records: list[dict]
    warnings: list[str]
    quiet: Sequence[dict] = ()


def choose_rules(network: PreDecoderNetwork, settings: TrainSettings) -> Choice:
    """Picks thresholds and gaps.

    Each candidate decodes the same shots of every validation circuit.  F and C are the LERs of
    uncorrelated and of correlated matching alone (basis-split model) over that of the candidate.
    The rule for correlated matching hands the fewest events to matching while C is
    ``validation_c`` on average, and 1 or nearly so at each distance; that for uncorrelated matching
    has the highest mean log F of those that cut the events by ``validation_density``.  Both get
    another gap at ``validation_quiet_p``, see ``with_quiet_gaps``.
    """
    loud, quiet = settings.validation_p, settings.validation_quiet_p
    choice = pick_rules(_records(network, settings, loud, (0.0, *settings.gaps)), settings)
    if quiet is None:
        return choice
    return with_quiet_gaps(
        choice, _records(network, settings, quiet, settings.quiet_gaps), settings
    )


def _records(
    network: PreDecoderNetwork, settings: TrainSettings, p: float, gaps: tuple[float, ...]
) -> list[dict]:
    """What each threshold and gap does at a noise strength."""
    circuits = validation_circuits(settings, p)
    lattices = [SpaceTimeLattice.from_circuit(circuit) for circuit in circuits.values()]
    rate = np.mean([lattice.detection_rate.mean() for lattice in lattices])
    pairs = list(zip(circuits.values(), lattices, strict=True))
    scores = [
        _circuit_scores(network, circuit, lattice, number, settings, gaps)
        for number, (circuit, lattice) in enumerate(
            track(pairs, f"validation, p = {p:g}", transient=True)
        )
    ]
    names = list(circuits)
    return [
        {**_record(threshold, gap, names, [score[i, j] for score in scores]), "rate": float(rate)}
        for (i, threshold), (j, gap) in itertools.product(
            enumerate(settings.thresholds), enumerate(gaps)
        )
    ]


def pick_rules(records: list[dict], settings: TrainSettings) -> Choice:
    """The choice among the candidates' records that ``choose_rules`` describes."""
    warnings = []
    cautious = [r for r in records if r["gap"] > 0]
    harmless = [r for r in cautious if _is_harmless(r, settings.validation_c)]
    if harmless:
        correlated = max(harmless, key=lambda r: r["density_ratio"])
    else:
        correlated = max(cautious, key=lambda r: r["mean_log_C"])
        warnings.append(
            f"no rule reaches C = {settings.validation_c:g}: train longer or allow larger gaps"
        )
    sparse = [r for r in records if r["density_ratio"] >= settings.validation_density]
    if not sparse:
        warnings.append(f"no rule cuts the events by {settings.validation_density:g}: train longer")
    uncorrelated = max(sparse or records, key=lambda r: r["mean_log_F"])
    chosen = (
        CommitRule(record["threshold"], record["gap"], settings.ensemble)
        for record in (uncorrelated, correlated)
    )
    return Choice(CommitRules(*chosen), records, warnings)


def with_quiet_gaps(choice: Choice, quiet: list[dict], settings: TrainSettings) -> Choice:
    """The rules with a second gap, for quieter noise.

    There logical errors are too rare to choose by, but falling back costs little: so each rule
    takes the largest gap that leaves its events cut by ``validation_quiet_density``, and at least
    the gap that it has.
    """

    def extended(rule: CommitRule) -> CommitRule:
        gaps = [
            record["gap"]
            for record in quiet
            if record["threshold"] == rule.threshold
            and record["density_ratio"] >= settings.validation_quiet_density
        ]
        steps = (quiet[0]["rate"], max([rule.gap, *gaps])), (choice.records[0]["rate"], rule.gap)
        return dataclasses.replace(rule, gap=steps)

    rules = CommitRules(**{name: extended(rule) for name, rule in vars(choice.rules).items()})
    return choice._replace(rules=rules, quiet=quiet)


def validation_circuits(settings: TrainSettings, p: float) -> dict[str, stim.Circuit]:
    """The circuits by name, "noise d=distance basis", at a noise strength."""
    return {
        f"{noise} d={d} {basis}": memory_circuit(
            RotatedSurfaceCode(d), CircuitNoise.named(noise, p), d, basis
        )
        for noise, d, basis in validation_grid(settings)
    }


def validation_grid(settings: TrainSettings) -> Iterator[tuple[str, int, str]]:
    """Noise, distance and basis of each validation circuit, in order."""
    return itertools.product(settings.validation_noises, settings.validation_distances, "XZ")


def validation_table(records: list[dict], rules: CommitRules) -> Table:
    """What each candidate does on average; the chosen ones marked."""
    columns = ("threshold", "gap", "F", "C", "events before / after", "fallback")
    table = Table(*columns, title="validation, means over circuits")
    for record in records:
        table.add_row(*validation_cells(record, rules))
    return table


def validation_cells(record: dict, rules: CommitRules) -> tuple[str, ...]:
    """One candidate: threshold, gap, mean F and C, density ratio, fallback; the chosen marked."""
    here = (record["threshold"], record["gap"])
    chosen = {name: (rule.threshold, rule.loud_gap) for name, rule in vars(rules).items()}
    marks = [name for name, there in chosen.items() if there == here]
    return (
        f"{record['threshold']:g}",
        " ".join([f"{record['gap']:g}", *(f"({mark})" for mark in marks)]),
        *(f"{math.exp(record[f'mean_log_{name}']):.3f}" for name in "FC"),
        f"{record['density_ratio']:.1f}",
        f"{100 * record['fallback']:.1f} %",
    )


def _is_harmless(record: dict, c: float) -> bool:
    worst = min(by_distance(record, "C").values())
    return record["mean_log_C"] >= math.log(c) and worst >= _WORST_C


def by_distance(record: dict, name: str) -> dict[str, float]:
    """Geometric means of F or C over the circuits of each distance, "d=5" and so on."""
    logs: dict[str, list[float]] = {}
    for circuit, factor in record[name].items():
        logs.setdefault(circuit.split()[1], []).append(math.log(factor))
    return {d: math.exp(np.mean(values)) for d, values in logs.items()}


class _Score(NamedTuple):
    """Counts of one candidate on one circuit."""

    shots: int
    uncorrelated: int  # errors of matching alone
    correlated: int
    errors: int  # of the candidate
    before: int  # detection events
    after: int
    fallbacks: int


def _record(threshold: float, gap: float, names: list[str], scores: list[_Score]) -> dict:
    total = _Score(*(sum(column) for column in zip(*scores, strict=True)))
    factors = {
        name: {
            circuit: (getattr(score, baseline) + 0.5) / (score.errors + 0.5)
            for circuit, score in zip(names, scores, strict=True)
        }
        for name, baseline in (("F", "uncorrelated"), ("C", "correlated"))
    }
    return {
        "threshold": threshold,
        "gap": gap,
        **{
            name: {circuit: round(factor, 4) for circuit, factor in found.items()}
            for name, found in factors.items()
        },
        **{
            f"mean_log_{name}": float(np.mean(np.log(list(found.values()))))
            for name, found in factors.items()
        },
        "density_ratio": round(total.before / max(total.after, 1), 2),
        "fallback": round(total.fallbacks / total.shots, 4),
    }


def _circuit_scores(
    network: PreDecoderNetwork,
    circuit: stim.Circuit,
    lattice: SpaceTimeLattice,
    number: int,
    settings: TrainSettings,
    gaps: tuple[float, ...],
) -> dict[tuple[int, int], _Score]:
    """The score of each (threshold number, gap number), all on the same shots."""
    plain = Matcher(basis_split(lattice), correlated=False)
    with_gap = GapMatcher(plain.graph, lattice, largest=max(gaps))
    ensemble = EnsembleMatcher(lattice, settings.ensemble)
    bound = Predecoder(network, CommitRules.same(0.5)).bind(lattice, settings.device)
    cuts = [CommitRule(threshold).cut for threshold in settings.thresholds]

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
        fallback = correlated
        if settings.ensemble > 1:
            fallback = ensemble.decode_batch(detectors) != truth
        logits = bound.logits(events)
        for i, cut in enumerate(cuts):
            left, flipped = bound.residual(events, logits > cut)
            residual = left.cpu().numpy()
            flips, found = with_gap.decode_batch(residual)
            wrong = (flips ^ flipped.cpu().numpy()) != truth
            for j, gap in enumerate(gaps):
                whole = found < gap * with_gap.logical_weight
                totals[i, j] += (
                    shots,
                    uncorrelated.sum(),
                    correlated.sum(),
                    np.where(whole, fallback, wrong).sum(),
                    weight.sum(),
                    residual.sum(dtype=np.int64) + weight[whole].sum(),
                    whole.sum(),
                )
    return {
        (i, j): _Score(*totals[i, j].tolist()) for i in range(len(cuts)) for j in range(len(gaps))
    }
