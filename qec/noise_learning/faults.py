"""Every elementary fault of a stabiliser circuit: what it flips, and which noise parameter it has.

A Pauli channel is, exactly, a product of independent Pauli flips: with the eigenvalues
lambda_Q = 1 - 2 sum_{P anticommutes with Q} p_P of the channel, -ln lambda_Q = sum_{P anticommutes
with Q} x_P, where x_P = -ln(1 - 2 q_P) belongs to the independent flip P of probability q_P.
Solving that for x turns every channel into *faults*.  The x of all faults with the same symptom add
up to that of an error mechanism of the detector error model, so x_mechanism is linear in the x of
the faults, and in the parameters that they share.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import stim
from scipy.sparse import csr_array

from qec.noise_learning.noise_parameters import NoiseParameters
from qec.support.errors import QecError

_PER_FAULT = ("x", "parameter", "location", "site")
_CHUNK = 16384  # Pauli flips that are propagated at a time


@dataclasses.dataclass(frozen=True, eq=False)
class Faults:
    """Independent causes of error mechanisms, and what they have in common.

    Attributes:
        mechanism: int64 (f,), the mechanism that each fault adds to.
        x: float64 (f,), -ln(1 - 2 q) for a fault of probability q, as the circuit has it.
        parameter: int64 (f,), index into ``parameter_names``: faults of one kind.
        location: int64 (f,), faults of one application of a channel.
        site: int64 (f,), faults of one kind of channel on the same qubits, at any time.
        parameter_names: names of the noise parameters, "role.PAULI".
    """

    mechanism: np.ndarray
    x: np.ndarray
    parameter: np.ndarray
    location: np.ndarray
    site: np.ndarray
    parameter_names: tuple[str, ...]

    def mechanism_rates(self, mechanisms: int) -> np.ndarray:
        """x of the mechanisms that the faults add up to, float64 (mechanisms,)."""
        return np.bincount(self.mechanism, self.x, minlength=mechanisms)

    def design(self, mechanisms: int) -> np.ndarray:
        """x of the mechanisms by parameter, float64 (mechanisms, parameters): rows are formulas."""
        shape = (mechanisms, len(self.parameter_names))
        return csr_array((self.x, (self.mechanism, self.parameter)), shape=shape).toarray()


@dataclasses.dataclass(frozen=True, eq=False)
class CircuitFaults:
    """The detectable faults of a circuit and the symptoms that they have.

    Attributes:
        faults: ``mechanism`` is an index into the symptoms.
        sets: int64 sparse (symptoms, num_detectors), 1 for the detectors that a symptom flips.
        flips_observable: bool (symptoms, num_observables).
    """

    faults: Faults
    sets: csr_array
    flips_observable: np.ndarray

    @classmethod
    def of(cls, circuit: stim.Circuit) -> CircuitFaults:
        """Enumerates the faults of a circuit.

        Raises:
            QecError: a noise instruction that is no Pauli channel, or no noise at all.
        """
        return _Collector(circuit.flattened()).collect()


def parameter_rates(circuit: stim.Circuit) -> dict[str, float]:
    """x = -ln(1 - 2 q) of each noise parameter of a circuit, of its first fault where they differ.

    Raises:
        QecError: as ``CircuitFaults.of``.
    """
    collector = _Collector(circuit.flattened())
    names = list(collector.parameters)
    return {names[f.parameter]: f.x for f in reversed(collector.faults)}


@dataclasses.dataclass
class _Fault:
    generators: tuple[int, ...]
    x: float
    parameter: int
    location: int
    site: int


class _Collector:
    """Walks through the circuit and lists channels as products of generators.

    A generator is a single X or Z flip of a qubit between two of its gates, or a flipped record
    entry.  Pauli frames are linear: a fault flips what its generators flip, together.
    """

    def __init__(self, circuit: stim.Circuit) -> None:
        self.circuit = circuit
        self.roles = NoiseParameters(circuit)
        self.faults: list[_Fault] = []
        self.generators: dict[tuple, int] = {}
        self.flips: dict[int, list[tuple[int, str, int]]] = {}  # op -> (generator, pauli, qubit)
        self.records: dict[int, int] = {}  # generator -> measurement
        self.parameters: dict[str, int] = {}
        self.sites: dict[tuple, int] = {}
        self.locations = 0
        self._list_faults()

    def _list_faults(self) -> None:
        gates_on: dict[int, int] = collections.Counter()
        measured = 0
        for k, op in enumerate(self.circuit):
            data = stim.gate_data(op.name)
            if op.name in CHANNELS:
                self._channel(k, op, gates_on)
            elif op.name in ("E", "CORRELATED_ERROR"):
                self._correlated(k, op, gates_on)
            elif data.is_noisy_gate and (op.name in _HERALDED or not data.produces_measurements):
                raise QecError(
                    f"the circuit has the noise instruction {op.name}, which is no Pauli channel: "
                    "noise learning needs X_ERROR, DEPOLARIZE1, PAULI_CHANNEL_2 and the like."
                )
            else:
                if op.num_measurements and any(op.gate_args_copy()):
                    self._record_flips(op, measured)
                measured += op.num_measurements
                gates_on.update(
                    t.qubit_value for t in op.targets_copy() if t.qubit_value is not None
                )
        if not self.faults:
            raise QecError("the circuit has no noise: there is nothing to learn about it.")

    def _channel(self, k: int, op: stim.CircuitInstruction, gates_on: dict[int, int]) -> None:
        paulis, rates = CHANNELS[op.name](op.gate_args_copy())
        x = independent_flips(paulis, rates)
        for group in op.target_groups():
            qubits = tuple(t.value for t in group)
            role = self.roles.of(k, op, qubits)
            self._location(k, role, qubits, paulis, x, gates_on)

    def _correlated(self, k: int, op: stim.CircuitInstruction, gates_on: dict[int, int]) -> None:
        targets = [t for t in op.targets_copy() if not t.is_combiner]
        qubits = tuple(t.value for t in targets)
        pauli = "".join(t.pauli_type for t in targets)
        x = independent_flips([pauli], op.gate_args_copy())
        self._location(k, self.roles.of(k, op, qubits), qubits, [pauli], x, gates_on)

    def _record_flips(self, op: stim.CircuitInstruction, measured: int) -> None:
        x = float(independent_flips(["X"], op.gate_args_copy())[0])
        for n, group in enumerate(op.target_groups()):
            qubits = tuple(t.value for t in group)
            generator = self.generators.setdefault(("record", measured + n), len(self.generators))
            self.records[generator] = measured + n
            self._add((generator,), x, f"result of {op.name}.flip", (op.name, *qubits))
            self.locations += 1

    def _location(
        self,
        k: int,
        role: str,
        qubits: tuple[int, ...],
        paulis: list[str],
        x: np.ndarray,
        gates_on: Mapping[int, int],
    ) -> None:
        for pauli, x_pauli in zip(paulis, x.tolist(), strict=True):
            generators = []
            for q, letter in zip(qubits, pauli, strict=True):
                for part in {"X": "X", "Z": "Z", "Y": "XZ", "I": ""}[letter]:
                    generators.append(self._generator(k, part, q, gates_on.get(q, 0)))
            self._add(tuple(generators), x_pauli, f"{role}.{pauli}", (role, *qubits))
        self.locations += 1

    def _generator(self, k: int, pauli: str, qubit: int, gates: int) -> int:
        key = (pauli, qubit, gates)
        if key not in self.generators:
            self.generators[key] = len(self.generators)
            self.flips.setdefault(k, []).append((self.generators[key], pauli, qubit))
        return self.generators[key]

    def _add(self, generators: tuple[int, ...], x: float, parameter: str, site: tuple) -> None:
        self.faults.append(
            _Fault(
                generators,
                x,
                self.parameters.setdefault(parameter, len(self.parameters)),
                self.locations,
                self.sites.setdefault(site, len(self.sites)),
            )
        )

    # Propagation ---------------------------------------------------------------------------------

    def collect(self) -> CircuitFaults:
        bits = self._symptoms_of_generators()
        # Symptoms are told apart by a linear 128-bit hash: that of a fault is the sum (XOR) of
        # those of its generators, so that no fault's symptom has to be written out.
        n = self.circuit.num_detectors
        total = n + self.circuit.num_observables
        words = symptom_words(total)
        hashes = np.array([np.bitwise_xor.reduce(words[b], axis=0) for b in bits])
        widest = max(len(fault.generators) for fault in self.faults)
        padded = np.full((len(self.faults), widest), len(bits))
        for k, fault in enumerate(self.faults):
            padded[k, : len(fault.generators)] = fault.generators
        hashes = np.concatenate([hashes, np.zeros((1, 2), np.uint64)])
        of_fault = np.bitwise_xor.reduce(hashes[padded], axis=1)
        seen = np.flatnonzero(of_fault.any(axis=1))
        _, first, symptom = np.unique(
            of_fault[seen], axis=0, return_index=True, return_inverse=True
        )
        faults = [self.faults[k] for k in seen]
        flipped = [_odd(np.concatenate([bits[g] for g in faults[k].generators])) for k in first]
        row = np.repeat(np.arange(len(first)), [len(f) for f in flipped])
        where = (row, np.concatenate(flipped))
        symptoms = csr_array((np.ones(len(row), np.int64), where), shape=(len(first), total))
        table = Faults(
            mechanism=symptom.ravel(),
            parameter_names=tuple(self.parameters),
            **{name: np.array([getattr(fault, name) for fault in faults]) for name in _PER_FAULT},
        )
        return CircuitFaults(table, symptoms[:, :n], symptoms[:, n:].toarray() > 0)

    def _symptoms_of_generators(self) -> list[np.ndarray]:
        """For each generator the detectors, then num_detectors + observables, that it flips."""
        total = len(self.generators)
        bits: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * total
        order = [(k, *flip) for k, flips in self.flips.items() for flip in flips]
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            at: dict[int, list[tuple[int, str, int]]] = {}
            for instance, (k, _, pauli, qubit) in enumerate(chunk):
                at.setdefault(k, []).append((instance, pauli, qubit))
            flipped = self._propagate(at, len(chunk))
            row, which = np.nonzero(flipped)
            starts = np.searchsorted(row, np.arange(len(chunk) + 1))
            for j, (_, generator, _, _) in enumerate(chunk):
                bits[generator] = which[starts[j] : starts[j + 1]]
        if self.records:
            of_record = self._seen_by()
            for generator, measurement in self.records.items():
                bits[generator] = of_record.get(measurement, bits[generator])
        return bits

    def _propagate(self, at: dict[int, list[tuple[int, str, int]]], instances: int) -> np.ndarray:
        """bool (instances, detectors + observables)."""
        sim = stim.FlipSimulator(batch_size=instances, disable_stabilizer_randomization=True)
        for k, op in enumerate(self.circuit):
            for instance, pauli, qubit in at.get(k, ()):
                sim.set_pauli_flip(pauli, qubit_index=qubit, instance_index=instance)
            if op.num_measurements:
                sim.do(stim.CircuitInstruction(op.name, op.targets_copy()))  # without its noise
            elif not stim.gate_data(op.name).is_noisy_gate:
                sim.do(op)
        *_, detectors, observables = sim.to_numpy(
            output_detector_flips=True, output_observable_flips=True
        )
        return np.concatenate([detectors, observables]).T

    def _seen_by(self) -> dict[int, np.ndarray]:
        """For each record entry the detectors and observables that contain it."""
        seen: dict[int, list[int]] = {}
        measured = detectors = 0
        for op in self.circuit:
            annotates = op.name in ("DETECTOR", "OBSERVABLE_INCLUDE")
            if not annotates and any(t.is_measurement_record_target for t in op.targets_copy()):
                raise QecError(
                    "the circuit has both noisy measurements, M(p), and feedback from the record; "
                    "write the measurement noise as X_ERROR(p) before M instead."
                )
            if annotates:
                what = detectors
                if op.name == "OBSERVABLE_INCLUDE":
                    what = self.circuit.num_detectors + int(op.gate_args_copy()[0])
                for target in op.targets_copy():
                    seen.setdefault(measured + target.value, []).append(what)
                detectors += op.name == "DETECTOR"
            measured += op.num_measurements
        return {m: _odd(which) for m, which in seen.items()}


def symptom_words(bits: int) -> np.ndarray:
    """uint64 (bits, 2): random words whose sums (XOR) over a symptom's bits identify it."""
    return np.random.default_rng(0).integers(2**64, size=(bits, 2), dtype=np.uint64)


def _odd(values: Sequence[int] | np.ndarray) -> np.ndarray:
    which, count = np.unique(values, return_counts=True)
    return which[count % 2 == 1]


# Channels ----------------------------------------------------------------------------------------

_HERALDED = ("HERALDED_ERASE", "HERALDED_PAULI_CHANNEL_1")
_SINGLE = ["X", "Y", "Z"]
_PAIRS = ["".join(pair) for pair in itertools.product("IXYZ", repeat=2)][1:]

CHANNELS = {
    "X_ERROR": lambda args: (["X"], args),
    "Y_ERROR": lambda args: (["Y"], args),
    "Z_ERROR": lambda args: (["Z"], args),
    "DEPOLARIZE1": lambda args: (_SINGLE, [args[0] / 3] * 3),
    "DEPOLARIZE2": lambda args: (_PAIRS, [args[0] / 15] * 15),
    "PAULI_CHANNEL_1": lambda args: (_SINGLE, args),
    "PAULI_CHANNEL_2": lambda args: (_PAIRS, args),
}


def independent_flips(paulis: list[str], rates: list[float]) -> np.ndarray:
    """x = -ln(1 - 2 q) of the independent Pauli flips whose product is a Pauli channel.

    Args:
        paulis: either one Pauli, or all non-identity Paulis on one or two qubits.
        rates: their disjoint probabilities.

    Returns:
        float64 (len(paulis),).  An x may be slightly negative where a Pauli is much rarer than the
        products of others that make it.

    Raises:
        QecError: a channel so strong that it inverts a Pauli: not a product of flips below 1/2.
    """
    anticommute = _anticommutation(tuple(paulis))
    eigenvalue = 1 - 2 * anticommute @ np.asarray(rates, dtype=np.float64)
    if (eigenvalue <= 0).any():
        raise QecError(f"a Pauli channel with the rates {list(rates)} is too strong: lower them.")
    return np.linalg.solve(anticommute, -np.log(eigenvalue))


@functools.lru_cache
def _anticommutation(paulis: tuple[str, ...]) -> np.ndarray:
    if len(paulis) == 1:
        return np.ones((1, 1))
    strings = [stim.PauliString(p) for p in paulis]
    return np.array([[not a.commutes(b) for b in strings] for a in strings], dtype=np.float64)
