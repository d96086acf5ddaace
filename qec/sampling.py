"""Labelled shots: Stim's error frames, round by round, as error chains on the lattice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import stim

from qec import chain as chains
from qec.chain import Chain
from qec.errors import QecError
from qec.lattice import SpaceTimeLattice
from qec.patch import MEMORY, OTHER

_MEASUREMENTS = {"M", "MX", "MY", "MZ", "MR", "MRX", "MRY", "MRZ"}


class LabelledShots(NamedTuple):
    """Shots with the errors behind them; packed over shots, 8 a byte, little-endian.

    Attributes:
        detectors: uint8 (num_detectors, shots / 8).
        observables: uint8 (shots / 8,), flips of observable 0.
        chain: the sampled errors as uint64 words of 64 shots; not yet canonical.
    """

    detectors: np.ndarray
    observables: np.ndarray
    chain: Chain


class _Run(NamedTuple):
    """What a simulation leaves, packed over shots.

    Attributes:
        frames: uint64 (2 [X, Z], rounds, data qubits, words), the data's frame after each round.
        flips: uint64 (measurements, words).
        detectors, observables: as in ``LabelledShots``.
    """

    frames: np.ndarray
    flips: np.ndarray
    detectors: np.ndarray
    observables: np.ndarray


class FrameSampler:
    """Samples a CSS memory circuit together with its error chains.

    The circuit is cut after each round of ancilla measurements.  A ``stim.FlipSimulator`` without
    stabiliser randomisation runs the pieces, and the data qubits' Pauli frames are read between
    them: so the one noise model, the circuit, also makes the labels.

    Args:
        circuit: a memory experiment on a rotated surface code, its own or from ``stim gen``.
        lattice: its lattice, where known already.

    Raises:
        QecError: qubits without coordinates, or a circuit that is not such an experiment.
    """

    def __init__(self, circuit: stim.Circuit, lattice: SpaceTimeLattice | None = None) -> None:
        self.lattice = lattice or SpaceTimeLattice.from_circuit(circuit)
        d = self.lattice.distance
        place = self._qubit_places(circuit)
        on_plaquette = {q for q, (row, col) in place.items() if row == int(row) and col == int(col)}
        self._pieces, order = _cut(circuit.flattened(), on_plaquette, d * d - 1)
        if len(self._pieces) != self.lattice.rounds + 1:
            raise QecError(
                f"the circuit measures all {d * d - 1} ancillas {len(self._pieces) - 1} times, but "
                f"its detectors span {self.lattice.rounds} rounds."
            )
        grid = np.array([place[q] for q in order]).astype(int)
        self._ancilla_row, self._ancilla_col = grid.T
        data = sorted((row, col, q) for q, (row, col) in place.items() if q not in on_plaquette)
        self._data = np.array([q for _, _, q in data])
        if len(self._data) != d * d:
            raise QecError(f"the circuit has {len(self._data)} data qubits, expected {d * d}.")
        self._memory_pauli = self._find_memory_pauli()

    def _qubit_places(self, circuit: stim.Circuit) -> dict[int, tuple[float, float]]:
        coords = circuit.get_final_qubit_coordinates()
        if not coords or any(len(xy) < 2 for xy in coords.values()):
            raise QecError("the circuit's qubits need QUBIT_COORDS(x, y) to sample error frames.")
        grid = self.lattice.frame(np.array([xy[:2] for xy in coords.values()]))
        return {q: (float(r), float(c)) for q, (r, c) in zip(coords, grid, strict=True)}

    def _find_memory_pauli(self) -> int:
        """0 where X errors of the data flip the memory checks, 1 where Z errors do.

        Puts each single-qubit error of the data alone between the first round and what follows.
        Everything later must see it as that data error: a wrong assignment of frames to sectors
        would need further data or measurement errors to make the same detection events.

        Raises:
            QecError: no assignment does, so that the frames cannot serve as labels.
        """
        n = len(self._data)
        shots = 64 * -(-2 * n // 64)
        faults = np.zeros((2, int(self._data.max()) + 1, shots), dtype=bool)
        faults[0, self._data, np.arange(n)] = True
        faults[1, self._data, np.arange(n, 2 * n)] = True
        run = self._simulate([piece.without_noise() for piece in self._pieces], shots, 0, faults)
        for memory_pauli in (0, 1):
            chain = self._chain(run, memory_pauli)
            if not (chain.q[:, 1:].any() or chain.t[1:].any()):
                return memory_pauli
        raise QecError(
            "the circuit's frames do not explain its detectors: error labels need a CSS circuit "
            "(X and Z checks, each measured by one ancilla), with no Clifford gate left on a data "
            "qubit between rounds."
        )

    def sample(self, shots: int, seed: int) -> LabelledShots:
        """Draws labelled shots, reproducibly by ``seed``.

        Args:
            shots: a multiple of 64.
            seed: non-negative integer below 2**63.
        """
        if shots < 64 or shots % 64:
            raise QecError(f"shots={shots} must be a positive multiple of 64.")
        run = self._simulate(self._pieces, shots, seed)
        return LabelledShots(run.detectors, run.observables, self._chain(run, self._memory_pauli))

    def _simulate(
        self, pieces: list[stim.Circuit], shots: int, seed: int, faults: np.ndarray | None = None
    ) -> _Run:
        """Runs the pieces; ``faults`` bool (2 [X, Z], qubits, shots) come after the first one."""
        sim = stim.FlipSimulator(batch_size=shots, disable_stabilizer_randomization=True, seed=seed)
        frames = np.empty((2, self.lattice.rounds, len(self._data), shots // 64), dtype=np.uint64)
        for k, piece in enumerate(pieces):
            sim.do(piece)
            if k == 0 and faults is not None:
                for pauli, where in zip("XZ", faults, strict=True):
                    mask = np.zeros((sim.num_qubits, shots), dtype=bool)
                    mask[: len(where)] = where
                    sim.broadcast_pauli_errors(pauli=pauli, mask=mask)
            if k < self.lattice.rounds:
                xs, zs, *_ = sim.to_numpy(bit_packed=True, output_xs=True, output_zs=True)
                frames[0, k] = _as_words(xs)[self._data]
                frames[1, k] = _as_words(zs)[self._data]
        *_, flips, detectors, observables = sim.to_numpy(
            bit_packed=True,
            output_measure_flips=True,
            output_detector_flips=True,
            output_observable_flips=True,
        )
        return _Run(frames, _as_words(flips), detectors, observables[0])

    def _chain(self, run: _Run, memory_pauli: int) -> Chain:
        """q_k = E_k + E_{k-1} and t_k = m_k + H E_k from the frames E and the check flips m."""
        d, r, ancillas = self.lattice.distance, self.lattice.rounds, len(self._ancilla_row)
        words = run.flips.shape[-1]
        frames = np.empty((2, r + 1, d * d, words), dtype=np.uint64)
        frames[MEMORY, :r] = run.frames[memory_pauli]
        frames[OTHER, :r] = run.frames[1 - memory_pauli]
        frames[MEMORY, r] = run.flips[r * ancillas :][self._readout_order()]
        frames[OTHER, r] = frames[OTHER, r - 1]  # no detector sees them
        q = frames.reshape(2, r + 1, d, d, words)
        m = np.zeros((r, d + 1, d + 1, words), dtype=np.uint64)
        m[:, self._ancilla_row, self._ancilla_col] = run.flips[: r * ancillas].reshape(
            r, ancillas, words
        )
        t = m ^ chains.parity_map(q[:, :r], self.lattice)
        q[:, 1:] ^= q[:, :-1].copy()
        return chains.drop_invisible(Chain(q, t), self.lattice)

    def _readout_order(self) -> np.ndarray:
        """Positions of the data qubits, in grid order, in the final readout's record."""
        measured = [
            target.value
            for op in self._pieces[-1]
            if op.name in _MEASUREMENTS
            for target in op.targets_copy()
        ]
        where = {q: k for k, q in enumerate(measured)}
        return np.array([where[q] for q in self._data])


def _as_words(packed: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(packed).view(np.uint64)


def _cut(
    circuit: stim.Circuit, ancillas: set[int], per_round: int
) -> tuple[list[stim.Circuit], list[int]]:
    """Splits after each full set of ancilla measurements; also the order of measurement."""
    pieces, piece, seen, order = [], stim.Circuit(), [], []
    for op in circuit:
        piece.append(op)
        if op.name in _MEASUREMENTS:
            seen += [t.value for t in op.targets_copy() if t.value in ancillas]
            if len(seen) == per_round:
                if order and order != seen:
                    raise QecError("the ancillas are measured in a different order in each round.")
                order, seen = seen, []
                pieces.append(piece)
                piece = stim.Circuit()
    return [*pieces, piece], order
