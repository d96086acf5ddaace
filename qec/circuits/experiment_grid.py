"""The grid of memory experiments that sweeps and evaluations run over."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import stim

from qec.circuits.lattice import detector_error_model
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.stim_files import load_noise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.support.errors import QecError
from qec.support.settings import distinct_values

Point = tuple[stim.Circuit, stim.DetectorErrorModel, dict]
"""A circuit, its detector error model and what describes it: d, r, p, b (basis), noise, ..."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """The axes of a grid, as in conf/sweep.yaml.

    Attributes:
        distance, basis, orientation: of the codes and of preparation and readout.
        rounds: numbers of check rounds; None is ``rounds_per_distance`` times the distance.
        noise: names of noise families, or paths of .yaml files with rates.
        p: strengths of the noise families; files have none.
        perfect_final_round: as in ``qec.circuits.memory_circuit.memory_circuit``.
    """

    distance: tuple[int, ...]
    rounds: tuple[int | None, ...]
    p: tuple[float, ...]
    basis: tuple[str, ...]
    noise: tuple[str, ...]
    orientation: tuple[str, ...] = ("ZV",)
    perfect_final_round: bool = False
    rounds_per_distance: int = 1

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Grid:
        """The grid that a configuration's values describe; other keys are passed over.

        Raises:
            QecError: an axis that is empty or nested, p = 0, a flag that is none.  Distances,
                rounds, names and files are checked as ``points`` gets to them.
        """
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls) if f.name in values}
        for key in fields.keys() & {"distance", "rounds", "p", "basis", "noise", "orientation"}:
            fields[key] = distinct_values(key, fields[key])
        for p in fields["p"]:
            if p == 0:
                raise QecError("p=0 leaves nothing to decode: give a noise strength above 0.")
        if not isinstance(fields.get("perfect_final_round", False), bool):
            raise QecError("perfect_final_round must be true or false.")
        return cls(**fields)

    def points(self) -> Iterator[Point]:
        """Every point once.

        Raises:
            QecError: an odd value on an axis, an unreadable noise file.
        """
        models = [_noise_models(str(name), self.p) for name in self.noise]
        seen = set()
        for family, orientation, basis, d, rounds in itertools.product(
            models, self.orientation, self.basis, self.distance, self.rounds
        ):
            code = RotatedSurfaceCode(d, orientation)
            r = self.rounds_per_distance * d if rounds is None else rounds
            for label, p, noise in family:
                strength = {} if p is None else {"p": p}
                metadata = {"d": d, "r": r, **strength, "b": basis, "noise": label}
                metadata["o"] = orientation
                if self.perfect_final_round:
                    metadata["perfect_final_round"] = True
                if (point := tuple(metadata.items())) in seen:
                    continue
                seen.add(point)
                circuit = memory_circuit(
                    code, noise, r, basis, perfect_final_round=self.perfect_final_round
                )
                yield circuit, detector_error_model(circuit), metadata


def _noise_models(
    name: str, strengths: Sequence[float]
) -> list[tuple[str, float | None, CircuitNoise]]:
    """Label, strength and model: of a named family for each strength, or of a file, without one."""
    if Path(name).suffix not in (".yaml", ".yml"):
        return [(name, p, CircuitNoise.named(name, p)) for p in strengths]
    noise = load_noise(name)
    # The rates are in the task's identity, so that an edited file starts new rows.
    digest = hashlib.sha256(repr(noise).encode()).hexdigest()[:8]
    return [(f"{Path(name).name}@{digest}", None, noise)]
