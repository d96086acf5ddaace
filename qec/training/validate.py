"""The commit threshold, chosen on validation shots that training and evaluation never use."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from rich.table import Table

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.noise import CircuitNoise
from qec.predecoder.correction import Predecoder, commit_cut
from qec.predecoder.network import PreDecoderNetwork
from qec.training.settings import TrainSettings

VALIDATION_SEED = 777_000_000
_SHOTS_PER_PASS = 1024


class Choice(NamedTuple):
    """A threshold and why.

    Attributes:
        threshold: the one chosen.
        records: one per candidate: threshold, F per circuit, mean_log_F, and density_ratio, events
            before over events after.
        warning: what is wrong with all candidates, or None.
    """

    threshold: float
    records: list[dict]
    warning: str | None


def choose_threshold(network: PreDecoderNetwork, settings: TrainSettings) -> Choice:
    """Picks the threshold with the highest mean log F among those that halve the events.

    Each candidate decodes the same shots of every validation circuit (distances x {X, Z}, uniform
    noise); the score is the mean over circuits of log F, where F is the LER of uncorrelated
    matching alone (basis-split model) over that of pre-decoder and matching.  Where none halves
    the events, all are candidates and the choice carries a warning.
    """
    circuits = [(d, basis) for d in settings.validation_distances for basis in ("X", "Z")]
    records = [{"threshold": t, "F": {}, "before": 0, "after": 0} for t in settings.thresholds]
    for number, (d, basis) in enumerate(circuits):
        for record, (factor, before, after) in zip(
            records, _circuit_scores(network, d, basis, number, settings), strict=True
        ):
            record["F"][f"d={d} {basis}"] = round(factor, 4)
            record["before"] += before
            record["after"] += after
    for record in records:
        record["mean_log_F"] = float(np.mean([math.log(f) for f in record["F"].values()]))
        record["density_ratio"] = round(record.pop("before") / max(record.pop("after"), 1), 2)
    halved = [record for record in records if record["density_ratio"] >= 2]
    best = max(halved or records, key=lambda record: record["mean_log_F"])
    warning = None if halved else "no threshold halves the detection events: train longer"
    return Choice(best["threshold"], records, warning)


def validation_table(records: list[dict], chosen: float) -> Table:
    """The candidates as a table, the chosen threshold marked."""
    table = Table("threshold", *records[0]["F"], "events before / after", title="F on validation")
    for record in records:
        mark = " *" if record["threshold"] == chosen else ""
        factors = [f"{f:.2f}" for f in record["F"].values()]
        table.add_row(f"{record['threshold']}{mark}", *factors, f"{record['density_ratio']:.1f}")
    return table


def _circuit_scores(
    network: PreDecoderNetwork, d: int, basis: str, number: int, settings: TrainSettings
) -> list[tuple[float, int, int]]:
    """(F, events before, events after) for each threshold, all on the same shots."""
    noise = CircuitNoise.uniform(settings.validation_p)
    circuit = memory_circuit(RotatedSurfaceCode(d), noise, d, basis)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    matcher = Matcher(basis_split(lattice), correlated=False)
    bound = Predecoder(network, threshold=0.5).bind(lattice, settings.device)
    cuts = [commit_cut(threshold) for threshold in settings.thresholds]

    sampler = circuit.compile_detector_sampler(seed=VALIDATION_SEED + number)
    baseline, errors, after, before = 0, np.zeros(len(cuts)), np.zeros(len(cuts)), 0
    for start in range(0, settings.validation_shots, _SHOTS_PER_PASS):
        shots = min(_SHOTS_PER_PASS, settings.validation_shots - start)
        sampled, observables = sampler.sample(shots, separate_observables=True)
        detectors, flips = sampled.view(np.uint8), observables[:, 0].view(np.uint8)
        baseline += int((matcher.decode_batch(detectors) != flips).sum())
        before += int(detectors.sum())
        events = torch.from_numpy(detectors).to(settings.device)
        logits = bound.logits(events)
        for k, cut in enumerate(cuts):
            left, flipped = bound.residual(events, (logits > cut).to(torch.uint8))
            residual = left.cpu().numpy()
            errors[k] += (matcher.decode_batch(residual) ^ flipped.cpu().numpy() != flips).sum()
            after[k] += residual.sum()
    factors = (baseline + 0.5) / (errors + 0.5)
    return [(float(f), before, int(a)) for f, a in zip(factors, after, strict=True)]
