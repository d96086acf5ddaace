"""The circuit noise model: 25 Pauli rates, and the named one-parameter families built from them.

The model follows arXiv:2604.12841: preparation and measurement flips per basis, idling during
CNOT layers and during measurement + reset, and all fifteen two-qubit Paulis after a CNOT.
"""

from __future__ import annotations

import dataclasses
import itertools
import numbers
import reprlib
from collections.abc import Mapping
from typing import Any

from qec.support.errors import QecError

PAULI_PAIRS = tuple(a + b for a, b in itertools.product("IXYZ", repeat=2))[1:]
"""The fifteen non-identity two-qubit Paulis in the argument order of Stim's PAULI_CHANNEL_2."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CircuitNoise:
    """Pauli rates (probabilities, dimensionless) of every operation of a memory circuit.

    Attributes:
        prep_x, prep_z: wrong state after preparing |+> (a Z flip) or |0> (an X flip).
        meas_x, meas_z: wrong outcome of an X or Z readout (a Z or X flip before it).
        idle_cnot: (X, Y, Z) rates of a qubit that idles during one CNOT layer.
        idle_spam: (X, Y, Z) rates of a data qubit while ancillas are measured and reset; applied
            at the start of each round, the first included, where Stim's generated circuits have
            their ``before_round_data_depolarization``.
        cnot: fifteen rates after a CNOT, control first, in the order of ``PAULI_PAIRS``.
        ancilla_rotation: depolarising strength of the two basis changes around an X check; not one
            of the 25 (zero in ``uniform``).  Stim's generated circuits and SI1000 have it.

    Raises:
        QecError: a rate that is not a number in [0, 1], or a channel whose rates exceed 1.

    Examples:
        >>> import qec
        >>> noise = qec.CircuitNoise.uniform(0.006)
        >>> noise.meas_x, noise.cnot[0]
        (0.004, 0.0004)
        >>> qec.CircuitNoise(meas_x=0.01).meas_z
        0.0
    """

    prep_x: float = 0.0
    prep_z: float = 0.0
    meas_x: float = 0.0
    meas_z: float = 0.0
    idle_cnot: tuple[float, float, float] = (0.0, 0.0, 0.0)
    idle_spam: tuple[float, float, float] = (0.0, 0.0, 0.0)
    cnot: tuple[float, ...] = (0.0,) * 15
    ancilla_rotation: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            size = len(field.default) if isinstance(field.default, tuple) else None
            if size is None:
                object.__setattr__(self, field.name, _probability(field.name, value))
                continue
            try:
                rates = tuple(_probability(field.name, v) for v in value)
            except TypeError:
                rates = ()
            if len(rates) != size:
                raise QecError(
                    f"noise {field.name}={_shown(value)} must be a list of {size} rates."
                )
            if sum(rates) > 1 + 1e-12:
                raise QecError(f"noise {field.name}: the rates add up to {sum(rates):g}, above 1.")
            object.__setattr__(self, field.name, rates)

    @classmethod
    def uniform(cls, p: float) -> CircuitNoise:
        """Uniform circuit noise of strength p, as in arXiv:2604.12841.

        Preparation and measurement 2p/3; p/3 per Pauli for each idle CNOT layer; two depolarising
        steps of strength p (2p/3 - 4p^2/9 per Pauli) in measurement + reset; p/15 per CNOT Pauli.
        """
        p = _probability("p", p)
        spam = 2 * p / 3 - 4 * p**2 / 9
        return cls(
            prep_x=2 * p / 3,
            prep_z=2 * p / 3,
            meas_x=2 * p / 3,
            meas_z=2 * p / 3,
            idle_cnot=(p / 3,) * 3,
            idle_spam=(spam,) * 3,
            cnot=(p / 15,) * 15,
        )

    @classmethod
    def stim(cls, p: float) -> CircuitNoise:
        """The noise of ``stim.Circuit.generated`` with all four of its parameters equal to p.

        The circuit's detector error model is the one of Stim's circuit (tested).
        """
        p = _probability("p", p)
        return cls(
            prep_x=p,
            prep_z=p,
            meas_x=p,
            meas_z=p,
            idle_spam=(p / 3,) * 3,
            cnot=(p / 15,) * 15,
            ancilla_rotation=p,
        )

    @classmethod
    def si1000(cls, p: float) -> CircuitNoise:
        """Superconducting-inspired noise with a 1000 ns round (Gidney et al., Quantum 5, 605).

        Two-qubit gates p, single-qubit gates and gate idling p/10, reset 2p, measurement 5p, idling
        during measurement or reset 2p; two-qubit gates are CNOTs here instead of CZs.

        Raises:
            QecError: p outside of [0, 1/5].
        """
        p = _probability("p", p)
        if p > 0.2:
            raise QecError(f"si1000 noise needs p <= 0.2 (its measurement flip is 5p), got {p:g}.")
        return cls(
            prep_x=2 * p,
            prep_z=2 * p,
            meas_x=5 * p,
            meas_z=5 * p,
            idle_cnot=(p / 30,) * 3,
            idle_spam=(2 * p / 3,) * 3,
            cnot=(p / 15,) * 15,
            ancilla_rotation=p / 10,
        )

    @classmethod
    def named(cls, name: str, p: float) -> CircuitNoise:
        """The family ``name`` ("uniform", "stim" or "si1000") at strength p.

        Raises:
            QecError: an unknown family, or a strength that it does not have.
        """
        families = {"uniform": cls.uniform, "stim": cls.stim, "si1000": cls.si1000}
        if name not in families:
            raise QecError(f"noise={name!r} is unknown: use one of {', '.join(families)}.")
        return families[name](p)

    @classmethod
    def from_mapping(cls, rates: Mapping[str, Any]) -> CircuitNoise:
        """Builds a model from a configuration mapping of attribute names to rates.

        Raises:
            QecError: an unknown name, or rates that are none.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(map(str, set(rates) - known)):
            raise QecError(
                f"unknown noise rates {reprlib.repr(unknown)}: the names are {sorted(known)}."
            )
        return cls(**rates)


def _probability(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or value != value:
        raise QecError(f"{name}={_shown(value)} is not a probability: give a number in [0, 1].")
    if not 0 <= value <= 1:  # type: ignore[operator]  # typeshed's Real has no order
        raise QecError(f"{name}={_shown(value)} is outside [0, 1].")
    return float(value)


def _shown(value: object) -> str:
    """It in few characters."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes out no integer of so many digits
        return "a number of thousands of digits"
