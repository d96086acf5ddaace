"""What `qec realtime` is asked to do: conf/realtime.yaml, checked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import stim
from omegaconf import DictConfig

from qec.circuits.lattice import SpaceTimeLattice, detector_error_model
from qec.circuits.memory_circuit import memory_circuit
from qec.circuits.model_agreement import warn_of_disagreement
from qec.circuits.noise_model import CircuitNoise
from qec.circuits.stim_files import load_dem, read_shots_and_flips
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.decoding.decoder_names import has_predecoder
from qec.matching.matcher import Unexplained, basis_split, matching_graph, unexplained
from qec.realtime.plan import NOTHING, Plan, model_rounds
from qec.support.errors import QecError
from qec.support.process_pool import available_cores
from qec.support.settings import distinct_values, plain_values, positive_integer, required_path
from qec.windows.window_decoder import WINDOW_DECODERS, check_window_decoder

LARGEST = "max"
"""Stands for the shortest period that is kept up with."""
AUTO = "auto"
"""Stands for as few layers to a window's core as the period allows."""


@dataclasses.dataclass(frozen=True)
class RealtimeSettings:
    """conf/realtime.yaml; ``rounds`` and ``distance`` are those of ``circuit`` if that is given."""

    config: DictConfig
    distance: int
    rounds: int
    shots: int
    qubits: int
    period_us: tuple[float | str, ...]
    deadline_us: tuple[float | None, ...]
    decoders: tuple[str, ...]
    predecoder: str
    commit: int | str
    buffer: int
    device: str
    backend: str
    workers: int
    predecoder_workers: int
    timeout: float
    out: Path
    recorded: stim.DetectorErrorModel | None

    @classmethod
    def from_config(cls, config: DictConfig) -> RealtimeSettings:
        """Raises QecError where a value makes no sense or a file does not fit."""
        values = plain_values(config)
        for key in ("period_us", "deadline_us", "decoders"):
            values[key] = distinct_values(key, values[key])
        for name in values["decoders"]:
            check_window_decoder(name, NOTHING)
        for period in values["period_us"]:
            if period != LARGEST and (not _is_number(period) or period < 0):
                raise QecError(
                    f"period_us={period!r} is not supported: use microseconds, 0, or {LARGEST}."
                )
        for deadline in values["deadline_us"]:
            if deadline is not None and (not _is_number(deadline) or deadline <= 0):
                raise QecError(
                    f"deadline_us={deadline!r} is not supported: use microseconds, or null."
                )
        values["recorded"] = None
        if config.circuit is not None:
            values["recorded"] = load_dem(required_path(config, "circuit"))
            lattice = SpaceTimeLattice.from_dem(values["recorded"])
            values |= {"distance": lattice.distance, "rounds": lattice.rounds}
        if values["buffer"] is None:
            values["buffer"] = values["distance"]
        cores = len(available_cores())
        if values["predecoder_workers"] is None:
            values["predecoder_workers"] = 1 if values["device"] != "cpu" else max(1, cores - 2)
        if values["workers"] is None:
            values["workers"] = max(1, cores - 1)
        numbers = ["rounds", "shots", "qubits", "buffer", "workers", "predecoder_workers"]
        if values["commit"] != AUTO:
            numbers.append("commit")
        for key in numbers:
            positive_integer(key, values[key])
        if values["shots"] % values["qubits"]:
            raise QecError(
                f"shots={values['shots']} do not fill {values['qubits']} qubits evenly: give a "
                "multiple of qubits."
            )
        kept = {f.name for f in dataclasses.fields(cls)} - {"config", "out"}
        return cls(
            config=config,
            out=required_path(config, "out"),
            **{key: value for key, value in values.items() if key in kept},
        )

    def circuit(self, rounds: int) -> stim.Circuit:
        """The memory experiment of that many rounds."""
        c = self.config
        noise = CircuitNoise.named(c.noise, c.p)
        return memory_circuit(RotatedSurfaceCode(self.distance), noise, rounds, c.basis)

    def shots_and_flips(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Detection events, uint8 (shots, detectors), and true flips, uint8 (shots,), if known.

        Raises:
            QecError: files that do not fit the circuit, events that none of its errors explains.
        """
        if self.recorded is None:
            sampler = self.circuit(self.rounds).compile_detector_sampler(seed=self.config.seed)
            events, flips = sampler.sample(self.shots, separate_observables=True)
            return events.view(np.uint8), flips[:, 0].view(np.uint8)
        detectors = self.recorded.num_detectors
        shots, flips = read_shots_and_flips(self.config, detectors)
        count = min(len(shots), self.shots) // self.qubits * self.qubits
        if not count:
            raise QecError(f"{len(shots)} recorded shots are too few for qubits={self.qubits}.")
        shots = shots[:count]
        warn_of_disagreement(shots, self.recorded, self.config.circuit)
        events = np.unpackbits(shots, axis=1, count=detectors, bitorder="little")
        # A shot without a matching would end a process.
        graph = matching_graph(basis_split(SpaceTimeLattice.from_dem(self.recorded)))
        if (found := unexplained(graph, events)) is not None:
            raise Unexplained(*found)
        return events, None if flips is None else flips[:count]

    def source(self) -> str:
        """Where the events come from, in words."""
        if self.recorded is not None:
            return f"recorded in {self.config.dets}"
        return f"{self.config.noise} noise p={self.config.p:g}"

    def whole_model(self) -> stim.DetectorErrorModel:
        """That of the experiment itself."""
        if self.recorded is not None:
            return self.recorded
        return detector_error_model(self.circuit(self.rounds))

    def plan(self, decoder: str, commit: int) -> Plan:
        """How ``decoder`` decodes the experiment, with so many layers to a window's core.

        Raises:
            QecError: the checkpoint cannot be loaded, no such device or backend.
        """
        options: dict = {"correlated": None, "predecoder": NOTHING}
        reach = 0
        if decoder != NOTHING:
            options = dict(WINDOW_DECODERS[decoder])
        if has_predecoder(decoder):
            options["predecoder"] = self.predecoder
            from qec.predecoder.backends import check_backend
            from qec.predecoder.checkpoint import load_predecoder  # torch only where needed
            from qec.predecoder.device import resolve_device

            reach = load_predecoder(self.predecoder).network.reach
            check_backend(self.backend, resolve_device(self.device))
        model = self.recorded
        if model is None:
            enough = model_rounds(commit, self.buffer, reach)
            model = detector_error_model(self.circuit(min(self.rounds, enough)))
        return Plan(
            model=str(model),
            rounds=self.rounds,
            commit=commit,
            buffer=self.buffer,
            device=self.device,
            backend=self.backend,
            qubits=self.qubits,
            **options,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
