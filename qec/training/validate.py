"""The commit threshold, chosen on validation shots that training and evaluation never use."""

from __future__ import annotations

import math

import numpy as np
from rich.table import Table

from qec.circuit import memory_circuit
from qec.code import RotatedSurfaceCode
from qec.lattice import SpaceTimeLattice
from qec.matching import Matcher, basis_split
from qec.noise import CircuitNoise
from qec.predecoder.correction import Predecoder
from qec.predecoder.network import PreDecoderNetwork

_VALIDATION_SEED = 777_000_000


def choose_threshold(network: PreDecoderNetwork, cfg) -> tuple[float, list[dict]]:
    """Picks the threshold with the lowest pooled LER among those that halve the events.

    Each candidate decodes the same shots of every validation circuit (distances x {X, Z}, uniform
    noise); the score is the mean over circuits of log(LER / LER of uncorrelated PyMatching).

    Returns:
        the threshold, and one record per candidate: threshold, F per circuit (LER of PyMatching
        over LER of the pipeline), events before / events after.
    """
    circuits = [(d, basis) for d in cfg.validation_distances for basis in ("X", "Z")]
    prepared = [_prepare(d, basis, k, cfg) for k, (d, basis) in enumerate(circuits)]
    records = []
    for threshold in cfg.thresholds:
        predecoder = Predecoder(network, threshold)
        factors, before, after = {}, 0, 0
        for (d, basis), (lattice, matcher, detectors, flips) in zip(
            circuits, prepared, strict=True
        ):
            residual, committed = predecoder.bind(lattice, cfg.device).apply(detectors)
            errors = int((matcher.decode_batch(residual) ^ committed != flips).sum())
            baseline = int((matcher.decode_batch(detectors) != flips).sum())
            factors[f"d={d} {basis}"] = (baseline + 0.5) / (errors + 0.5)
            before += int(detectors.sum())
            after += int(residual.sum())
        records.append(
            {
                "threshold": threshold,
                "F": {name: round(f, 3) for name, f in factors.items()},
                "mean_log_F": float(np.mean([math.log(f) for f in factors.values()])),
                "density_ratio": round(before / max(after, 1), 2),
            }
        )
    halved = [record for record in records if record["density_ratio"] >= 2] or records
    best = max(halved, key=lambda record: record["mean_log_F"])
    return best["threshold"], records


def validation_table(records: list[dict], chosen: float) -> Table:
    """The candidates as a table, the chosen threshold marked."""
    table = Table("threshold", *records[0]["F"], "events before / after", title="F on validation")
    for record in records:
        mark = " *" if record["threshold"] == chosen else ""
        factors = [f"{f:.2f}" for f in record["F"].values()]
        table.add_row(f"{record['threshold']}{mark}", *factors, f"{record['density_ratio']:.1f}")
    return table


def _prepare(d: int, basis: str, number: int, cfg):
    noise = CircuitNoise.uniform(cfg.validation_p)
    circuit = memory_circuit(RotatedSurfaceCode(d), noise, d, basis)
    lattice = SpaceTimeLattice.from_circuit(circuit)
    sampler = circuit.compile_detector_sampler(seed=_VALIDATION_SEED + number)
    detectors, flips = sampler.sample(cfg.validation_shots, separate_observables=True)
    matcher = Matcher(basis_split(lattice), correlated=False)
    return lattice, matcher, detectors.astype(np.uint8), flips[:, 0].astype(np.uint8)
