"""Memory experiments on the rotated surface code as Stim circuits, in Stim's own conventions.

Qubit indices, coordinates, detector order and observables are those of
``stim.Circuit.generated("surface_code:rotated_memory_x" / "..._z")``, so that circuits from either
source are interchangeable everywhere else in this package.
"""

from __future__ import annotations

import numbers

import stim

from qec.circuits.noise_model import CircuitNoise
from qec.circuits.surface_code import RotatedSurfaceCode
from qec.support.errors import QecError

NOISELESS = CircuitNoise()


def memory_circuit(
    code: RotatedSurfaceCode,
    noise: CircuitNoise,
    rounds: int,
    basis: str,
    *,
    perfect_final_round: bool = False,
) -> stim.Circuit:
    """A memory experiment: prepare a logical eigenstate, measure all checks, read the data out.

    Detectors sit in layers 0 .. rounds for the checks of ``basis`` and 1 .. rounds - 1 for the
    others; observable 0 is the logical operator of ``basis``.

    Args:
        code: the code's geometry.
        noise: rates of every operation.
        rounds: number of check rounds R >= 1.
        basis: "X" or "Z", the basis of preparation, readout and the observable.
        perfect_final_round: make the last of the R rounds and the data readout noiseless, the
            convention of arXiv:2604.12841 (R - 1 noisy rounds and a perfect one).  Needs R >= 2.

    Raises:
        QecError: rounds or basis out of range.

    Examples:
        >>> import qec
        >>> code, noise = qec.RotatedSurfaceCode(3), qec.CircuitNoise.uniform(0.001)
        >>> circuit = qec.memory_circuit(code, noise, rounds=4, basis="Z")
        >>> circuit.num_detectors, circuit.num_observables
        (32, 1)
    """
    if isinstance(rounds, bool) or not isinstance(rounds, numbers.Integral) or rounds < 1:
        raise QecError(f"rounds={rounds!r} is not supported: use an integer >= 1.")
    if basis not in ("X", "Z"):
        raise QecError(f"basis={basis!r} is not supported: use X or Z.")
    if perfect_final_round and rounds < 2:
        raise QecError(
            "perfect_final_round needs rounds >= 2: one noisy round and the perfect one."
        )

    builder = _Builder(code, basis)
    circuit = builder.coordinates() + builder.prepare(noise)
    if not perfect_final_round:
        circuit += builder.check_round(noise, first=True)
        _append_repeated(circuit, rounds - 1, builder.check_round(noise))
        return circuit + builder.read_out_data(noise)
    # A round ends with the reset for the next one, so the perfect round starts with that reset.
    last_noisy = builder.check_round(noise, first=rounds == 2, reset_noise=NOISELESS)
    if rounds > 2:
        circuit += builder.check_round(noise, first=True)
        _append_repeated(circuit, rounds - 3, builder.check_round(noise))
    circuit += last_noisy + builder.check_round(NOISELESS)
    return circuit + builder.read_out_data(NOISELESS)


def _append_repeated(circuit: stim.Circuit, times: int, body: stim.Circuit) -> None:
    if times:
        circuit.append(stim.CircuitRepeatBlock(times, body))


class _Builder:
    """Emits the pieces of one memory experiment."""

    def __init__(self, code: RotatedSurfaceCode, basis: str) -> None:
        self.code = code
        self.basis = basis
        width = 2 * code.distance + 1  # Stim numbers a qubit by its place in rows of this length.
        self.index = {
            xy: xy[0] + (xy[1] // 2) * width
            for xy in code.data_coords() + code.check_coords("X") + code.check_coords("Z")
        }
        self.data = sorted(self.index[xy] for xy in code.data_coords())
        self.checks = {b: sorted(self.index[xy] for xy in code.check_coords(b)) for b in "XZ"}
        self.ancilla_xy = sorted(
            code.check_coords("X") + code.check_coords("Z"), key=self.index.__getitem__
        )
        # The record holds the X ancillas of a round first, then the Z ancillas.
        record = {q: k for k, q in enumerate(self.checks["X"] + self.checks["Z"])}
        self.lookback = {xy: record[self.index[xy]] - len(record) for xy in self.ancilla_xy}

    def coordinates(self) -> stim.Circuit:
        circuit = stim.Circuit()
        for xy, q in sorted(self.index.items(), key=lambda item: item[1]):
            circuit.append("QUBIT_COORDS", [q], xy)
        return circuit

    def prepare(self, noise: CircuitNoise) -> stim.Circuit:
        circuit = stim.Circuit()
        _prepare(circuit, self.basis, self.data, noise)
        for b in "XZ":
            _prepare(circuit, b, self.checks[b], noise)
        return circuit

    def check_round(
        self, noise: CircuitNoise, *, first: bool = False, reset_noise: CircuitNoise | None = None
    ) -> stim.Circuit:
        circuit = stim.Circuit("TICK")
        _pauli_channel_1(circuit, self.data, noise.idle_spam)
        _depolarize(circuit, self.checks["X"], noise.ancilla_rotation)
        for step in range(4):
            self._cnot_layer(circuit, noise, step)
        circuit.append("TICK")
        _depolarize(circuit, self.checks["X"], noise.ancilla_rotation)
        for b in "XZ":
            _measure(circuit, b, self.checks[b], noise)
            _prepare(circuit, b, self.checks[b], reset_noise or noise)
        if first:
            for xy in sorted(self.code.check_coords(self.basis)):
                circuit.append("DETECTOR", [stim.target_rec(self.lookback[xy])], (*xy, 0))
            return circuit
        circuit.append("SHIFT_COORDS", [], (0, 0, 1))
        for xy in self.ancilla_xy:
            now = self.lookback[xy]
            before = now - len(self.ancilla_xy)
            circuit.append("DETECTOR", [stim.target_rec(now), stim.target_rec(before)], (*xy, 0))
        return circuit

    def _cnot_layer(self, circuit: stim.Circuit, noise: CircuitNoise, step: int) -> None:
        pairs: list[int] = []
        for b in "XZ":
            dx, dy = self.code.schedule(b)[step]
            for x, y in self.code.check_coords(b):
                if (x + dx, y + dy) in self.index:
                    ancilla, data = self.index[x, y], self.index[x + dx, y + dy]
                    pairs += [ancilla, data] if b == "X" else [data, ancilla]
        circuit.append("TICK")
        circuit.append("CX", pairs)
        _pauli_channel_2(circuit, pairs, noise.cnot)
        idle = sorted(set(self.index.values()) - set(pairs))
        _pauli_channel_1(circuit, idle, noise.idle_cnot)

    def read_out_data(self, noise: CircuitNoise) -> stim.Circuit:
        circuit = stim.Circuit()
        _measure(circuit, self.basis, self.data, noise)
        n = len(self.data)
        rec = {q: stim.target_rec(k - n) for k, q in enumerate(self.data)}
        for x, y in sorted(self.code.check_coords(self.basis)):
            around = [(x + dx, y + dy) for dy in (1, -1) for dx in (1, -1)]
            targets = [rec[self.index[xy]] for xy in around if xy in self.index]
            targets.append(stim.target_rec(self.lookback[x, y] - n))
            circuit.append("DETECTOR", targets, (x, y, 1))
        logical = [rec[self.index[xy]] for xy in self.code.logical_coords(self.basis)]
        circuit.append("OBSERVABLE_INCLUDE", logical, 0)
        return circuit


def _prepare(circuit: stim.Circuit, basis: str, qubits: list[int], noise: CircuitNoise) -> None:
    circuit.append("RX" if basis == "X" else "R", qubits)
    _flip(circuit, basis, qubits, noise.prep_x if basis == "X" else noise.prep_z)


def _measure(circuit: stim.Circuit, basis: str, qubits: list[int], noise: CircuitNoise) -> None:
    _flip(circuit, basis, qubits, noise.meas_x if basis == "X" else noise.meas_z)
    circuit.append("MX" if basis == "X" else "M", qubits)


def _flip(circuit: stim.Circuit, basis: str, qubits: list[int], rate: float) -> None:
    """Flips eigenstates of ``basis``: the applied Pauli is the other one."""
    if rate:
        circuit.append("Z_ERROR" if basis == "X" else "X_ERROR", qubits, rate)


def _depolarize(circuit: stim.Circuit, qubits: list[int], strength: float) -> None:
    if strength:
        circuit.append("DEPOLARIZE1", qubits, strength)


# Stim turns DEPOLARIZE channels into independent mechanisms exactly, general Pauli channels only
# to first order; so the exact instruction is used wherever the rates allow it.
def _pauli_channel_1(
    circuit: stim.Circuit, qubits: list[int], rates: tuple[float, float, float]
) -> None:
    if not qubits or not any(rates):
        return
    if _all_equal(rates) and sum(rates) <= 0.75:
        circuit.append("DEPOLARIZE1", qubits, sum(rates))
    else:
        circuit.append("PAULI_CHANNEL_1", qubits, _printable(rates))


def _pauli_channel_2(circuit: stim.Circuit, pairs: list[int], rates: tuple[float, ...]) -> None:
    if not any(rates):
        return
    if _all_equal(rates) and sum(rates) <= 15 / 16:
        circuit.append("DEPOLARIZE2", pairs, sum(rates))
    else:
        circuit.append("PAULI_CHANNEL_2", pairs, _printable(rates))


def _printable(rates: tuple[float, ...]) -> list[float]:
    """Rates whose sum is at most 1 with the six digits that Stim prints, too."""
    total = sum(rates)
    return [rate * min(1, (1 - 1e-5) / total) for rate in rates]


def _all_equal(rates: tuple[float, ...]) -> bool:
    return max(rates) - min(rates) <= 1e-15
