"""Random noise to learn: channels of unknown strength, and circuits whose places differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import stim

from qec.circuits.noise_model import CircuitNoise
from qec.noise_learning.faults import CHANNELS
from qec.support.errors import QecError

KINDS = ("channels", "location", "site")
_MOST = 0.75  # of a channel's probabilities in all: what Stim takes for depolarising noise


def draw_channels(p: float, rng: np.random.Generator) -> CircuitNoise:
    """Uniform noise of strength p with each channel's total rate times 0.3 to 3 (log-uniform).

    How a channel's rate is split over its Paulis is uniform on the simplex.
    """
    uniform = CircuitNoise.uniform(p)

    def factor() -> float:
        return float(np.exp(rng.uniform(np.log(0.3), np.log(3))))

    def split(rates: tuple[float, ...]) -> Any:
        total = sum(rates) * factor()
        return tuple((total * rng.dirichlet(np.ones(len(rates)))).tolist())

    return CircuitNoise(
        prep_x=uniform.prep_x * factor(),
        prep_z=uniform.prep_z * factor(),
        meas_x=uniform.meas_x * factor(),
        meas_z=uniform.meas_z * factor(),
        idle_cnot=split(uniform.idle_cnot),
        idle_spam=split(uniform.idle_spam),
        cnot=split(uniform.cnot),
    )


def vary(
    circuit: stim.Circuit, spread: float, rng: np.random.Generator, *, by: str = "location"
) -> stim.Circuit:
    """The circuit, flattened, with the channel at every place multiplied by a log-normal factor.

    Args:
        circuit: any circuit with Pauli channels.
        spread: standard deviation of the factor's logarithm; its median is 1.
        rng: source of the factors.
        by: "location": a factor for every application of a channel; "site": one for each channel
            and the qubits that it acts on, at all times.

    Raises:
        QecError: another ``by``.
    """
    if by not in ("location", "site"):
        raise QecError(f"by={by!r} is unknown: use location or site.")
    varied = stim.Circuit()
    of_site: dict[tuple, float] = {}
    for op in circuit.flattened():
        if op.name not in CHANNELS:
            varied.append(op)
            continue
        rates = op.gate_args_copy()
        for group in op.target_groups():
            factor = float(np.exp(spread * rng.standard_normal()))
            factor = min(factor, _MOST / max(sum(rates), 1e-300))
            if by == "site":
                key = (op.name, *rates, *(target.value for target in group))
                factor = of_site.setdefault(key, factor)
            varied.append(op.name, group, [rate * factor for rate in rates], tag=op.tag)
    return varied
