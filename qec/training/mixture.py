"""The error models that pre-decoders are trained on: a mixture of what users bring, or files."""

from __future__ import annotations

import dataclasses

import numpy as np
import stim

from qec.circuits.error_model import at_most_half
from qec.circuits.lattice import SpaceTimeLattice
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.stim_files import load_dem
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.noise_learning.random_noise import draw_channels, vary
from qec.training.settings import RANDOM_NOISE, TrainSettings

_POOL = 32  # error models that batches are drawn from at a time
_RENEWED = 2500  # batches after which there is another pool: making one takes as long as hundreds


@dataclasses.dataclass(frozen=True)
class Source:
    """One error model of the mixture, drawn or from a file.

    Attributes:
        file: a circuit or detector error model, in place of all others.
        seed: of what is random about it.
    """

    file: str | None = None
    distance: int = 0
    rounds: int = 0
    orientation: str = "ZV"
    basis: str = "Z"
    order: str = "across"
    noise: str = "uniform"
    p: float = 0.0
    with_cz: bool = False
    spread: float = 0.0
    seed: int = 0

    def lattice(self) -> SpaceTimeLattice:
        """The lattice with the error model.

        Raises:
            QecError: a file that is no such model, or noise that Stim refuses.
        """
        if self.file is not None:
            return SpaceTimeLattice.from_dem(at_most_half(load_dem(self.file)).dem)
        rng = np.random.default_rng(self.seed)
        if self.noise == RANDOM_NOISE:
            noise = draw_channels(self.p, rng)
        else:
            noise = CircuitNoise.named(self.noise, self.p)
        code = RotatedSurfaceCode(self.distance, self.orientation, self.order)
        circuit = memory_circuit(code, noise, self.rounds, self.basis)
        if self.with_cz:
            circuit = cz_compiled(circuit, self.p / 10)
        if self.spread:
            circuit = vary(circuit, self.spread, rng, by="site")
        return SpaceTimeLattice.from_circuit(circuit)


def source_of(settings: TrainSettings, step: int) -> Source:
    """The error model of batch ``step``.

    Batches are drawn from a pool, which changes from time to time: so few error models are made,
    and a long training sees many.
    """
    rng = np.random.default_rng([settings.seed, step, 1])
    if settings.model_of:
        return Source(file=str(rng.choice(settings.model_of)))
    number = int(rng.integers(_POOL))
    return _drawn(settings, np.random.default_rng([settings.seed, step // _RENEWED, number, 2]))


def _drawn(settings: TrainSettings, rng: np.random.Generator) -> Source:
    distance = int(rng.choice(settings.distances))
    least, most = min(settings.ps), max(settings.ps)
    return Source(
        distance=distance,
        rounds=settings.rounds or distance,
        orientation=str(rng.choice(settings.orientations)),
        basis=str(rng.choice(["X", "Z"])),
        order=str(rng.choice(settings.orders)),
        noise=str(rng.choice(settings.noises)),
        p=float(np.exp(rng.uniform(np.log(least), np.log(most)))),
        with_cz=bool(rng.random() < settings.with_cz),
        spread=settings.spread if rng.random() < 0.5 else 0.0,
        seed=int(rng.integers(2**62)),
    )


def cz_compiled(circuit: stim.Circuit, p: float) -> stim.Circuit:
    """The circuit with a CZ between two Hadamard gates for each CNOT, as many devices have it.

    Args:
        circuit: of gates, noise and REPEAT blocks.
        p: strength of the depolarising noise after each Hadamard gate.
    """
    made = stim.Circuit()
    turned: list[stim.GateTarget] = []  # by Hadamard gates whose partners come after the noise

    def turn(targets: list[stim.GateTarget]) -> None:
        made.append("H", targets)
        if p:
            made.append("DEPOLARIZE1", targets, p)

    for op in circuit:
        if turned and op.name not in ("DEPOLARIZE2", "PAULI_CHANNEL_2"):
            turn(turned)
            turned = []
        if isinstance(op, stim.CircuitRepeatBlock):
            made.append(stim.CircuitRepeatBlock(op.repeat_count, cz_compiled(op.body_copy(), p)))
        elif op.name == "CX":
            turned = op.targets_copy()[1::2]
            turn(turned)
            made.append("CZ", op.targets_copy())
        else:
            made.append(op)
    if turned:
        turn(turned)
    return made
